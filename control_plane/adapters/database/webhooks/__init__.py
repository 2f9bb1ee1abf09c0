"""Webhooks and their deliveries in SQL.

Rule: as the package above.
"""
