"""The documents of trust in SQL.

Rule: one row, replaced as a whole.
"""

from dataclasses import asdict, fields
from typing import Final

from sqlalchemy import bindparam, select

from control_plane.adapters.database.sql import Statement, Transaction, upsert
from control_plane.adapters.database.trust.tables import TRUST
from control_plane.services.trust.ports import StoredTrust

_T: Final = TRUST.c
_NAMES: Final = tuple(field.name for field in fields(StoredTrust))
_ONE: Final = Statement(select(*(_T[name] for name in _NAMES)).where(_T.id == bindparam("of_id")))
_VERSION: Final = Statement(select(_T.root, _T.version).where(_T.id == bindparam("of_id")))
_PUT: Final = upsert(TRUST)
_ID: Final = {"of_id": 1}


class SqlTrust:
    """The documents, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self) -> StoredTrust | None:
        """The row."""
        row = self._transaction.run(_ONE, _ID).fetchone()
        return None if row is None else StoredTrust(*row)

    def version(self) -> tuple[int, int]:
        """Without the document."""
        row = self._transaction.run(_VERSION, _ID).fetchone()
        return (0, 0) if row is None else (row[0], row[1])

    def save(self, stored: StoredTrust) -> None:
        """Insert or replace."""
        self._transaction.run(_PUT, {"id": 1, **asdict(stored)})
