"""The table of sessions.

Rule: as `adapters/database/tables.py`.
"""

from typing import Final

from sqlalchemy import Column, Float, Index, String, Table

from control_plane.adapters.database.tables import METADATA, Code

SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("digest", Code, primary_key=True),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("valid_until", Float, nullable=False),
    Index("ix_sessions_expires_at", "expires_at"),
    sqlite_with_rowid=False,
)
