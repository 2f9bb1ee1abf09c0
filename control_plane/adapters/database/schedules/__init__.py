"""Schedules in SQL.

Rule: as in `adapters.database`.
"""
