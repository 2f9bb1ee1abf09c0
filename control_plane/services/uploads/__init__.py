"""Use cases and background work for uploads: the writer, the outbox, completion, and observed uploads.

Rule: only the writer changes an upload.
"""
