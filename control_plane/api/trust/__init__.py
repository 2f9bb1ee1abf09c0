"""REST of the keys that the fleet obeys.

Rule: as the package above.
"""
