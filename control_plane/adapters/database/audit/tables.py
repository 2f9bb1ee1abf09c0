"""The tables of the audit.

Rule: as in `adapters.database.tables`. `body` is what is hashed; the columns before it repeat what queries look for.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Float, ForeignKeyConstraint, Index, String, Table

from control_plane.adapters.database.tables import METADATA, Code

AUDIT: Final = Table(
    "audit",
    METADATA,
    Column("writer", Code, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("subject", Code, nullable=False),
    Column("act", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("target", Code, nullable=False),
    Column("previous", String, nullable=False),
    Column("hash", String, nullable=False),
    Column("body", String, nullable=False),
    Index("ix_audit_at", "at", "writer", "number"),
    Index("ix_audit_subject", "subject", "at", "writer", "number"),
    Index("ix_audit_target", "target", "at", "writer", "number"),
    sqlite_with_rowid=False,
)

AUDIT_CLIENTS: Final = Table(
    "audit_clients",
    METADATA,
    Column("writer", Code, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("client_id", Code, primary_key=True),
    Column("at", Float, nullable=False),
    ForeignKeyConstraint(["writer", "number"], ["audit.writer", "audit.number"], ondelete="CASCADE"),
    Index("ix_audit_clients_client", "client_id", "at", "writer", "number"),
    sqlite_with_rowid=False,
)

CHAINS: Final = Table(
    "audit_chains",
    METADATA,
    Column("writer", Code, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", String, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)
"""The head of each chain: one row for each thread that ever wrote."""

CHECKPOINTS: Final = Table(
    "audit_checkpoints",
    METADATA,
    Column("writer", Code, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("note", String, nullable=False),
    Column("key", String, nullable=False),
    Column("sent_at", Float, nullable=True),
    sqlite_with_rowid=False,
)

UNSENT: Final = CHECKPOINTS.c.sent_at.is_(None)

Index(
    "ix_audit_checkpoints_unsent",
    CHECKPOINTS.c.at,
    CHECKPOINTS.c.writer,
    CHECKPOINTS.c.number,
    sqlite_where=UNSENT,
    postgresql_where=UNSENT,
)
