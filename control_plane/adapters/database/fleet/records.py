"""Groups in SQL.

Rule: there are few of them, so a list is one scan of the table.
"""

from typing import Final

import msgspec
from sqlalchemy import bindparam, delete, select
from sqlalchemy.engine.interfaces import DBAPICursor

from control_plane.adapters.database.fleet.tables import GROUPS
from control_plane.adapters.database.rows import DriverRow, clean, to_json
from control_plane.adapters.database.sql import Statement, Transaction, upsert
from control_plane.domain.groups import Group

_G: Final = GROUPS.c
_ONE: Final = Statement(select(GROUPS).where(_G.name == bindparam("name")))
_ALL: Final = Statement(select(GROUPS).order_by(_G.name))
_PUT: Final = upsert(GROUPS)
_DROP: Final = Statement(delete(GROUPS).where(_G.name == bindparam("of_name")))
_clients: Final = msgspec.json.Decoder(tuple[str, ...])


class SqlGroups:
    """Groups, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, name: str) -> Group | None:
        """By the primary key."""
        row = self._transaction.run(_ONE, {"name": name}).fetchone()
        return None if row is None else _to_group(row)

    def save(self, group: Group) -> None:
        """By the primary key, whether it is new or not."""
        self._transaction.run_each(_PUT, [_group_values(group)])

    def delete(self, name: str) -> bool:
        """False when it does not exist."""
        return self._transaction.run(_DROP, {"of_name": name}).rowcount > 0

    def list(self) -> list[Group]:
        """By name."""
        found: DBAPICursor = self._transaction.run(_ALL, {})
        return [_to_group(row) for row in found.fetchall()]


def _group_values(group: Group) -> dict[str, object]:
    values = {name: getattr(group, name) for name in Group.__struct_fields__}
    return {**values, "clients": to_json(group.clients), "note": clean(group.note)}


def _to_group(row: DriverRow) -> Group:
    values = dict(zip(Group.__struct_fields__, row, strict=True))
    return Group(**{**values, "clients": _clients.decode(values["clients"])})
