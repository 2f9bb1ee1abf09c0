"""The audit over REST.

Rule: as the package above.
"""
