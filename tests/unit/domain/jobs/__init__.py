"""Tests of the domain of jobs."""
