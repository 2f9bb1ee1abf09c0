"""The tables of groups, of listings, and of the control planes that share the database.

Rule: as `adapters/database/tables.py`.
"""

from typing import Final

from sqlalchemy import Column, Float, ForeignKeyConstraint, Index, String, Table

from control_plane.adapters.database.tables import METADATA, Code

GROUPS: Final = Table(
    "groups",
    METADATA,
    Column("name", Code, primary_key=True),
    Column("clients", String, nullable=False),
    Column("selector", String, nullable=True),
    Column("note", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    sqlite_with_rowid=False,
)

LISTINGS: Final = Table(
    "listings",
    METADATA,
    Column("client_id", Code, primary_key=True),
    Column("request", Code, primary_key=True),
    Column("as_of", Float, nullable=False),
    Column("files", String, nullable=False),
    ForeignKeyConstraint(["client_id"], ["clients.client_id"], ondelete="CASCADE"),
    Index("ix_listings_newest", "client_id", "as_of"),
    Index("ix_listings_as_of", "as_of"),
    sqlite_with_rowid=False,
)
"""The last listings of files of each client; `request` is a digest: a pattern is longer than an index may hold."""

REPLICAS: Final = Table(
    "replicas",
    METADATA,
    Column("replica_id", Code, primary_key=True),
    Column("host", String, nullable=False),
    Column("version", String, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    sqlite_with_rowid=False,
)
