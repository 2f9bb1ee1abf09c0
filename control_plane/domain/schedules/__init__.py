"""Schedules: ticks, runs, coverage.

Rule: pure.
"""
