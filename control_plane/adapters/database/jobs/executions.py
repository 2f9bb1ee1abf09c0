"""Executions in SQL.

Rule: a batch is one statement with many rows, or one for each set of columns that differ. What inserts or changes
an execution changes the counts of its job in the same call, in the order of their keys.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, text, tuple_, update

from control_plane.adapters.cursors import check_limit, client_position, encode_cursor
from control_plane.adapters.database.jobs.rows import (
    EXECUTION_COLUMNS,
    changed_execution,
    execution_values,
    to_execution,
)
from control_plane.adapters.database.jobs.tables import EXECUTIONS, JOB_COUNTS, JOBS
from control_plane.adapters.database.reach import inside
from control_plane.adapters.database.sql import Statement, Transaction, Values, is_one_of
from control_plane.domain.jobs.model import Execution, ExecutionKey, ExecutionState
from control_plane.domain.reported import DEVICE_WAITS
from control_plane.services.errors import VersionConflict
from control_plane.services.ports.database import PARKED, Page
from control_plane.services.ports.jobs import ExecutionFilter, ExecutionPage

BATCH: Final = 250
"""Keys in one statement."""

_E: Final = EXECUTIONS.c
ROWS: Final = select(*(_E[name] for name in EXECUTION_COLUMNS))
_KEY: Final = (_E.job_id == bindparam("of_job")) & (_E.client_id == bindparam("of_client"))
_SOME: Final = ROWS.where(tuple_(_E.job_id, _E.client_id).in_(bindparam("keys", expanding=True)))
_ADD: Final = Statement(insert(EXECUTIONS))
_SAVE: Final = Statement(update(EXECUTIONS).where(_KEY, _E.version == bindparam("read_version")))
_COUNT: Final = Statement(
    text(
        "INSERT INTO job_counts (job_id, state, reason_code, n) VALUES (:job_id, :state, :reason_code, :n)"
        " ON CONFLICT (job_id, state, reason_code) DO UPDATE SET n = job_counts.n + excluded.n"
    )
)
_DUE: Final = Statement(
    ROWS.where(_E.queued.is_(False), _E.due_at <= bindparam("now")).order_by(_E.due_at).limit(bindparam("limit"))
)
_NEXT_DUE: Final = Statement(
    select(_E.due_at).where(_E.queued.is_(False), _E.due_at < PARKED).order_by(_E.due_at).limit(1)
)
_WAITS: Final = (_E.job_id == bindparam("of_job"), _E.queued.is_(True), _E.place <= bindparam("below"))
_QUEUED: Final = Statement(
    ROWS.where(*_WAITS, _E.due_at <= bindparam("now")).order_by(_E.due_at).limit(bindparam("limit"))
)
_NEXT_QUEUED: Final = Statement(select(_E.due_at).where(*_WAITS, _E.due_at < PARKED).order_by(_E.due_at).limit(1))
_WAKE: Final = Statement(
    update(EXECUTIONS)
    .where(_E.client_id == bindparam("of_client"), _E.due_at >= PARKED)
    .values(due_at=bindparam("now"))
)
_WAKE_HELD: Final = Statement(
    update(EXECUTIONS)
    .where(
        _E.client_id == bindparam("of_client"),
        _E.queued,
        _E.due_at > bindparam("now"),
        _E.due_at < PARKED,
        is_one_of(_E.reason_code, DEVICE_WAITS),
    )
    .values(due_at=bindparam("now"))
)
_WAKE_JOBS: Final = Statement(
    update(JOBS)
    .where(
        JOBS.c.job_id.in_(
            select(_E.job_id).where(_E.client_id == bindparam("of_client"), _E.due_at <= bindparam("now"), _E.queued)
        ),
        JOBS.c.next_wake_at > bindparam("now"),
    )
    .values(next_wake_at=bindparam("now"))
)
_ALL_OPEN: Final = Statement(
    ROWS.where(
        _E.job_id == bindparam("of_job"),
        _E.queued == bindparam("queued"),
        _E.due_at.is_not(None),
        _E.ending.is_(None),
        _E.state != bindparam("but"),
    ).limit(bindparam("limit"))
)
_OF_CLIENT: Final = Statement(ROWS.where(_E.client_id == bindparam("of_client"), _E.due_at.is_not(None)))
_MEAN_BYTES: Final = (
    select(_E.client_id, func.avg(_E.bytes))
    .where(
        _E.job_id.in_(bindparam("job_ids", expanding=True)),
        _E.client_id.in_(bindparam("client_ids", expanding=True)),
        _E.proven > 0,
    )
    .group_by(_E.client_id)
)
_BATCH: Final = 500
"""Clients in one statement."""

_CLIENTS: Final = Statement(select(_E.client_id, _E.state).where(_E.job_id == bindparam("of_job")))
_NTH: Final = Statement(
    select(_E.place).where(_E.job_id == bindparam("of_job")).order_by(_E.place).limit(1).offset(bindparam("before"))
)

Found = list[Execution]


class SqlExecutions:
    """Executions, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def some(self, keys: Iterable[ExecutionKey]) -> dict[ExecutionKey, Execution]:
        """By the primary key."""
        wanted = list(dict.fromkeys(keys))
        found: dict[ExecutionKey, Execution] = {}
        for start in range(0, len(wanted), BATCH):
            some = [tuple(key) for key in wanted[start : start + BATCH]]
            rows = self._transaction.connection.execute(_SOME, {"keys": some})
            found.update((execution.key, execution) for execution in map(to_execution, rows))
        return found

    def add(self, executions: Sequence[Execution]) -> None:
        """One statement."""
        self._transaction.run_each(_ADD, [execution_values(execution) for execution in executions])
        self._count(Counter((one.job_id, str(one.state), one.reason.code) for one in executions))

    def save(self, changes: Sequence[tuple[Execution, Execution]]) -> list[Execution]:
        """One statement for each set of columns that differ."""
        groups: dict[frozenset[str], list[Values]] = defaultdict(list)
        deltas: Counter[tuple[str, str, str]] = Counter()
        saved = []
        for before, after in changes:
            values = changed_execution(before, after)
            values["version"] = before.version + 1
            columns = frozenset(values)
            values |= {"of_job": before.job_id, "of_client": before.client_id, "read_version": before.version}
            groups[columns].append(values)
            deltas[before.job_id, str(before.state), before.reason.code] -= 1
            deltas[before.job_id, str(after.state), after.reason.code] += 1
            saved.append(replace(after, version=before.version + 1))
        for columns, rows in groups.items():
            if self._transaction.update_each(_SAVE, columns, rows) != len(rows):
                message = "an execution is no longer at the version that was read"
                raise VersionConflict(message)
        self._count(deltas)
        return saved

    def _count(self, deltas: Counter[tuple[str, str, str]]) -> None:
        rows = [
            {"job_id": job_id, "state": state, "reason_code": code, "n": n}
            for (job_id, state, code), n in sorted(deltas.items())
            if n
        ]
        self._transaction.run_each(_COUNT, rows)

    def due(self, now: float, limit: int) -> list[Execution]:
        """From the index of what began."""
        return self._all(_DUE, {"now": now, "limit": limit})

    def next_due(self) -> float | None:
        """The first entry of the same index."""
        return self._first(_NEXT_DUE, {})

    def queued(self, job_id: str, now: float, below: float, limit: int) -> list[Execution]:
        """From the index of the job."""
        return self._all(_QUEUED, {"of_job": job_id, "now": now, "below": below, "limit": limit})

    def next_queued(self, job_id: str, below: float) -> float | None:
        """From the same index."""
        return self._first(_NEXT_QUEUED, {"of_job": job_id, "below": below})

    def wake(self, client_ids: Iterable[str], now: float) -> int:
        """One look at the index of the client for each."""
        return self._woken(_WAKE, client_ids, now)

    def wake_held(self, client_ids: Iterable[str], now: float) -> int:
        """The same."""
        return self._woken(_WAKE_HELD, client_ids, now)

    def _woken(self, statement: Statement, client_ids: Iterable[str], now: float) -> int:
        woken = 0
        for client_id in client_ids:
            values: Values = {"of_client": client_id, "now": now}
            rows = self._transaction.run(statement, values).rowcount
            if rows:
                self._transaction.run(_WAKE_JOBS, values)
                woken += rows
        return woken

    def all_open(self, job_id: str, limit: int, *, sending: bool = True) -> list[Execution]:
        """From the index of the job: what waits for its turn first."""
        found: Found = []
        but = "" if sending else ExecutionState.UPLOADING.value
        for queued in (True, False):
            values: Values = {"of_job": job_id, "queued": queued, "limit": limit - len(found), "but": but}
            found += self._all(_ALL_OPEN, values)
        return found

    def of_client(self, client_id: str) -> list[Execution]:
        """From the index of the client."""
        return self._all(_OF_CLIENT, {"of_client": client_id})

    def mean_bytes(self, job_ids: Collection[str], client_ids: Sequence[str]) -> dict[str, float]:
        """By the primary key, some clients at a time."""
        found: dict[str, float] = {}
        for start in range(0, len(client_ids), _BATCH):
            values = {"job_ids": sorted(job_ids), "client_ids": client_ids[start : start + _BATCH]}
            rows = self._transaction.connection.execute(_MEAN_BYTES, values)
            found.update((client_id, float(mean)) for client_id, mean in rows)
        return found

    def clients(self, job_id: str) -> dict[str, ExecutionState]:
        """A scan of the job."""
        rows = self._transaction.run(_CLIENTS, {"of_job": job_id}).fetchall()
        return {client_id: ExecutionState(state) for client_id, state in rows}

    def nth_place(self, job_id: str, n: int) -> float | None:
        """A scan of the job; once a stage."""
        return self._first(_NTH, {"of_job": job_id, "before": n - 1})

    def list(self, where: ExecutionFilter, page: Page) -> ExecutionPage:
        """A walk along the primary key."""
        check_limit(page)
        query = (
            ROWS.where(*_conditions(self._transaction.connection, where)).order_by(_E.client_id).limit(page.limit + 1)
        )
        after = client_position(page)
        found = self._transaction.connection.execute(
            query if after is None else query.where(_E.client_id > after)
        ).all()
        cursor = encode_cursor((found[page.limit - 1].client_id,)) if len(found) > page.limit else None
        return [to_execution(row) for row in found[: page.limit]], cursor

    def largest(self, where: ExecutionFilter, limit: int) -> Sequence[Execution]:
        """A scan of the job."""
        query = (
            ROWS.where(*_conditions(self._transaction.connection, where))
            .order_by(_E.bytes.desc(), _E.client_id)
            .limit(limit)
        )
        return [to_execution(row) for row in self._transaction.connection.execute(query)]

    def client_ids(self, where: ExecutionFilter) -> Sequence[str]:
        """A walk along the primary key."""
        query = select(_E.client_id).where(*_conditions(self._transaction.connection, where)).order_by(_E.client_id)
        return [row[0] for row in self._transaction.connection.execute(query)]

    def matching(self, where: ExecutionFilter) -> Sequence[Execution]:
        """A walk along the primary key."""
        query = ROWS.where(*_conditions(self._transaction.connection, where)).order_by(_E.client_id)
        return [to_execution(row) for row in self._transaction.connection.execute(query)]

    def _all(self, statement: Statement, values: Values) -> Found:
        return [to_execution(row) for row in self._transaction.run(statement, values).fetchall()]

    def _first(self, statement: Statement, values: Values) -> float | None:
        row = self._transaction.run(statement, values).fetchone()
        return None if row is None else row[0]


def _conditions(connection: Connection, where: ExecutionFilter) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [_E.job_id == where.job_id]
    if where.states is not None:
        wanted.append(_E.state.in_(sorted(map(str, where.states))))
    if where.reason_code is not None:
        wanted.append(_E.reason_code == where.reason_code)
    if where.client_ids is not None:
        wanted.append(_E.client_id.in_(sorted(where.client_ids)))
    if where.listed_before is not None:
        wanted.append(_E.listed_at <= where.listed_before)
    return [*wanted, *inside(connection, _E.client_id, where.reach)]


COUNTS: Final = select(JOB_COUNTS.c.job_id, JOB_COUNTS.c.state, JOB_COUNTS.c.reason_code, JOB_COUNTS.c.n)
RECOUNT: Final = Statement(
    select(_E.state, _E.reason_code, func.count())
    .where(_E.job_id == bindparam("of_job"))
    .group_by(_E.state, _E.reason_code)
)
