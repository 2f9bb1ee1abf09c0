"""Sums over the fleet in SQL.

Rule: what ended is summed from an index that has every column of the sums; what is open, by what is open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, false, func, select, true

from control_plane.adapters.database.fleet.tables import REPLICAS
from control_plane.adapters.database.reach import checked, how_many, inside, is_few, throughout
from control_plane.adapters.database.rows import DriverRow
from control_plane.adapters.database.sql import Statement, Statements, Transaction, is_one_of, upsert
from control_plane.adapters.database.tables import CLIENTS, IS_OPEN, OUTBOX, UPLOADS
from control_plane.domain.clients import Client
from control_plane.domain.selectors import Selector
from control_plane.domain.uploads.duties import CLEAN_UPS, Kind
from control_plane.domain.uploads.model import OPEN, State, UploadKey
from control_plane.services.ports.database import SubjectType
from control_plane.services.ports.overview import Ended, OpenUpload, Presences, Replica
from schemas.messages import AgentInfo

_U: Final = UPLOADS.c
_C: Final = CLIENTS.c
_O: Final = OUTBOX.c


class _Question:
    """A query about clients or uploads: compiled once for all of them, and once for each reach with its conditions.

    SQLAlchemy would take longer to execute one of a reach of few clients than the database.
    """

    def __init__(
        self, query: Select[*tuple[Any, ...]], client_id: ColumnElement[str], *, of_most_clients: bool = False
    ) -> None:
        self._every = Statement(query)
        self._query = query
        self._client_id = client_id
        self._of_most_clients = of_most_clients
        self._of_reaches = Statements()

    def _conditions(self, connection: Connection, reach: Selector) -> list[ColumnElement[bool]]:
        if self._of_most_clients:
            return throughout(connection, reach)
        is_of_clients = self._client_id is _C.client_id
        return inside(connection, _C.client_id, reach) if is_of_clients else checked(self._client_id, reach)

    def _of(self, connection: Connection, reach: Selector) -> Statement:
        """The conditions depend on the reach, and on whether its clients are few."""
        key = reach, is_few(connection, reach)
        return self._of_reaches.of(key, lambda: self._query.where(*self._conditions(connection, reach)))

    def rows(self, transaction: Transaction, reach: Selector | None, **values: object) -> Sequence[Any]:
        """The rows of all, or of the clients that `reach` selects."""
        statement = self._every if reach is None else self._of(transaction.connection, reach)
        return transaction.run(statement, values).fetchall()


_COUNT: Final = Statement(select(func.count()).select_from(CLIENTS))
_NEVER_SEEN: Final = _Question(select(func.count()).where(_C.install_id == ""), _C.client_id)
_PRESENCE: Final = (_C.client_id, _C.install_id, _C.epoch, _C.sequence, _C.online, _C.seen_at, _C.conflict_at)
# As an expression: by its index SQLite would look up each row of nearly all, also where a reach has few.
_IS_ONLINE: Final = func.coalesce(_C.online, false()).is_(true())
_SEEN_BY: Final = (_C.client_id, _C.install_id, _C.epoch, _C.sequence, _C.seen_at)
_OF_FEW: Final = _Question(select(*_SEEN_BY, _C.online), _C.client_id)
_ONLINE: Final = _Question(
    select(*_SEEN_BY).where(_IS_ONLINE, _C.install_id != ""),
    _C.client_id,
    of_most_clients=True,
)
_OPEN: Final = _Question(
    (
        select(_U.client_id, _U.upload_id, _U.state, _U.reason_code, _U.wanted, *_PRESENCE, _C.agent)
        .select_from(UPLOADS.outerjoin(CLIENTS, _U.client_id == _C.client_id))
        .where(IS_OPEN, _U.owner == bindparam("owner"))
        .limit(bindparam("limit"))
    ),
    _U.client_id,
)
_FAILED: Final = Statement(
    select(_O.last_error_at, _O.client_id, _O.subject_id, _O.kind, _O.last_error_code).where(
        _O.subject_type == SubjectType.UPLOAD.value,
        _O.last_error_code.is_not(None),
        *(_O.kind != kind.value for kind in sorted(CLEAN_UPS)),
    )
)
_IN_STATE: Final = Statement(select(func.count()).where(_U.state == bindparam("state")))
_IN_STATES: Final = _Question(
    select(_U.state, func.count()).where(is_one_of(_U.state, OPEN)).group_by(_U.state), _U.client_id
)
_ENDED_SINCE: Final = and_(~IS_OPEN, _U.ended_at >= bindparam("since"))
_SUMS: Final = (func.count(), func.coalesce(func.sum(_U.file_size), 0))
_ENDED: Final = _Question(
    select(_U.state, *_SUMS).where(_ENDED_SINCE, _U.ended_at < bindparam("until")).group_by(_U.state), _U.client_id
)
# As an expression: by the column itself SQLite would walk the index of errors, which has the whole history.
_CODE: Final = func.coalesce(_U.error, "")
_ERRORS: Final = _Question(
    (
        select(_CODE, func.count())
        .where(_ENDED_SINCE, _CODE != "")
        .group_by(_CODE)
        .order_by(func.count().desc(), _CODE)
        .limit(bindparam("limit"))
    ),
    _U.client_id,
)
_R: Final = REPLICAS.c
_SEEN: Final = Statement(select(REPLICAS).where(_R.seen_at >= bindparam("since")))
_PUT: Final = upsert(REPLICAS)
_REMOVE: Final = Statement(delete(REPLICAS).where(_R.replica_id == bindparam("of_id")))
_PRUNE: Final = Statement(delete(REPLICAS).where(_R.seen_at < bindparam("before")))
_agent: Final = msgspec.json.Decoder(AgentInfo)


class SqlOverview:
    """Sums over clients and uploads, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def presences(self, reach: Selector | None = None) -> Presences:
        """One scan of the clients for those that were never seen, and one for those that are online.

        The rows of a reach of few are read once for all.
        """
        connection = self._transaction.connection
        if reach is not None and is_few(connection, reach):
            rows = _OF_FEW.rows(self._transaction, reach)
            seen = [row for row in rows if row[1] != ""]
            return Presences(len(rows), len(rows) - len(seen), [row[:-1] for row in seen if row[-1]])
        if reach is None:
            ((total,),) = self._rows(_COUNT)
        else:
            total = how_many(connection, reach.terms)
        ((never_seen,),) = _NEVER_SEEN.rows(self._transaction, reach)
        return Presences(total, never_seen, _ONLINE.rows(self._transaction, reach))

    def open_uploads(self, owner: str, limit: int, reach: Selector | None = None) -> list[OpenUpload]:
        """One row for each, and the failed duties of all."""
        failures = sorted(self._rows(_FAILED), key=itemgetter(0))
        failed = {(client_id, upload_id): (Kind(kind), code) for _, client_id, upload_id, kind, code in failures}
        agents: dict[str, AgentInfo] = {}
        found = []
        for client_id, upload_id, state, reported, wanted, *presence, agent in _OPEN.rows(
            self._transaction, reach, owner=owner, limit=limit
        ):
            client = None
            if agent is not None:
                if agent not in agents:
                    agents[agent] = _agent.decode(agent)
                client = _present(presence, agents[agent])
            key = UploadKey(client_id, upload_id)
            duty = failed.get((client_id, upload_id))
            found.append(OpenUpload(key, State(state), client, reported, wanted != "[]", duty))
        return found

    def count_open(self, reach: Selector | None = None) -> Mapping[State, int]:
        """From the index of states: of all one count of each, of a reach one walk over all that is open."""
        if reach is None:
            return {state: self._rows(_IN_STATE, state=state.value)[0][0] for state in OPEN}
        found = {State(state): int(count) for state, count in _IN_STATES.rows(self._transaction, reach)}
        return {state: found.get(state, 0) for state in OPEN}

    def ended(self, since: float, until: float, reach: Selector | None = None) -> Mapping[State, Ended]:
        """From the index of ends."""
        rows = _ENDED.rows(self._transaction, reach, since=since, until=until)
        return {State(state): Ended(int(count), int(size)) for state, count, size in rows}

    def errors(self, since: float, limit: int, reach: Selector | None = None) -> list[tuple[str, int]]:
        """From the same index."""
        rows = _ERRORS.rows(self._transaction, reach, since=since, limit=limit)
        return [(code, int(n)) for code, n in rows]

    def put_replica(self, replica: Replica) -> None:
        """With every column."""
        self._transaction.run(_PUT, asdict(replica))

    def replicas(self, since: float) -> list[Replica]:
        """There are a handful."""
        return [Replica(*row) for row in self._rows(_SEEN, since=since)]

    def remove_replica(self, replica_id: str) -> None:
        """By the primary key."""
        self._transaction.run(_REMOVE, {"of_id": replica_id})

    def prune_replicas(self, before: float) -> None:
        """There are a handful."""
        self._transaction.run(_PRUNE, {"before": before})

    def _rows(self, statement: Statement, **values: object) -> list[DriverRow]:
        return list(self._transaction.run(statement, values).fetchall())


def _present(row: DriverRow, agent: AgentInfo) -> Client:
    """A client with its presence only."""
    client_id, install_id, epoch, sequence, online, seen_at, conflict_at = row
    return Client(
        client_id=client_id,
        install_id=install_id,
        epoch=epoch,
        sequence=sequence,
        online=bool(online),
        seen_at=seen_at,
        conflict_at=conflict_at,
        agent=agent,
    )
