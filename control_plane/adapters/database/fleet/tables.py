"""The table of groups.

Rule: as `adapters/database/tables.py`.
"""

from typing import Final

from sqlalchemy import Column, Float, String, Table

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
