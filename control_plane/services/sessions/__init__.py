"""Who uses the page: browsers that are signed in.

Rule: as the package above.
"""
