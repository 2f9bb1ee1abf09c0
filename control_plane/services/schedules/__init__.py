"""Schedules: the runner, coverage, the use cases.

Rule: names no adapter.
"""
