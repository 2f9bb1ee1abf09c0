"""The fleet over REST: expected clients, labels, groups.

Rule: as the package above.
"""
