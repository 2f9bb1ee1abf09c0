"""The tables of devices.

Rule: as `adapters/database/tables.py`. Keys are texts, as in messages.
"""

from typing import Final

from sqlalchemy import Boolean, Column, Float, Index, Integer, String, Table

from control_plane.adapters.database.tables import METADATA, Code

DEVICES: Final = Table(
    "devices",
    METADATA,
    Column("client_id", Code, primary_key=True),
    Column("state", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("public_key", String),
    Column("claim_secret", String),
    Column("other_key", String),
    Column("other_at", Float),
    Column("pinned_at", Float),
    Column("revoked_at", Float),
    Column("revoked_by", String),
    Column("has_account", Boolean, nullable=False),
    Column("note", String, nullable=False),
    Index("ix_devices_public_key", "public_key", unique=True),
    sqlite_with_rowid=False,
)

REVOKED_KEYS: Final = Table(
    "revoked_keys",
    METADATA,
    Column("public_key", String, primary_key=True),
    Column("client_id", Code, nullable=False),
    Column("revoked_at", Float, nullable=False),
    sqlite_with_rowid=False,
)

DEVICE_CHANGES: Final = Table(
    "device_changes",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
)
"""One row: how often the two tables changed, so that a replica reads them again only then."""

CHANGED_DEVICES: Final = Table(
    "changed_devices",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("client_id", Code, nullable=False),
    sqlite_with_rowid=False,
)
"""The name behind each of the last numbers, so that a replica reads only what changed."""

ENROLLMENTS: Final = Table(
    "enrollments",
    METADATA,
    Column("device_code", Code, primary_key=True),
    Column("user_code", String, nullable=False),
    Column("public_key", String, nullable=False),
    Column("seal_to", String, nullable=False),
    Column("address", String, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("client_id", Code),
    Column("sealed", String),
    Index("ix_enrollments_user_code", "user_code", unique=True),
    Index("ix_enrollments_public_key", "public_key"),
    Index("ix_enrollments_expires_at", "expires_at"),
    sqlite_with_rowid=False,
)

BATCHES: Final = Table(
    "batches",
    METADATA,
    Column("batch_id", Code, primary_key=True),
    Column("digest", String, nullable=False),
    Column("pattern", String, nullable=False),
    Column("count", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("auto", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("serials", String, nullable=False),
    Column("wanted", String, nullable=False),
    Column("revoked_at", Float),
    Index("ix_batches_digest", "digest", unique=True),
    sqlite_with_rowid=False,
)

BATCH_SLOTS: Final = Table(
    "batch_slots",
    METADATA,
    Column("batch_id", Code, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("client_id", Code, nullable=False),
    Column("public_key", String, nullable=False),
    Column("at", Float, nullable=False),
    Index("ix_batch_slots_client_id", "client_id", unique=True),
    Index("ix_batch_slots_public_key", "public_key", unique=True),
    sqlite_with_rowid=False,
)
