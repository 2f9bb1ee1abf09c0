"""The change log in SQL.

Rule: numbers rise in the order of the commits. SQLite has one writer at a time; on PostgreSQL a lock that is held until
the commit puts the writers in order, so a reader that saw a number never misses a lower one.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

import sqlalchemy
from sqlalchemy import bindparam, delete, func, select

from control_plane.adapters.database.engines import POSTGRES
from control_plane.adapters.database.rows import CHANGE_TYPES, change_values, to_change
from control_plane.adapters.database.sql import Statement, Transaction, insert_numbered
from control_plane.adapters.database.tables import CHANGES
from control_plane.domain.changes import Change, NumberedChange

_C: Final = CHANGES.c
_BATCH: Final = 1_000
"""Rows that are in memory at once."""

_ADVISORY_LOCK: Final = 0x43484E47
"""Any number that nothing else in this database locks."""

_LOCK: Final = Statement(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
_ADD: Final = insert_numbered(CHANGES)
# A type that only a later version of this program knows is left out, as if it were a gap.
_KNOWN: Final = _C.type.in_([sqlalchemy.literal_column(f"'{n}'") for n in CHANGE_TYPES])
_AFTER: Final = Statement(
    select(CHANGES).where(_C.number > bindparam("number"), _KNOWN).order_by(_C.number).limit(bindparam("limit"))
)
_ABOUT: Final = Statement(
    select(CHANGES)
    .where(_C.client_id == bindparam("client_id"), _C.subject_id == bindparam("subject_id"), _KNOWN)
    .order_by(_C.number.desc())
    .limit(bindparam("limit"))
)
# Two subqueries: each is one look at an end of the primary key; min and max in one query scan it.
_SPAN: Final = Statement(
    select(
        select(func.coalesce(func.min(_C.number), 0)).scalar_subquery(),
        select(func.coalesce(func.max(_C.number), 0)).scalar_subquery(),
    )
)
_LAST: Final = select(func.max(CHANGES.alias().c.number)).scalar_subquery()
_OLD: Final = (
    select(_C.number)
    .where(_C.at < bindparam("before"), _C.number < _LAST)
    .order_by(_C.at, _C.number)
    .limit(bindparam("limit"))
    .correlate(None)
)
_PRUNE: Final = Statement(delete(CHANGES).where(_C.number.in_(_OLD)))


class SqlChanges:
    """The change log, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def append(self, changes: Iterable[Change]) -> None:
        """The lock is released by the commit, after the rows have become visible to readers."""
        rows = map(change_values, changes)
        batch = list(islice(rows, _BATCH))
        if batch and self._transaction.dialect == POSTGRES:
            self._transaction.run(_LOCK, {})
        while batch:
            self._transaction.run_each(_ADD, batch)
            batch = list(islice(rows, _BATCH))

    def after(self, number: int, limit: int) -> list[NumberedChange]:
        """By the primary key."""
        found = self._transaction.run(_AFTER, {"number": number, "limit": limit})
        return [to_change(row) for row in found.fetchall()]

    def about(self, client_id: str, subject_id: str, limit: int) -> list[NumberedChange]:
        """By the index on client and subject."""
        values = {"client_id": client_id, "subject_id": subject_id, "limit": limit}
        return [to_change(row) for row in self._transaction.run(_ABOUT, values).fetchall()]

    def span(self) -> tuple[int, int]:
        """By the primary key."""
        ((lowest, highest),) = self._transaction.run(_SPAN, {}).fetchall()
        return int(lowest), int(highest)

    def prune(self, before: float, limit: int) -> int:
        """By the index on `at`; the last change is a lookup in the primary key."""
        return self._transaction.run(_PRUNE, {"before": before, "limit": limit}).rowcount
