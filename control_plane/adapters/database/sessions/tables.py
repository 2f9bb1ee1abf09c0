"""The tables of sessions and of tokens.

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
    Column("scopes", String),
    Column("clients", String),
    Column("token_id", String),
    Index("ix_sessions_expires_at", "expires_at"),
    sqlite_with_rowid=False,
)

TOKENS: Final = Table(
    "tokens",
    METADATA,
    Column("token_id", Code, primary_key=True),
    Column("subject", String, nullable=False),
    Column("scopes", String),
    Column("clients", String),
    Column("expires_at", Float, nullable=False),
    Column("used_at", Float),
    Column("address", String),
    Column("revoked_at", Float),
    Column("revoked_by", String),
    Column("reason", String),
    Index("ix_tokens_expires_at", "expires_at", "token_id"),
    sqlite_with_rowid=False,
)

REVOKED: Final = TOKENS.c.revoked_at.is_not(None)
Index(
    "ix_tokens_revoked",
    TOKENS.c.expires_at,
    TOKENS.c.token_id,
    sqlite_where=REVOKED,
    postgresql_where=REVOKED,
)
