"""Tests of schedules in the domain."""
