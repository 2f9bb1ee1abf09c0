"""Commands for devices, over REST.

Rule: as the package above.
"""
