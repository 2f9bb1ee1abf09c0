"""Contexts: named control planes with their tokens, in the user's configuration.

Rule: what is typed comes first, then the environment, then the context.
"""
