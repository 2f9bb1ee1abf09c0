"""Tokens over REST: which are in use, and the end of one.

Rule: as the package above.
"""
