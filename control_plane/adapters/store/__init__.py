"""The database: uploads, outbox, clients and idempotency keys on SQLite or PostgreSQL.

Rule: the only package that knows SQL; what goes in and out are the domain's dataclasses.
"""

from control_plane.adapters.store.migration import migrate
from control_plane.adapters.store.store import SqlStore

__all__ = ["SqlStore", "migrate"]
