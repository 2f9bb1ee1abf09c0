"""The published documents of trust in SQL.

Rule: as the package above.
"""
