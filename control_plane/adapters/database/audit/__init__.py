"""The audit in SQL.

Rule: as the package above.
"""
