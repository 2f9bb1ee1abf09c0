"""The tables of the gate.

Rule: as in `adapters.database.tables`. Every question about the waiters of a budget is answered by one index.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKeyConstraint, Index, Integer, String, Table

from control_plane.adapters.database.tables import METADATA, Code

RATES: Final = Table(
    "rates",
    METADATA,
    Column("name", Code, primary_key=True),
    Column("tat", Float, nullable=False),
    sqlite_with_rowid=False,
)

BUDGETS: Final = Table(
    "budgets",
    METADATA,
    Column("label", Code, primary_key=True),
    Column("value", Code, primary_key=True),
    Column("rate", BigInteger, nullable=False),
    Column("updated_at", Float, nullable=False),
    sqlite_with_rowid=False,
)

SHARES: Final = Table(
    "budget_shares",
    METADATA,
    Column("client_id", Code, primary_key=True),
    Column("upload_id", Code, primary_key=True),
    Column("key", Code, primary_key=True),
    Column("priority", Integer, nullable=False),
    Column("placed_at", Float, nullable=False),
    Column("job_id", String),
    # NULL while it does not wait.
    Column("since", Float),
    Column("absent", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index("ix_budget_shares_turns", "key", "priority", "placed_at"),
    sqlite_with_rowid=False,
)

LEDGERS: Final = Table(
    "device_ledgers",
    METADATA,
    Column("client_id", Code, primary_key=True),
    # JSON: no query reads inside it.
    Column("ledger", String, nullable=False),
    ForeignKeyConstraint(["client_id"], ["clients.client_id"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)
