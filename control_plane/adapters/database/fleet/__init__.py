"""The fleet's tables beside `clients`: groups.

Rule: as the package above.
"""
