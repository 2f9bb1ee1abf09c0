"""Schedules in tests: a database on SQLite, a clock that a test sets, and jobs that a test ends.

Rule: the jobs here are rows of the shipped tables, made by the shortest code there is: a job of its named clients.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.jobs.model import (
    Execution,
    ExecutionKey,
    ExecutionState,
    Job,
    JobOutcome,
    JobState,
    place_of,
)
from control_plane.domain.jobs.spec import FileQuery, JobSpec, Targets
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.schedules.model import CellState, RunStatus, Schedule, ScheduleRun, ScheduleSpec
from control_plane.domain.schedules.ticks import Cadence
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.jobs import JobFilter
from control_plane.services.ports.schedules import CellFilter, RunFilter
from control_plane.services.schedules.advance import JobMachine
from control_plane.services.schedules.runner import ScheduleRunner
from control_plane.services.schedules.service import ScheduleService, new_schedule
from tests.support.databases import a_client

START: Final = 1_795_600_800.0
"""2026-11-25T10:00:00Z: a whole hour."""

HOUR: Final = 3600.0
JOB: Final = JobSpec(targets=Targets(clients=("till-1", "till-2")), files=FileQuery(paths=("/data/*.csv",)))
TICK_JOB: Final = replace(JOB, key="{client_id}/{tick:%Y-%m-%d}/{name}")


class SetClock:
    """Both clocks; a test moves them."""

    def __init__(self, now: float = START) -> None:
        self.wall = now
        self.steady = 0.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def forward(self, seconds: float) -> float:
        """Time passes."""
        self.wall += seconds
        self.steady += seconds
        return self.wall


def a_schedule(schedule_id: str = "sales", now: float = START, **changes: object) -> Schedule:
    """A schedule that ticks every hour; `changes` are members of its specification."""
    spec = replace(ScheduleSpec(cadence=Cadence(every=HOUR), job=JOB), **changes)
    return new_schedule(schedule_id, spec, now, "ann")


def make(
    records: Records, job_id: str, spec: JobSpec, now: float, created_by: str, schedule: tuple[str, str, float] | None
) -> Job:
    """A job with an execution for each of its clients. A client `unknown` is refused, after the job was inserted."""
    schedule_id, kind, nominal_at = schedule or (None, None, None)
    job = Job(
        job_id=job_id,
        spec=spec,
        created_at=now,
        created_by=created_by,
        deadline=now + spec.deadline,
        schedule_id=schedule_id,
        kind=kind,
        nominal_at=nominal_at,
        clients=len(spec.targets.clients),
    )
    records.jobs.add(job)
    if "unknown" in spec.targets.clients:
        message = "client 'unknown' is not known"
        raise BadInput(message)
    records.jobs.executions.add(
        [
            Execution(
                job_id=job_id, client_id=name, place=place_of(job_id, name), created_at=now, updated_at=now, due_at=now
            )
            for name in spec.targets.clients
        ]
    )
    return job


def cancel(records: Records, job_id: str, now: float) -> None:
    """Begin to cancel a job."""
    job = records.jobs.get(job_id)
    if job is not None and job.open:
        records.jobs.save(job, replace(job, state=JobState.CANCELLING, ending=JobState.CANCELLED, next_wake_at=now))


JOBS: Final = JobMachine(make, cancel)


class Site:
    """One database with a runner, use cases and a clock."""

    def __init__(self, database: Database, clock: SetClock | None = None) -> None:
        self.database = database
        self.clock = clock or SetClock()
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.made = 0
        self.runner = ScheduleRunner(
            database,
            self.clock,
            lambda name, facts: self.lines.append((name, dict(facts))),
            jobs=JOBS,
            time_is_sure=lambda: True,
            on_made=self._count,
        )
        self.service = ScheduleService(
            database=database,
            clock=self.clock,
            jobs=JOBS,
            check=lambda _records, _spec, _now: ((), ()),
            forecast=lambda _records, _schedule, _clients, _now: None,
            on_made=self._count,
        )

    def _count(self) -> None:
        self.made += 1

    async def add(self, *schedules: Schedule) -> None:
        def work(records: Records) -> None:
            for schedule in schedules:
                records.schedules.add(schedule)

        await self.database.write(work)

    async def settle(self, most: int = 10_000) -> None:
        """Advance until nothing is due."""
        for _ in range(most):
            if not await self.runner.tick():
                return
        message = f"still busy after {most} looks"
        raise AssertionError(message)

    async def schedule(self, schedule_id: str = "sales") -> Schedule:
        found = await self.database.read(lambda records: records.schedules.get(schedule_id))
        assert found is not None
        return found

    async def runs(self, schedule_id: str = "sales") -> list[ScheduleRun]:
        """Every run, oldest first."""
        where = RunFilter(schedule_id)
        found, _ = await self.database.read(lambda records: records.schedules.runs(where, Page(100_000)))
        return found[::-1]

    async def statuses(self, schedule_id: str = "sales") -> list[RunStatus]:
        return [run.status for run in await self.runs(schedule_id)]

    async def job(self, job_id: str | None) -> Job:
        assert job_id is not None
        found = await self.database.read(lambda records: records.jobs.get(job_id))
        assert found is not None
        return found

    async def jobs(self) -> dict[str, Job]:
        """Every job of the database."""
        found, _ = await self.database.read(lambda records: records.jobs.list(JobFilter(), Page(100_000)))
        return {job.job_id: job for job in found}

    async def end_execution(
        self, job_id: str, client_id: str, state: ExecutionState, reason: str = ReasonCode.SENT, at: float | None = None
    ) -> None:
        """End one execution."""
        now = self.clock.now() if at is None else at

        def work(records: Records) -> None:
            key = ExecutionKey(job_id, client_id)
            before = records.jobs.executions.some([key])[key]
            after = replace(before, state=state, reason=Reason(reason, reason), ended_at=now, due_at=None)
            records.jobs.executions.save([(before, after)])

        await self.database.write(work)

    async def end_job(
        self, job_id: str | None, outcome: JobOutcome = JobOutcome.ALL, state: JobState = JobState.COMPLETED
    ) -> None:
        """End a job, as its executions are."""
        now = self.clock.now()

        def work(records: Records) -> None:
            before = records.jobs.get(job_id or "")
            assert before is not None
            records.jobs.save(before, replace(before, state=state, outcome=outcome, ended_at=now))

        await self.database.write(work)

    async def connect(self, *client_ids: str) -> None:
        """These clients connect now."""
        now = self.clock.now()
        rows = [a_client(name, connected_at=now, seen_at=now) for name in client_ids]
        await self.database.write(lambda records: records.clients.save(rows))

    async def cells(self, schedule_id: str = "sales") -> dict[tuple[float, str], CellState]:
        """Every cell, by nominal instant and client; the sums agree with them."""

        def work(records: Records) -> dict[tuple[float, str], CellState]:
            pages, _ = records.coverage.list(CellFilter(schedule_id, 0.0, 1e14), Page(100_000))
            found = {(cell.nominal_at, name): cell.state for name, cells in pages for cell in cells}
            assert records.coverage.counts(schedule_id, 0.0, 1e14) == records.coverage.recounted(schedule_id)
            return found

        return await self.database.read(work)


def a_database(directory: Path, name: str = "backhaul.db") -> SqlDatabase:
    """A fresh database on SQLite."""
    return SqlDatabase.open(f"sqlite:///{directory / name}", patience=5)


def accounted(runs: Iterable[ScheduleRun]) -> list[float]:
    """The nominal instants of ticks, in their order."""
    return sorted(run.nominal_at for run in runs if run.kind == "tick")


async def together(*sites: Site) -> None:
    """Every site looks once, at the same time."""
    await asyncio.gather(*(site.runner.tick() for site in sites))
