"""The port `JobRecords` in SQL.

Rule: a job is written by compare-and-set on its version; a wake changes `next_wake_at` alone, without a version.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import astuple, replace
from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    text,
    tuple_,
    update,
)

from control_plane.adapters.cursors import check_limit, decode_cursor, encode_cursor
from control_plane.adapters.database.jobs.executions import COUNTS, RECOUNT, SqlExecutions
from control_plane.adapters.database.jobs.files import SqlJobFiles
from control_plane.adapters.database.jobs.rows import JOB_COLUMNS, job_values, to_job
from control_plane.adapters.database.jobs.tables import EXECUTIONS, JOB_COUNTS, JOB_FILES, JOB_TOTALS, JOBS
from control_plane.adapters.database.reach import checked, inside, is_few, within
from control_plane.adapters.database.sql import Statement, Transaction, Values, insert_new
from control_plane.adapters.database.tables import CLIENTS
from control_plane.domain.jobs.model import CountKey, Counts, ExecutionState, Job, JobTotals
from control_plane.domain.selectors import Selector, parse
from control_plane.services.errors import KeyTaken, VersionConflict
from control_plane.services.ports.database import PARKED, Page
from control_plane.services.ports.jobs import JobFilter, JobPage

_J: Final = JOBS.c
_E: Final = EXECUTIONS.c
ROWS: Final = select(*(_J[name] for name in JOB_COLUMNS))
_ONE: Final = Statement(ROWS.where(_J.job_id == bindparam("of_job")))
_SOME: Final = ROWS.where(_J.job_id.in_(bindparam("job_ids", expanding=True)))
_ADD: Final = insert_new(JOBS)
_SAVE: Final = Statement(update(JOBS).where(_J.job_id == bindparam("of_job"), _J.version == bindparam("read_version")))
_DUE: Final = Statement(
    ROWS.where(_J.next_wake_at <= bindparam("now"))
    .order_by(_J.priority.desc(), _J.next_wake_at)
    .limit(bindparam("limit"))
)
_NEXT: Final = Statement(select(_J.next_wake_at).where(_J.next_wake_at.is_not(None)).order_by(_J.next_wake_at).limit(1))
_WAKE: Final = Statement(
    update(JOBS)
    .where(_J.job_id == bindparam("of_job"), _J.next_wake_at > bindparam("now"))
    .values(next_wake_at=bindparam("now"))
)
_PULL_IN: Final = (
    Statement(update(JOBS).where(_J.next_wake_at > bindparam("after")).values(next_wake_at=bindparam("now"))),
    *(
        Statement(
            update(EXECUTIONS)
            .where(
                EXECUTIONS.c.queued.is_(queued),
                EXECUTIONS.c.due_at > bindparam("after"),
                EXECUTIONS.c.due_at < PARKED,
            )
            .values(due_at=bindparam("now"))
        )
        for queued in (True, False)
    ),
)
_CONTINUOUS: Final = Statement(ROWS.where(_J.continuous.is_(True)).order_by(_J.job_id))
_COUNTS_OF: Final = COUNTS.where(JOB_COUNTS.c.job_id.in_(bindparam("job_ids", expanding=True)), JOB_COUNTS.c.n != 0)
_TOTALS: Final = Statement(
    select(JOB_TOTALS.c.files, JOB_TOTALS.c.bytes, JOB_TOTALS.c.proven, JOB_TOTALS.c.proven_bytes).where(
        JOB_TOTALS.c.job_id == bindparam("of_job")
    )
)
_ADD_TO_TOTALS: Final = Statement(
    text(
        "INSERT INTO job_totals (job_id, files, bytes, proven, proven_bytes)"
        " VALUES (:job_id, :files, :bytes, :proven, :proven_bytes) ON CONFLICT (job_id) DO UPDATE SET"
        " files = job_totals.files + excluded.files, bytes = job_totals.bytes + excluded.bytes,"
        " proven = job_totals.proven + excluded.proven,"
        " proven_bytes = job_totals.proven_bytes + excluded.proven_bytes"
    )
)
_OLDEST_ENDED: Final = Statement(
    select(_J.job_id).where(_J.ended_at < bindparam("before")).order_by(_J.ended_at).limit(1)
)
_UNREPORTED: Final = Statement(
    ROWS.where(_J.ended_at > bindparam("after"), _J.reported < _J.run).order_by(_J.ended_at).limit(bindparam("limit"))
)
_CHILDREN: Final = tuple(
    (
        table,
        Statement(
            delete(table).where(
                tuple_(*table.primary_key.columns).in_(
                    select(*table.primary_key.columns)
                    .where(table.c.job_id == bindparam("of_job"))
                    .limit(bindparam("limit"))
                    .correlate(None)
                )
            )
        ),
    )
    for table in (JOB_FILES, EXECUTIONS)
)
_LAST: Final = tuple(
    Statement(delete(table).where(table.c.job_id == bindparam("of_job"))) for table in (JOB_COUNTS, JOB_TOTALS, JOBS)
)

JobPosition = tuple[float, str]
_position: Final = msgspec.json.Decoder(JobPosition)


class SqlJobs:
    """Jobs, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.executions = SqlExecutions(transaction)
        self.files = SqlJobFiles(transaction)

    def get(self, job_id: str) -> Job | None:
        """By the primary key."""
        row = self._transaction.run(_ONE, {"of_job": job_id}).fetchone()
        return None if row is None else to_job(row)

    def some(self, job_ids: Iterable[str]) -> dict[str, Job]:
        """By the primary key."""
        wanted = sorted(set(job_ids))
        if len(wanted) == 1:
            only = self.get(wanted[0])
            return {} if only is None else {only.job_id: only}
        rows = self._transaction.connection.execute(_SOME, {"job_ids": wanted})
        return {job.job_id: job for job in map(to_job, rows)}

    def add(self, job: Job) -> None:
        """`KeyTaken` leaves the transaction usable."""
        if self._transaction.run(_ADD, job_values(job)).rowcount == 0:
            message = f"job {job.job_id!r} exists"
            raise KeyTaken(message)

    def save(self, before: Job, after: Job) -> Job:
        """One UPDATE of the columns that differ."""
        old, new = job_values(before), job_values(after)
        values: Values = {name: value for name, value in new.items() if value != old[name]}
        values["version"] = before.version + 1
        guard: Values = {"of_job": before.job_id, "read_version": before.version}
        if self._transaction.update(_SAVE, values, guard) == 0:
            message = f"job {before.job_id!r} is no longer at version {before.version}"
            raise VersionConflict(message)
        return replace(after, version=before.version + 1)

    def list(self, where: JobFilter, page: Page) -> JobPage:
        """A walk along the index of the newest."""
        check_limit(page)
        query = ROWS.order_by(_J.created_at.desc(), _J.job_id.desc()).limit(page.limit + 1)
        if where.states is not None:
            query = query.where(_J.state.in_(sorted(map(str, where.states))))
        if where.schedule_id is not None:
            query = query.where(_J.schedule_id == where.schedule_id)
        if where.reach is not None:
            query = query.where(self._seen(where.reach))
        if page.cursor is not None:
            created_at, job_id = decode_cursor(page.cursor, _position)
            query = query.where(tuple_(_J.created_at, _J.job_id) < tuple_(literal(created_at), literal(job_id)))
        found = [to_job(row) for row in self._transaction.connection.execute(query)]
        last = found[page.limit - 1] if len(found) > page.limit else None
        return found[: page.limit], None if last is None else encode_cursor((last.created_at, last.job_id))

    def _seen(self, reach: Selector) -> ColumnElement[bool]:
        """Jobs with a client of the reach, and those that were made with it and take clients that match later."""
        own = [(job.job_id, job.spec.targets.reach) for job in self.continuous()]
        waiting = [job_id for job_id, bound in own if bound is not None and parse(bound).same_as(reach)]
        if is_few(self._transaction.connection, reach):
            seen: ColumnElement[bool] = _J.job_id.in_(select(_E.job_id).where(*within(_E.client_id, reach)))
        else:
            seen = exists().where(_E.job_id == _J.job_id, *checked(_E.client_id, reach))
        return or_(seen, _J.job_id.in_(waiting))

    def due(self, now: float, limit: int) -> Sequence[Job]:
        """From the index of `next_wake_at`."""
        return [to_job(row) for row in self._transaction.run(_DUE, {"now": now, "limit": limit}).fetchall()]

    def next_due(self) -> float | None:
        """The first entry of the same index."""
        row = self._transaction.run(_NEXT, {}).fetchone()
        return None if row is None else row[0]

    def wake(self, job_ids: Iterable[str], now: float) -> None:
        """In the order of the ids."""
        self._transaction.run_each(_WAKE, [{"of_job": one, "now": now} for one in sorted(set(job_ids))])

    def continuous(self) -> Sequence[Job]:
        """From an index that has only open jobs."""
        return [to_job(row) for row in self._transaction.run(_CONTINUOUS, {}).fetchall()]

    def counts(self, job_id: str) -> Counts:
        """A few rows."""
        return self.counts_of([job_id])[job_id]

    def counts_of(self, job_ids: Iterable[str]) -> Mapping[str, Counts]:
        """A few rows of each."""
        wanted = sorted(set(job_ids))
        found: dict[str, dict[CountKey, int]] = defaultdict(dict)
        for job_id, state, code, n in self._transaction.connection.execute(_COUNTS_OF, {"job_ids": wanted}):
            found[job_id][ExecutionState(state), code] = n
        return {job_id: found[job_id] for job_id in wanted}

    def recounted(self, job_id: str) -> Mapping[CountKey, int]:
        """A scan of the job."""
        rows = self._transaction.run(RECOUNT, {"of_job": job_id}).fetchall()
        return {(ExecutionState(state), code): n for state, code, n in rows}

    def totals(self, job_id: str) -> JobTotals:
        """By the primary key."""
        row = self._transaction.run(_TOTALS, {"of_job": job_id}).fetchone()
        return JobTotals() if row is None else JobTotals(*row)

    def sums_within(self, job_ids: Iterable[str], reach: Selector) -> Mapping[str, tuple[Counts, JobTotals]]:
        """A scan of the executions of these jobs."""
        sums = (func.count(), *(func.sum(_E[name]) for name in JobTotals.__struct_fields__))
        within_reach = inside(self._transaction.connection, _E.client_id, reach)
        query = (
            select(_E.job_id, _E.state, _E.reason_code, *sums)
            .where(_E.job_id.in_(sorted(set(job_ids))), *within_reach)
            .group_by(_E.job_id, _E.state, _E.reason_code)
        )
        found: dict[str, tuple[dict[CountKey, int], JobTotals]] = {}
        for job_id, state, code, n, *added in self._transaction.connection.execute(query):
            counts, before = found.get(job_id, ({}, JobTotals()))
            counts[ExecutionState(state), code] = n
            # PostgreSQL sums big integers to decimals.
            found[job_id] = counts, JobTotals(*(x + int(y) for x, y in zip(astuple(before), added, strict=True)))
        return found

    def goes_beyond(self, job_id: str, reach: Selector, *, open_only: bool = False) -> bool:
        """A walk over the job's executions up to the first one."""
        known = exists().where(CLIENTS.c.client_id == _E.client_id)
        within_reach = inside(self._transaction.connection, _E.client_id, reach)
        beyond = select(_E.client_id).where(_E.job_id == job_id, known, not_(and_(*within_reach)))
        if open_only:
            beyond = beyond.where(_E.due_at.is_not(None))
        return self._transaction.connection.execute(beyond.limit(1)).first() is not None

    def add_to_totals(self, job_id: str, change: JobTotals) -> JobTotals:
        """The row stays locked until the commit."""
        self._transaction.run(_ADD_TO_TOTALS, {"job_id": job_id, **msgspec.structs.asdict(change)})
        return self.totals(job_id)

    def unreported(self, ended_after: float, limit: int) -> Sequence[Job]:
        """From the index of `ended_at`."""
        rows = self._transaction.run(_UNREPORTED, {"after": ended_after, "limit": limit}).fetchall()
        return [to_job(row) for row in rows]

    def pull_in(self, after: float, now: float) -> int:
        """There are hardly ever any."""
        values: Values = {"after": after, "now": now}
        return sum(self._transaction.run(statement, values).rowcount for statement in _PULL_IN)

    def prune(self, ended_before: float, limit: int) -> int:
        """The rows of one job, in batches; the job itself is the last. Counts rows, not jobs."""
        row = self._transaction.run(_OLDEST_ENDED, {"before": ended_before}).fetchone()
        if row is None:
            return 0
        values: Values = {"of_job": row[0], "limit": limit}
        for _, statement in _CHILDREN:
            deleted = self._transaction.run(statement, values).rowcount
            if deleted:
                return limit
        for statement in _LAST:
            self._transaction.run(statement, {"of_job": row[0]})
        return limit
