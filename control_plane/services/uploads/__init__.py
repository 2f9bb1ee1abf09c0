"""Use cases and background work for uploads: the writer, the outbox, completion, and what is observed of other owners.

Rule: only the writer changes an upload.
"""
