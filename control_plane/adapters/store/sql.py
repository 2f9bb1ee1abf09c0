"""Statements that SQLite and PostgreSQL read alike but the Core of SQLAlchemy builds per dialect.

Rule: built once, at import, from a table's own columns; every value is bound.
"""

from sqlalchemy import Table, TextClause, text


def insert_new(table: Table) -> TextClause:
    """Insert a row, or do nothing where any unique key is taken: `rowcount` tells.

    A failed INSERT would end the transaction on PostgreSQL; this one lets the work go on with another key.
    """
    return text(f"{_insert(table)} ON CONFLICT DO NOTHING")


def upsert(table: Table) -> TextClause:
    """Insert a row, or replace the one with its primary key."""
    key = [column.name for column in table.primary_key]
    rest = [column.name for column in table.columns if not column.primary_key]
    changes = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return text(f"{_insert(table)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}")


def _insert(table: Table) -> str:
    names = [column.name for column in table.columns]
    values = ", ".join(f":{name}" for name in names)
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values})"  # noqa: S608 - the names are ours
