"""Devices over REST.

Rule: as the package above.
"""
