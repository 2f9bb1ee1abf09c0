"""Requests of devices to be enrolled, in SQL.

Rule: what has expired is never shown, whether it is deleted or not.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, select, update

from control_plane.adapters.database.devices.tables import ENROLLMENTS
from control_plane.adapters.database.rows import DriverRow
from control_plane.adapters.database.sql import Statement, Transaction, insert_new
from control_plane.domain.enrollment import Enrollment
from schemas.signing.canonical import PUBLIC_KEY_SIZE, from_text, to_text

_E: Final = ENROLLMENTS.c
_NAMES: Final = tuple(field.name for field in fields(Enrollment))
_KEYS: Final = ("public_key", "seal_to")
_LIVES: Final = _E.expires_at > bindparam("now")
_WAITS: Final = _E.sealed.is_(None)
_ROWS: Final = select(*(_E[name] for name in _NAMES)).where(_LIVES)
_ONE: Final = Statement(_ROWS.where(_E.device_code == bindparam("of_device")))
_SHOWN: Final = Statement(_ROWS.where(_E.user_code == bindparam("of_user"), _WAITS))
_SEALED: Final = Statement(_ROWS.where(_E.public_key == bindparam("of_key"), _E.sealed.is_not(None)))
_WAITING: Final = Statement(_ROWS.where(_WAITS).order_by(_E.asked_at, _E.device_code))
_COUNT: Final = Statement(select(func.count()).select_from(ENROLLMENTS).where(_LIVES, _WAITS))
_ADD: Final = insert_new(ENROLLMENTS)
_SEAL: Final = Statement(
    update(ENROLLMENTS)
    .where(_E.device_code == bindparam("of_device"))
    .values(client_id=bindparam("name"), sealed=bindparam("bundle"), expires_at=bindparam("until"))
)
_DROP: Final = Statement(delete(ENROLLMENTS).where(_E.device_code == bindparam("of_device")))
_DROP_KEY: Final = Statement(delete(ENROLLMENTS).where(_E.public_key == bindparam("of_key"), _WAITS))
_PRUNE: Final = Statement(delete(ENROLLMENTS).where(_E.expires_at <= bindparam("now")))


class SqlEnrollments:
    """Requests of devices, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, device_code: str, now: float) -> Enrollment | None:
        """By the primary key."""
        return self._one(_ONE, {"of_device": device_code, "now": now})

    def shown(self, user_code: str, now: float) -> Enrollment | None:
        """By the unique index."""
        return self._one(_SHOWN, {"of_user": user_code, "now": now})

    def waiting(self, now: float) -> Sequence[Enrollment]:
        """One scan of a table that is bounded."""
        return [_to_enrollment(row) for row in self._transaction.run(_WAITING, {"now": now}).fetchall()]

    def count(self, now: float) -> int:
        """One scan of a table that is bounded."""
        row = self._transaction.run(_COUNT, {"now": now}).fetchone()
        return 0 if row is None else int(row[0])

    def add(self, enrollment: Enrollment) -> bool:
        """One insert."""
        values: dict[str, Any] = {name: getattr(enrollment, name) for name in _NAMES}
        keys = {name: to_text(values[name]) for name in _KEYS}
        return self._transaction.run(_ADD, {**values, **keys}).rowcount > 0

    def seal(self, enrollment: Enrollment) -> bool:
        """One update."""
        values = {
            "of_device": enrollment.device_code,
            "name": enrollment.client_id,
            "bundle": enrollment.sealed,
            "until": enrollment.expires_at,
        }
        return self._transaction.run(_SEAL, values).rowcount > 0

    def sealed_for(self, public_key: bytes, now: float) -> Enrollment | None:
        """By the index of keys."""
        return self._one(_SEALED, {"of_key": to_text(public_key), "now": now})

    def drop(self, device_code: str) -> None:
        """By the primary key."""
        self._transaction.run(_DROP, {"of_device": device_code})

    def drop_waiting(self, public_key: bytes) -> None:
        """By the index of keys."""
        self._transaction.run(_DROP_KEY, {"of_key": to_text(public_key)})

    def prune(self, now: float) -> int:
        """By the index of ends."""
        return self._transaction.run(_PRUNE, {"now": now}).rowcount

    def _one(self, statement: Statement, values: dict[str, Any]) -> Enrollment | None:
        row = self._transaction.run(statement, values).fetchone()
        return None if row is None else _to_enrollment(row)


def _to_enrollment(row: DriverRow) -> Enrollment:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    return Enrollment(**{**values, **{name: from_text(values[name], PUBLIC_KEY_SIZE) for name in _KEYS}})
