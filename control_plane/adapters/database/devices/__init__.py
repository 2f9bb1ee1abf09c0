"""The registry of devices in SQL.

Rule: as the package above.
"""
