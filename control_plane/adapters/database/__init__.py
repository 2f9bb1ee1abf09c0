"""The database: uploads, outbox, clients and idempotency keys on SQLite or PostgreSQL.

Rule: the only package that knows SQL; what goes in and out are the domain's dataclasses.
"""

from control_plane.adapters.database.database import SqlDatabase
from control_plane.adapters.database.migration import migrate

__all__ = ["SqlDatabase", "migrate"]
