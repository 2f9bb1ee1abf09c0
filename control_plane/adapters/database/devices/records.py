"""Devices in SQL.

Rule: every change raises the number of the changes, in its transaction, and notes which name it was about.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import bindparam, delete, select, update

from control_plane.adapters.cursors import check_limit, client_position, encode_cursor
from control_plane.adapters.database.devices.tables import CHANGED_DEVICES, DEVICE_CHANGES, DEVICES, REVOKED_KEYS
from control_plane.adapters.database.rows import DriverRow, clean
from control_plane.adapters.database.sql import Statement, Transaction, insert_new, upsert
from control_plane.domain.devices import Device, DeviceState
from control_plane.services.devices.ports import MOST_CHANGES, DevicePage
from control_plane.services.errors import KeyTaken
from control_plane.services.ports.database import Page
from schemas.signing.canonical import PUBLIC_KEY_SIZE, from_text, to_text

_D: Final = DEVICES.c
_NAMES: Final = tuple(field.name for field in fields(Device))
_KEYS: Final = ("public_key", "claim_secret", "other_key")
_OF_NOBODY: Final = ""
"""In place of the name of a revoked key, when an operator let its name go."""

_ROWS: Final = select(*(_D[name] for name in _NAMES))
_ONE: Final = Statement(_ROWS.where(_D.client_id == bindparam("of_client")))
_BY_KEY: Final = Statement(_ROWS.where(_D.public_key == bindparam("of_key")))
_ALL: Final = Statement(_ROWS)
_LIST: Final = Statement(
    _ROWS.where(_D.client_id > bindparam("after")).order_by(_D.client_id).limit(bindparam("limit"))
)
_PUT: Final = upsert(DEVICES)
_DROP: Final = Statement(delete(DEVICES).where(_D.client_id == bindparam("of_client")))
_REVOKE: Final = insert_new(REVOKED_KEYS)
_REVOKED: Final = Statement(select(REVOKED_KEYS.c.public_key))
_SIGNED: Final = Statement(select(REVOKED_KEYS.c.client_id).distinct())
_RELEASE: Final = Statement(
    update(REVOKED_KEYS).where(REVOKED_KEYS.c.client_id == bindparam("of_client")).values(client_id=_OF_NOBODY)
)
_NUMBER: Final = Statement(select(DEVICE_CHANGES.c.number).where(DEVICE_CHANGES.c.id == 1))
_FIRST: Final = insert_new(DEVICE_CHANGES)
_RAISE: Final = Statement(
    update(DEVICE_CHANGES).where(DEVICE_CHANGES.c.id == 1).values(number=DEVICE_CHANGES.c.number + 1)
)
_NOTE: Final = insert_new(CHANGED_DEVICES)
_FORGET: Final = Statement(delete(CHANGED_DEVICES).where(CHANGED_DEVICES.c.number <= bindparam("upto")))
_SINCE: Final = Statement(
    select(CHANGED_DEVICES.c.client_id).where(CHANGED_DEVICES.c.number > bindparam("after")).limit(MOST_CHANGES + 1)
)
_UNDER: Final = select(REVOKED_KEYS.c.public_key, REVOKED_KEYS.c.client_id).where(
    REVOKED_KEYS.c.client_id.in_(bindparam("names", expanding=True))
)


class SqlDevices:
    """Devices, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, client_id: str) -> Device | None:
        """By the primary key."""
        return self._one(_ONE, {"of_client": client_id})

    def among(self, client_ids: Iterable[str]) -> dict[str, Device]:
        """One look at each."""
        found = (self.get(client_id) for client_id in client_ids)
        return {device.client_id: device for device in found if device is not None}

    def list(self, page: Page) -> DevicePage:
        """By the primary key."""
        check_limit(page)
        after = client_position(page) or ""
        rows = self._transaction.run(_LIST, {"after": after, "limit": page.limit + 1}).fetchall()
        shown = [_to_device(row) for row in rows[: page.limit]]
        return shown, encode_cursor((shown[-1].client_id,)) if len(rows) > page.limit else None

    def save(self, device: Device) -> None:
        """By the primary key, whether it is new or not."""
        # A statement that a unique key refuses would end the transaction on PostgreSQL.
        taken = None if device.public_key is None else self.by_key(device.public_key)
        if taken is not None and taken.client_id != device.client_id:
            message = f"the key of {device.client_id!r} is that of {taken.client_id!r}"
            raise KeyTaken(message)
        values: dict[str, Any] = {name: getattr(device, name) for name in _NAMES}
        keys = {name: None if values[name] is None else to_text(values[name]) for name in _KEYS}
        self._transaction.run(_PUT, {**values, **keys, "state": device.state.value, "note": clean(device.note)})
        self._changed(device.client_id)

    def delete(self, client_id: str) -> bool:
        """False when it does not exist."""
        gone = self._transaction.run(_DROP, {"of_client": client_id}).rowcount > 0
        if gone:
            self._changed(client_id)
        return gone

    def by_key(self, public_key: bytes) -> Device | None:
        """By the unique index."""
        return self._one(_BY_KEY, {"of_key": to_text(public_key)})

    def pinned(self) -> Sequence[Device]:
        """One scan."""
        return [_to_device(row) for row in self._transaction.run(_ALL, {}).fetchall()]

    def revoke_key(self, public_key: bytes, client_id: str, at: float) -> None:
        """One insert."""
        row = {"public_key": to_text(public_key), "client_id": client_id, "revoked_at": at}
        if self._transaction.run(_REVOKE, row).rowcount:
            self._changed(client_id)

    def revoked_keys(self) -> frozenset[bytes]:
        """One scan of a table that stays small."""
        rows = self._transaction.run(_REVOKED, {}).fetchall()
        return frozenset(from_text(row[0], PUBLIC_KEY_SIZE) for row in rows)

    def signed_names(self) -> frozenset[str]:
        """One scan of the same table."""
        rows = self._transaction.run(_SIGNED, {}).fetchall()
        return frozenset(row[0] for row in rows) - {_OF_NOBODY}

    def revoked_under(self, client_ids: Iterable[str]) -> dict[bytes, str]:
        """One scan of the same table."""
        rows = self._transaction.connection.execute(_UNDER, {"names": sorted(client_ids)})
        return {from_text(key, PUBLIC_KEY_SIZE): name for key, name in rows}

    def release_name(self, client_id: str) -> None:
        """One update."""
        if self._transaction.run(_RELEASE, {"of_client": client_id}).rowcount:
            self._changed(client_id)

    def version(self) -> int:
        """0 before the first change."""
        row = self._transaction.run(_NUMBER, {}).fetchone()
        return 0 if row is None else int(row[0])

    def changed_since(self, version: int) -> frozenset[str] | None:
        """None also where a control plane of an earlier version changed something: it notes no name."""
        names = [row[0] for row in self._transaction.run(_SINCE, {"after": version}).fetchall()]
        return frozenset(names) if len(names) == self.version() - version else None

    def _one(self, statement: Statement, values: dict[str, Any]) -> Device | None:
        row = self._transaction.run(statement, values).fetchone()
        return None if row is None else _to_device(row)

    def _changed(self, client_id: str) -> None:
        is_first = not self._transaction.run(_RAISE, {}).rowcount
        if is_first and not self._transaction.run(_FIRST, {"id": 1, "number": 1}).rowcount:
            # Another replica was first, in the same moment.
            self._transaction.run(_RAISE, {})
        # The row of the number is this transaction's until its end: no other one draws the same.
        number = self.version()
        self._transaction.run(_NOTE, {"number": number, "client_id": client_id})
        self._transaction.run(_FORGET, {"upto": number - MOST_CHANGES})


def _to_device(row: DriverRow) -> Device:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    keys = {name: None if values[name] is None else from_text(values[name], PUBLIC_KEY_SIZE) for name in _KEYS}
    state = DeviceState(values["state"])
    return Device(**{**values, **keys, "state": state, "has_account": bool(values["has_account"])})
