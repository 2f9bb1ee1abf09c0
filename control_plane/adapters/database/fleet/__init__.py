"""The fleet's tables beside `clients`: groups and listings.

Rule: as the package above.
"""
