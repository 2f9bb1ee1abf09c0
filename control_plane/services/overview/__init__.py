"""The fleet as a whole, for people who look at it.

Rule: as the package above.
"""
