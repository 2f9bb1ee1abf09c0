"""Budgets over REST.

Rule: as `control_plane.api`: thin routers over use cases.
"""
