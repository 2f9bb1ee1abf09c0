"""Tokens: those of an OpenID provider, what a caller with one may reach and how often, and their list over REST.

Rule: as the package above.
"""
