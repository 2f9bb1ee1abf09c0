"""The tables of webhooks and of their deliveries.

Rule: as in `adapters.database.tables`. A delivery that has ended has no `due_at`: the partial indexes hold what waits.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKeyConstraint, Index, Integer, String, Table

from control_plane.adapters.database.tables import METADATA, Code

WEBHOOKS: Final = Table(
    "webhooks",
    METADATA,
    Column("webhook_id", Code, primary_key=True),
    Column("url", String, nullable=False),
    Column("types", String, nullable=False),
    Column("selector", String, nullable=False),
    Column("secret", String, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("note", String, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    sqlite_with_rowid=False,
)

DELIVERIES: Final = Table(
    "webhook_deliveries",
    METADATA,
    Column("webhook_id", Code, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("type", String, nullable=False),
    Column("subject", Code, nullable=False),
    Column("body", String, nullable=False),
    Column("state", String, nullable=False),
    Column("due_at", Float, nullable=True),
    Column("since", Float, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("tried_at", Float, nullable=True),
    Column("status", Integer, nullable=True),
    Column("error", String, nullable=True),
    ForeignKeyConstraint(["webhook_id"], ["webhooks.webhook_id"], ondelete="CASCADE"),
    Index("ix_webhook_deliveries_in_state", "webhook_id", "state", "number"),
    Index("ix_webhook_deliveries_ended", "state", "tried_at"),
    sqlite_with_rowid=False,
)

WAITS: Final = DELIVERIES.c.due_at.is_not(None)

Index(
    "ix_webhook_deliveries_due",
    DELIVERIES.c.webhook_id,
    DELIVERIES.c.due_at,
    sqlite_where=WAITS,
    postgresql_where=WAITS,
)
Index(
    "ix_webhook_deliveries_of_subject",
    DELIVERIES.c.webhook_id,
    DELIVERIES.c.subject,
    DELIVERIES.c.number,
    # SQLite takes an index only if all that the query reads is in it; else it walks the primary key.
    DELIVERIES.c.due_at,
    sqlite_where=WAITS,
    postgresql_where=WAITS,
)
