"""The table of the documents of trust; it has one row.

Rule: as `adapters/database/tables.py`.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Float, Integer, String, Table

from control_plane.adapters.database.tables import METADATA

TRUST: Final = Table(
    "trust",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("root", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("document", String, nullable=False),
    Column("published_at", Float, nullable=False),
    Column("published_by", String, nullable=False),
    sqlite_with_rowid=False,
)
