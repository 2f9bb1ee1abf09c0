"""The port `ScheduleRecords` in SQL.

Rule: a schedule is written by compare-and-set on its version; a run is inserted unless its primary key is taken.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import bindparam, delete, func, literal, select, tuple_, update

from control_plane.adapters.cursors import check_limit, decode_cursor, encode_cursor
from control_plane.adapters.database.jobs.tables import JOBS
from control_plane.adapters.database.schedules.rows import (
    RUN_COLUMNS,
    SCHEDULE_COLUMNS,
    run_values,
    schedule_values,
    to_run,
    to_schedule,
)
from control_plane.adapters.database.schedules.tables import CELLS, COVERAGE, IS_QUEUED, IS_RUNNING, RUNS, SCHEDULES
from control_plane.adapters.database.sql import Statement, Transaction, Values, insert_new
from control_plane.domain.schedules.model import RunKey, RunKind, Schedule, ScheduleRun
from control_plane.services.errors import KeyTaken, VersionConflict
from control_plane.services.ports.database import Page
from control_plane.services.ports.schedules import RunFilter, RunPage, SchedulePage

_S: Final = SCHEDULES.c
_R: Final = RUNS.c
_ROWS: Final = select(*(_S[name] for name in SCHEDULE_COLUMNS))
_ONE: Final = Statement(_ROWS.where(_S.schedule_id == bindparam("of_schedule")))
_ADD: Final = insert_new(SCHEDULES)
_SAVE: Final = Statement(
    update(SCHEDULES).where(_S.schedule_id == bindparam("of_schedule"), _S.version == bindparam("read_version"))
)
_DELETE: Final = tuple(
    Statement(delete(table).where(table.c.schedule_id == bindparam("of_schedule")))
    for table in (COVERAGE, CELLS, RUNS, SCHEDULES)
)
_DUE: Final = Statement(
    select(_S.schedule_id).where(_S.due_at <= bindparam("now")).order_by(_S.due_at).limit(bindparam("limit"))
)
_WITH_ENDED_JOBS: Final = Statement(
    select(_R.schedule_id)
    .where(
        IS_RUNNING,
        select(JOBS.c.job_id).where(JOBS.c.job_id == _R.job_id, JOBS.c.ended_at.is_(None)).exists().is_(False),
    )
    .order_by(_R.schedule_id, _R.nominal_at)
    .limit(bindparam("limit"))
)
_RUN_ROWS: Final = select(*(_R[name] for name in RUN_COLUMNS))
_RUN_KEY: Final = (
    (_R.schedule_id == bindparam("of_schedule"))
    & (_R.kind == bindparam("of_kind"))
    & (_R.nominal_at == bindparam("of_nominal"))
)
_RUN: Final = Statement(_RUN_ROWS.where(_RUN_KEY))
_ADD_RUN: Final = insert_new(RUNS)
_SAVE_RUN: Final = Statement(update(RUNS).where(_RUN_KEY))
_RUNNING: Final = Statement(
    _RUN_ROWS.where(_R.schedule_id == bindparam("of_schedule"), IS_RUNNING).order_by(_R.nominal_at)
)
_QUEUED: Final = (_R.schedule_id == bindparam("of_schedule"), IS_QUEUED)
_NEXT_QUEUED: Final = Statement(_RUN_ROWS.where(*_QUEUED).order_by(_R.nominal_at, _R.kind).limit(1))
_QUEUED_TICK: Final = Statement(
    select(_R.nominal_at).where(*_QUEUED, _R.kind == str(RunKind.TICK), _R.reason_code == bindparam("code")).limit(1)
)
_COUNT_QUEUED: Final = Statement(select(func.count()).where(*_QUEUED))
_OLD_RUNS: Final = (
    select(_R.schedule_id, _R.kind, _R.nominal_at)
    .where(_R.at < bindparam("before"), ~IS_RUNNING, ~IS_QUEUED)
    .order_by(_R.at)
    .limit(bindparam("limit"))
    .correlate(None)
)
_PRUNE: Final = Statement(delete(RUNS).where(tuple_(_R.schedule_id, _R.kind, _R.nominal_at).in_(_OLD_RUNS)))
_schedule_position: Final = msgspec.json.Decoder(tuple[str])
_run_position: Final = msgspec.json.Decoder(tuple[float, str])


class SqlSchedules:
    """Schedules and runs, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, schedule_id: str) -> Schedule | None:
        """By the primary key."""
        row = self._transaction.run(_ONE, {"of_schedule": schedule_id}).fetchone()
        return None if row is None else to_schedule(row)

    def add(self, schedule: Schedule) -> None:
        """`KeyTaken` leaves the transaction usable."""
        if self._transaction.run(_ADD, schedule_values(schedule)).rowcount == 0:
            message = f"schedule {schedule.schedule_id!r} exists"
            raise KeyTaken(message)

    def save(self, before: Schedule, after: Schedule) -> Schedule:
        """One UPDATE of the columns that differ."""
        old, new = schedule_values(before), schedule_values(after)
        values: Values = {name: value for name, value in new.items() if value != old[name]}
        values["version"] = before.version + 1
        guard: Values = {"of_schedule": before.schedule_id, "read_version": before.version}
        if self._transaction.update(_SAVE, values, guard) == 0:
            message = f"schedule {before.schedule_id!r} is no longer at version {before.version}"
            raise VersionConflict(message)
        return replace(after, version=before.version + 1)

    def delete(self, schedule_id: str) -> bool:
        """The rows that belong to it first."""
        for statement in _DELETE:
            deleted = self._transaction.run(statement, {"of_schedule": schedule_id}).rowcount
        return deleted > 0

    def list(self, page: Page) -> SchedulePage:
        """A walk along the primary key."""
        check_limit(page)
        query = _ROWS.order_by(_S.schedule_id).limit(page.limit + 1)
        if page.cursor is not None:
            query = query.where(_S.schedule_id > decode_cursor(page.cursor, _schedule_position)[0])
        found = [to_schedule(tuple(row)) for row in self._transaction.connection.execute(query)]
        last = found[page.limit - 1] if len(found) > page.limit else None
        return found[: page.limit], None if last is None else encode_cursor((last.schedule_id,))

    def due(self, now: float, limit: int) -> Sequence[str]:
        """From the index of `due_at`."""
        return [row[0] for row in self._transaction.run(_DUE, {"now": now, "limit": limit}).fetchall()]

    def with_ended_jobs(self, limit: int) -> Sequence[str]:
        """From the index of running runs; a job that was pruned is over too."""
        rows = self._transaction.run(_WITH_ENDED_JOBS, {"limit": limit}).fetchall()
        return list(dict.fromkeys(row[0] for row in rows))

    def run(self, key: RunKey) -> ScheduleRun | None:
        """By the primary key."""
        row = self._transaction.run(_RUN, _named(key)).fetchone()
        return None if row is None else to_run(row)

    def add_runs(self, runs: Sequence[ScheduleRun]) -> int:
        """A key that is taken leaves the transaction usable."""
        return sum(self._transaction.run(_ADD_RUN, run_values(run)).rowcount for run in runs)

    def save_run(self, run: ScheduleRun) -> None:
        """All columns that are not the key."""
        values = {name: value for name, value in run_values(run).items() if name not in RunKey._fields}
        self._transaction.update(_SAVE_RUN, values, _named(run.key))

    def running(self, schedule_id: str) -> Sequence[ScheduleRun]:
        """From the index of running runs."""
        return [to_run(row) for row in self._transaction.run(_RUNNING, {"of_schedule": schedule_id}).fetchall()]

    def next_queued(self, schedule_id: str) -> ScheduleRun | None:
        """The first entry of the index of queued runs."""
        row = self._transaction.run(_NEXT_QUEUED, {"of_schedule": schedule_id}).fetchone()
        return None if row is None else to_run(row)

    def queued_for(self, schedule_id: str, code: str) -> bool:
        """From the same index."""
        values: Values = {"of_schedule": schedule_id, "code": code}
        return self._transaction.run(_QUEUED_TICK, values).fetchone() is not None

    def count_queued(self, schedule_id: str) -> int:
        """From the same index."""
        ((count,),) = self._transaction.run(_COUNT_QUEUED, {"of_schedule": schedule_id}).fetchall()
        return int(count)

    def runs(self, where: RunFilter, page: Page) -> RunPage:
        """A walk along the index of the latest."""
        check_limit(page)
        query = _RUN_ROWS.where(_R.schedule_id == where.schedule_id)
        query = query.order_by(_R.nominal_at.desc(), _R.kind.desc()).limit(page.limit + 1)
        if where.kinds is not None:
            query = query.where(_R.kind.in_(sorted(map(str, where.kinds))))
        if where.statuses is not None:
            query = query.where(_R.status.in_(sorted(map(str, where.statuses))))
        if where.since is not None:
            query = query.where(_R.nominal_at >= where.since)
        if where.until is not None:
            query = query.where(_R.nominal_at <= where.until)
        if page.cursor is not None:
            nominal_at, kind = decode_cursor(page.cursor, _run_position)
            query = query.where(tuple_(_R.nominal_at, _R.kind) < tuple_(literal(nominal_at), literal(kind)))
        found = [to_run(tuple(row)) for row in self._transaction.connection.execute(query)]
        last = found[page.limit - 1] if len(found) > page.limit else None
        return found[: page.limit], None if last is None else encode_cursor((last.nominal_at, str(last.kind)))

    def prune(self, before: float, limit: int) -> int:
        """From the index of `at`."""
        return self._transaction.run(_PRUNE, {"before": before, "limit": limit}).rowcount


def _named(key: RunKey) -> Values:
    """Parameter names that no column has: an UPDATE sets the columns among its parameters."""
    return {"of_schedule": key.schedule_id, "of_kind": str(key.kind), "of_nominal": key.nominal_at}
