"""Signed-in browsers in SQL.

Rule: as the package above.
"""
