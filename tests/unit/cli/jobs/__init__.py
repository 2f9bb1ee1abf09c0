"""Tests of the commands of jobs."""
