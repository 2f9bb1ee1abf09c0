"""Clients and their labels in SQL.

Rule: a presence message rewrites one row; the rows of the labels are written only when the labels change.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, delete, exists, func, insert, select

from control_plane.adapters.cursors import check_limit, client_position, encode_cursor
from control_plane.adapters.database.rows import clean, client_values, to_client
from control_plane.adapters.database.sql import Statement, Transaction, upsert
from control_plane.adapters.database.tables import CLIENTS, LABELS
from control_plane.domain.clients import Client
from control_plane.services.ports.database import ClientPage, Page

_C: Final = CLIENTS.c
_L: Final = LABELS.c
_SOME: Final = _C.client_id.in_(bindparam("client_ids", expanding=True))
_ONE: Final = Statement(select(CLIENTS).where(_C.client_id == bindparam("client_id")))
_THESE: Final = select(CLIENTS).where(_SOME)
_LABELS_OF: Final = select(_C.client_id, _C.labels).where(_SOME)
_PUT: Final = upsert(CLIENTS)
_DROP: Final = Statement(delete(CLIENTS).where(_C.client_id == bindparam("of_client")))
_ADD_LABEL: Final = Statement(insert(LABELS))
_DROP_LABELS: Final = Statement(delete(LABELS).where(_L.client_id == bindparam("of_client")))

LONGEST_LABEL: Final = 256
"""Characters of a name or a value that can be searched for: PostgreSQL indexes at most 2,704 bytes."""

_MANY: Final = 10_000
"""Clients at which counting stops, after half a millisecond: a label of so many does not narrow a search."""
_WITH_LABEL: Final = select(_L.client_id).where(_L.name == bindparam("name"), _L.value == bindparam("value"))
_COUNT: Final = Statement(select(func.count()).select_from(_WITH_LABEL.limit(_MANY).subquery()))

_BATCH: Final = 500
"""Client ids in one statement: SQLite accepts 32,766 values, older versions 999."""


class SqlClients:
    """Clients, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, client_id: str) -> Client | None:
        """By the primary key."""
        row = self._transaction.run(_ONE, {"client_id": client_id}).fetchone()
        return None if row is None else to_client(row)

    def among(self, client_ids: Iterable[str]) -> dict[str, Client]:
        """Unknown ids are left out."""
        found: dict[str, Client] = {}
        for some in _batches(list(client_ids)):
            rows = self._transaction.connection.execute(_THESE, {"client_ids": some})
            found.update((client.client_id, client) for client in map(to_client, rows))
        return found

    def save(self, clients: Sequence[Client]) -> None:
        """The last of several with one id wins."""
        rows = {client.client_id: client_values(client) for client in clients}
        if not rows:
            return
        labels = self._labels_of(list(rows))
        self._transaction.run_each(_PUT, list(rows.values()))
        last = {client.client_id: client for client in clients}
        self._save_labels([last[name] for name, row in rows.items() if row["labels"] != labels.get(name, "{}")])

    def _labels_of(self, client_ids: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for some in _batches(client_ids):
            rows = self._transaction.connection.execute(_LABELS_OF, {"client_ids": some})
            found.update((client_id, labels) for client_id, labels in rows)
        return found

    def _save_labels(self, clients: Sequence[Client]) -> None:
        self._transaction.run_each(_DROP_LABELS, [{"of_client": client.client_id} for client in clients])
        rows = [
            {"client_id": client.client_id, "name": name, "value": value}
            for client in clients
            for name, value in _cleaned(client.labels).items()
            if max(len(name), len(value)) <= LONGEST_LABEL
        ]
        self._transaction.run_each(_ADD_LABEL, rows)

    def delete(self, client_id: str) -> bool:
        """Its labels go with it, by the foreign key."""
        return self._transaction.run(_DROP, {"of_client": client_id}).rowcount > 0

    def _rarest_first(self, labels: Mapping[str, str]) -> list[tuple[str, str]]:
        """A scan of the label of the fewest clients leaves the fewest lookups of the others."""
        if len(labels) < 2:  # noqa: PLR2004 - a single one needs no order
            return list(labels.items())
        return sorted(labels.items(), key=lambda label: self._count(*label))

    def _count(self, name: str, value: str) -> int:
        ((count,),) = self._transaction.run(_COUNT, {"name": name, "value": value}).fetchall()
        return int(count)

    def list(self, labels: Mapping[str, str], page: Page) -> ClientPage:
        """Scans the index of the rarest label and looks the others up."""
        check_limit(page)
        after = client_position(page)
        matching, client_id = _with_labels(self._rarest_first(_cleaned(labels)))
        total = self._transaction.connection.execute(
            matching.with_only_columns(func.count(), maintain_column_froms=True)
        ).scalar_one()
        query = _with_client(matching, client_id).order_by(client_id).limit(page.limit + 1)
        found = self._transaction.connection.execute(query if after is None else query.where(client_id > after)).all()
        cursor = encode_cursor((found[page.limit - 1].client_id,)) if len(found) > page.limit else None
        return [to_client(row) for row in found[: page.limit]], cursor, total


def _with_labels(labels: Sequence[tuple[str, str]]) -> tuple[Select[str], ColumnElement[str]]:
    """Clients that have all labels: a scan of the first label's index, and a lookup of the others for each client."""
    if not labels:
        return select(_C.client_id), _C.client_id
    (name, value), *others = labels
    query = select(_L.client_id).where(_L.name == name, _L.value == value)
    for other, wanted in others:
        also = LABELS.alias()
        query = query.where(
            exists().where(also.c.client_id == _L.client_id, also.c.name == other, also.c.value == wanted)
        )
    return query, _L.client_id


def _with_client(matching: Select[str], client_id: ColumnElement[str]) -> Select[Any]:
    whole = matching.with_only_columns(CLIENTS)
    return whole if client_id is _C.client_id else whole.where(_C.client_id == client_id)


def _cleaned(labels: Mapping[str, str]) -> dict[str, str]:
    return {clean(name): clean(value) for name, value in labels.items()}


def _batches(client_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(client_ids), _BATCH):
        yield client_ids[start : start + _BATCH]
