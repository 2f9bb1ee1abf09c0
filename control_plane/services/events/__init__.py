"""Readers of the changes that the writer commits.

Rule: nothing here changes an upload.
"""
