"""Schedules on a real database."""
