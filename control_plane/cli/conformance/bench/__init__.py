"""The bench that an agent is put on: a broker behind a tap, an object store, files, and the owner's side of uploads.

Rule: everything that the agent does is recorded in one transcript; a check reads it there.
"""
