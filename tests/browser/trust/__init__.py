"""The views of who may do what, and of who did what.

Rule: as in `tests/browser`; the site needs a token, since without one there is nothing to see.
"""
