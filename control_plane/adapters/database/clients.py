"""Clients and their labels in SQL.

Rule: a presence message rewrites one row; the rows of the labels are written only when the labels change.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Final

from sqlalchemy import Integer, bindparam, delete, func, insert, select, union

from control_plane.adapters.cursors import check_limit, client_position, encode_cursor
from control_plane.adapters.database.jobs.tables import EXECUTIONS
from control_plane.adapters.database.reach import FEW, checked, counted, narrowest_first, selected
from control_plane.adapters.database.rows import DriverRow, clean, client_values, to_budget, to_client
from control_plane.adapters.database.sql import Statement, StatementOfSome, Transaction, upsert
from control_plane.adapters.database.tables import CHANGES, CLIENTS, LABELS, UPLOADS
from control_plane.domain.clients import Client
from control_plane.domain.selectors import Selector, ids_matching
from control_plane.services.ports.database import ClientPage, Page
from schemas.messages import AgentInfo
from schemas.values import DeviceBudget

_C: Final = CLIENTS.c
_L: Final = LABELS.c
_SOME: Final = _C.client_id.in_(bindparam("client_ids", expanding=True))
_ONE: Final = Statement(select(CLIENTS).where(_C.client_id == bindparam("client_id")))
_THESE: Final = StatementOfSome(lambda some: select(CLIENTS).where(_C.client_id.in_(some)))
_LABELS_OF: Final = StatementOfSome(
    lambda some: select(_C.client_id, _C.labels, _C.set_labels).where(_C.client_id.in_(some))
)
_PRESENCE: Final = ("client_id", "install_id", "epoch", "sequence", "online", "seen_at")
_PRESENCES: Final = Statement(select(*(_C[name] for name in _PRESENCE)))
_PRESENCES_OF: Final = StatementOfSome(
    lambda some: select(*(_C[name] for name in _PRESENCE)).where(_C.client_id.in_(some))
)
# Given, since making the defaults of each of ten thousand clients takes longer than the query.
_NO_AGENT: Final = AgentInfo()
_NO_LABEL: Final[Mapping[str, str]] = MappingProxyType({})
_BUDGETS: Final = Statement(select(_C.client_id, _C.budget).where(_C.budget.is_not(None)))
_KNOWN: Final = StatementOfSome(lambda some: select(_C.client_id).where(_C.client_id.in_(some)))
_IDS_OF: Final = select(_C.client_id).where(_SOME)
_IDS_FROM: Final = Statement(
    select(_C.client_id).where(_C.client_id >= bindparam("low"), _C.client_id < bindparam("high"))
)
_IDS_AFTER: Final = Statement(
    select(_C.client_id)
    .where(_C.client_id > bindparam("after"))
    .order_by(_C.client_id)
    .limit(bindparam("limit", type_=Integer))
)
_HOW_MANY: Final = Statement(select(func.count()).select_from(CLIENTS))
_LEFT_ROWS: Final = union(
    *(
        select(table.c.client_id).where(table.c.client_id.in_(bindparam("client_ids", expanding=True)))
        for table in (UPLOADS, EXECUTIONS, CHANGES)
    )
)
_PUT: Final = upsert(CLIENTS)
_DROP: Final = Statement(delete(CLIENTS).where(_C.client_id == bindparam("of_client")))
_ADD_LABEL: Final = Statement(insert(LABELS))
_DROP_LABELS: Final = Statement(delete(LABELS).where(_L.client_id == bindparam("of_client")))

LONGEST_LABEL: Final = 256
"""Characters of a name or a value that can be searched for: PostgreSQL indexes at most 2,704 bytes."""

_AFTER_EVERY_ID: Final = "\x7f"
"""Behind every character of a client id."""

_NO_LABELS: Final = ("{}", "{}")
"""The labels of the device and of the operator in the row of a client without any."""

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
            rows = self._transaction.run_some(_THESE, some).fetchall()
            found.update((client.client_id, client) for client in map(to_client, rows))
        return found

    def budgets(self, client_ids: Collection[str]) -> dict[str, DeviceBudget]:
        """A scan of all: few devices have one."""
        wanted = frozenset(client_ids)
        rows = self._transaction.run(_BUDGETS, {}).fetchall()
        return {client_id: to_budget(budget) for client_id, budget in rows if client_id in wanted}

    def presences(self, client_ids: Sequence[str]) -> dict[str, Client]:
        """Of many clients a scan of all, which takes less than a lookup of each."""
        if len(client_ids) > _BATCH:
            wanted = frozenset(client_ids)
            rows = self._transaction.run(_PRESENCES, {}).fetchall()
            return {row[0]: _present(row) for row in rows if row[0] in wanted}
        if not client_ids:
            return {}
        rows = self._transaction.run_some(_PRESENCES_OF, client_ids).fetchall()
        return {row[0]: _present(row) for row in rows}

    def save(self, clients: Sequence[Client]) -> None:
        """The last of several with one id wins."""
        rows = {client.client_id: client_values(client) for client in clients}
        if not rows:
            return
        labels = self._labels_of(list(rows))
        self._transaction.run_each(_PUT, list(rows.values()))
        last = {client.client_id: client for client in clients}
        self._save_labels(
            [
                last[name]
                for name, row in rows.items()
                if (row["labels"], row["set_labels"]) != labels.get(name, _NO_LABELS)
            ]
        )

    def _labels_of(self, client_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        for some in _batches(client_ids):
            rows = self._transaction.run_some(_LABELS_OF, some).fetchall()
            found.update((client_id, (labels, set_labels)) for client_id, labels, set_labels in rows)
        return found

    def _save_labels(self, clients: Sequence[Client]) -> None:
        self._transaction.run_each(_DROP_LABELS, [{"of_client": client.client_id} for client in clients])
        rows = [
            {"client_id": client.client_id, "name": name, "value": value}
            for client in clients
            for name, value in _cleaned(client.effective_labels).items()
            if max(len(name), len(value)) <= LONGEST_LABEL
        ]
        self._transaction.run_each(_ADD_LABEL, rows)

    def delete(self, client_id: str) -> bool:
        """Its labels go with it, by the foreign key."""
        return self._transaction.run(_DROP, {"of_client": client_id}).rowcount > 0

    def left_rows(self, client_ids: Collection[str]) -> frozenset[str]:
        """From the indexes of the clients of each table."""
        found: set[str] = set()
        for some in _batches(list(client_ids)):
            found.update(self._transaction.connection.execute(_LEFT_ROWS, {"client_ids": some}).scalars())
        return frozenset(found)

    def matching(self, patterns: Sequence[str], selector: Selector | None) -> list[str]:
        """Plain ids by the primary key, patterns by a scan of the ids with their beginning, a selector by labels."""
        found: set[str] = set()
        for some in _batches([pattern for pattern in patterns if "*" not in pattern]):
            found.update(client_id for (client_id,) in self._transaction.run_some(_KNOWN, some).fetchall())
        for beginning, alike in groupby(sorted(one for one in patterns if "*" in one), _beginning):
            rows = self._transaction.run(_IDS_FROM, {"low": beginning, "high": beginning + _AFTER_EVERY_ID})
            found.update(ids_matching(list(alike), (client_id for (client_id,) in rows.fetchall())))
        if selector is not None:
            connection = self._transaction.connection
            found.update(connection.execute(selected(narrowest_first(connection, selector.terms))).scalars())
        return sorted(found)

    def selected(self, client_ids: Sequence[str], selector: Selector) -> list[str]:
        """Of few a lookup of each, of many those of the selector."""
        if len(client_ids) > FEW:
            matching = frozenset(self.matching((), selector))
            return [client_id for client_id in client_ids if client_id in matching]
        found: set[str] = set()
        query = _IDS_OF.where(*checked(_C.client_id, selector))
        for some in _batches(client_ids):
            found.update(self._transaction.connection.execute(query, {"client_ids": some}).scalars())
        return [client_id for client_id in client_ids if client_id in found]

    def list(self, page: Page, client_ids: Sequence[str] | None = None, reach: Selector | None = None) -> ClientPage:
        """Of all clients a scan of the primary key, which counts them too; of a large reach with lookups."""
        check_limit(page)
        after = client_position(page) or ""
        connection = self._transaction.connection
        total = 0
        if client_ids is None and reach is not None:
            total, few = counted(connection, reach)
            client_ids = self.matching((), reach) if few else None
        if client_ids is not None:
            start = bisect_right(client_ids, after)
            found, total = list(client_ids[start : start + page.limit + 1]), len(client_ids)
        elif reach is not None:
            within_reach = select(_C.client_id).where(_C.client_id > after, *checked(_C.client_id, reach))
            found = list(connection.execute(within_reach.order_by(_C.client_id).limit(page.limit + 1)).scalars())
        else:
            rows = self._transaction.run(_IDS_AFTER, {"after": after, "limit": page.limit + 1}).fetchall()
            found = [client_id for (client_id,) in rows]
            ((total,),) = self._transaction.run(_HOW_MANY, {}).fetchall()
        shown = found[: page.limit]
        clients = self.among(shown)
        cursor = encode_cursor((shown[-1],)) if len(found) > page.limit else None
        return [clients[client_id] for client_id in shown], cursor, total


def _present(row: DriverRow) -> Client:
    client_id, install_id, epoch, sequence, online, seen_at = row
    return Client(
        client_id=client_id,
        install_id=install_id,
        epoch=epoch,
        sequence=sequence,
        online=bool(online),
        seen_at=seen_at,
        agent=_NO_AGENT,
        labels=_NO_LABEL,
        set_labels=_NO_LABEL,
    )


def _beginning(pattern: str) -> str:
    return pattern.partition("*")[0]


def _cleaned(labels: Mapping[str, str]) -> dict[str, str]:
    return {clean(name): clean(value) for name, value in labels.items()}


def _batches(client_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(client_ids), _BATCH):
        yield client_ids[start : start + _BATCH]
