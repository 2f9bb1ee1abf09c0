"""Batches of devices in SQL.

Rule: who gets a slot is decided by the unique keys, so that two replicas never give one twice.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import BindParameter, and_, bindparam, case, delete, exists, func, or_, select, update

from control_plane.adapters.database.devices.tables import (
    BATCH_SLOTS,
    BATCHES,
    DEVICES,
    ENROLLMENTS,
    REVOKED_KEYS,
)
from control_plane.adapters.database.rows import DriverRow
from control_plane.adapters.database.sql import Statement, Transaction, insert_new
from control_plane.domain.batches import Batch, Slot
from schemas.signing.canonical import PUBLIC_KEY_SIZE, from_text, to_text

_B: Final = BATCHES.c
_S: Final = BATCH_SLOTS.c
_NAMES: Final = tuple(field.name for field in fields(Batch))
_SLOT: Final = tuple(field.name for field in fields(Slot))
_ROWS: Final = select(*(_B[name] for name in _NAMES))
_SLOT_ROWS: Final = select(*(_S[name] for name in _SLOT))
_ONE: Final = Statement(_ROWS.where(_B.batch_id == bindparam("of_batch")))
_OF_DIGEST: Final = Statement(_ROWS.where(_B.digest == bindparam("of_digest")))
_ALL: Final = Statement(_ROWS.order_by(_B.created_at.desc(), _B.batch_id))
_TAKEN: Final = Statement(select(_S.batch_id, func.count()).group_by(_S.batch_id))
_ADD: Final = insert_new(BATCHES)
_REVOKE: Final = Statement(
    update(BATCHES)
    .where(_B.batch_id == bindparam("of_batch"), _B.revoked_at.is_(None))
    .values(revoked_at=bindparam("revoked"))
)
_ENDED: Final = Statement(
    select(_B.batch_id)
    .where(or_(_B.expires_at < bindparam("before"), _B.revoked_at < bindparam("before")))
    .limit(bindparam("limit"))
)
_NUMBERS: Final = Statement(select(_S.number).where(_S.batch_id == bindparam("of_batch")))
_ASKS: Final = exists().where(ENROLLMENTS.c.public_key == _S.public_key, ENROLLMENTS.c.expires_at > bindparam("now"))
_IS_LEFT: Final = and_(
    ~_ASKS,
    ~exists().where(DEVICES.c.public_key == _S.public_key),
    ~exists().where(REVOKED_KEYS.c.public_key == _S.public_key),
)
_LEFT: Final = Statement(_SLOT_ROWS.where(_S.batch_id == bindparam("of_batch"), _IS_LEFT).order_by(_S.number))
_AMONG: Final[BindParameter[Any]] = bindparam("names", expanding=True)
_HELD: Final = select(_S.client_id, case((_IS_LEFT, _S.public_key), else_=None)).where(_S.client_id.in_(_AMONG))
_NAMED: Final = select(DEVICES.c.client_id).where(DEVICES.c.client_id.in_(_AMONG))
_OF_KEY: Final = Statement(_SLOT_ROWS.where(_S.public_key == bindparam("of_key")))
_TAKE: Final = insert_new(BATCH_SLOTS)
_RELEASE: Final = Statement(delete(BATCH_SLOTS).where(_S.public_key == bindparam("of_key")))
_DROP_LEFT: Final = delete(BATCH_SLOTS).where(_S.batch_id.in_(bindparam("ended", expanding=True)), _IS_LEFT)
_DROP: Final = delete(BATCHES).where(_B.batch_id.in_(bindparam("ended", expanding=True)))


class SqlBatches:
    """Batches and their slots, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, batch: Batch) -> None:
        """One insert."""
        values: dict[str, Any] = {name: getattr(batch, name) for name in _NAMES}
        texts = {"serials": " ".join(batch.serials), "wanted": json.dumps(dict(batch.wanted or {}))}
        self._transaction.run(_ADD, {**values, **texts})

    def get(self, batch_id: str) -> Batch | None:
        """By the primary key."""
        return self._one(_ONE, {"of_batch": batch_id})

    def of_digest(self, digest: str) -> Batch | None:
        """By the unique index."""
        return self._one(_OF_DIGEST, {"of_digest": digest})

    def list(self) -> Sequence[tuple[Batch, int]]:
        """One scan of each table."""
        taken = {row[0]: int(row[1]) for row in self._transaction.run(_TAKEN, {}).fetchall()}
        found = [_to_batch(row) for row in self._transaction.run(_ALL, {}).fetchall()]
        return [(batch, taken.get(batch.batch_id, 0)) for batch in found]

    def revoke(self, batch_id: str, at: float) -> bool:
        """One update."""
        return self._transaction.run(_REVOKE, {"of_batch": batch_id, "revoked": at}).rowcount > 0

    def taken(self, batch_id: str) -> frozenset[int]:
        """By the primary key."""
        rows = self._transaction.run(_NUMBERS, {"of_batch": batch_id}).fetchall()
        return frozenset(int(row[0]) for row in rows)

    def left(self, batch_id: str, now: float) -> Sequence[Slot]:
        """One query, however many are taken: whoever has the token can ask for it again and again."""
        rows = self._transaction.run(_LEFT, {"of_batch": batch_id, "now": now}).fetchall()
        return [_to_slot(row) for row in rows]

    def held(self, client_ids: Sequence[str], now: float) -> dict[str, bytes | None]:
        """Two queries, however many names."""
        run, names = self._transaction.connection.execute, {"names": list(client_ids)}
        slots = {name: key and from_text(key, PUBLIC_KEY_SIZE) for name, key in run(_HELD, {**names, "now": now})}
        return slots | dict.fromkeys(row[0] for row in run(_NAMED, names))

    def of_key(self, public_key: bytes) -> Slot | None:
        """By the unique index."""
        row = self._transaction.run(_OF_KEY, {"of_key": to_text(public_key)}).fetchone()
        return None if row is None else _to_slot(row)

    def take(self, slot: Slot) -> bool:
        """One insert."""
        values: dict[str, Any] = {name: getattr(slot, name) for name in _SLOT}
        return self._transaction.run(_TAKE, {**values, "public_key": to_text(slot.public_key)}).rowcount > 0

    def release(self, public_key: bytes) -> None:
        """By the unique index."""
        self._transaction.run(_RELEASE, {"of_key": to_text(public_key)})

    def prune(self, ended_before: float, now: float, limit: int) -> int:
        """One scan of a table that stays small, and two deletions."""
        rows = self._transaction.run(_ENDED, {"before": ended_before, "limit": limit}).fetchall()
        if rows:
            run, ended = self._transaction.connection.execute, {"ended": [row[0] for row in rows]}
            run(_DROP_LEFT, {**ended, "now": now})
            run(_DROP, ended)
        return len(rows)

    def _one(self, statement: Statement, values: dict[str, Any]) -> Batch | None:
        row = self._transaction.run(statement, values).fetchone()
        return None if row is None else _to_batch(row)


def _to_batch(row: DriverRow) -> Batch:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    read = {
        "auto": bool(values["auto"]),
        "serials": tuple(values["serials"].split()),
        "wanted": json.loads(values["wanted"]),
    }
    return Batch(**{**values, **read})


def _to_slot(row: DriverRow) -> Slot:
    values: dict[str, Any] = dict(zip(_SLOT, row, strict=True))
    return Slot(**{**values, "public_key": from_text(values["public_key"], PUBLIC_KEY_SIZE)})
