"""Idempotency keys in SQL.

Rule: a key is written once and never changed.
"""

from typing import Final

from sqlalchemy import bindparam, delete, select

from control_plane.adapters.database.rows import idempotency_values, to_idempotency
from control_plane.adapters.database.sql import Statement, Transaction, insert_new
from control_plane.adapters.database.tables import IDEMPOTENCY
from control_plane.services.errors import KeyTaken
from control_plane.services.ports.database import IdempotencyRecord

_I: Final = IDEMPOTENCY.c
_ADD: Final = insert_new(IDEMPOTENCY)
_ONE: Final = Statement(
    select(IDEMPOTENCY).where(
        _I.caller == bindparam("caller"),
        _I.client_id == bindparam("client_id"),
        _I.idempotency_key == bindparam("idempotency_key"),
    )
)
_PRUNE: Final = Statement(delete(IDEMPOTENCY).where(_I.created_at < bindparam("before")))


class SqlIdempotency:
    """Idempotency keys, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, caller: str, client_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        """None when the key is new."""
        names = {"caller": caller, "client_id": client_id, "idempotency_key": idempotency_key}
        row = self._transaction.run(_ONE, names).fetchone()
        return None if row is None else to_idempotency(row)

    def add(self, record: IdempotencyRecord) -> None:
        """`KeyTaken` leaves the transaction usable."""
        if self._transaction.run(_ADD, idempotency_values(record)).rowcount == 0:
            message = f"the Idempotency-Key {record.idempotency_key!r} is in use"
            raise KeyTaken(message)

    def prune(self, created_before: float) -> int:
        """All that are old, without a limit: a day's keys at most."""
        return self._transaction.run(_PRUNE, {"before": created_before}).rowcount
