"""Committed changes over REST: the live stream, and webhooks.

Rule: both show a change with the document of `presentation`.
"""
