"""Who uses the page: the sign-in over REST.

Rule: as the package above.
"""
