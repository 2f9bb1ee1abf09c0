"""The database on SQLite or PostgreSQL: uploads, outbox, clients, idempotency keys and the change log.

Rule: the only package with SQL; arguments and results are the domain's dataclasses.
"""

from control_plane.adapters.database.database import SqlDatabase
from control_plane.adapters.database.migration import migrate

__all__ = ["SqlDatabase", "migrate"]
