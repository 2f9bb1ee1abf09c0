"""One step of one schedule, in one transaction: what ended, what is due, what waits in the queue.

Rule: derived from the rows and the instant alone. A step makes at most one job, and its run is inserted in the same
transaction: a kill after any commit, and a second replica, find a state from which the next step continues.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Protocol

from msgspec.structs import replace

from control_plane.domain.changes import ScheduleTicked
from control_plane.domain.errors import DomainError
from control_plane.domain.jobs.model import Job
from control_plane.domain.jobs.spec import MAX_JOB_DEADLINE, JobSpec
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.schedules import decisions
from control_plane.domain.schedules.decisions import World, judge
from control_plane.domain.schedules.model import (
    RunKey,
    RunKind,
    RunStatus,
    Schedule,
    ScheduleRun,
)
from control_plane.domain.schedules.ticks import next_tick, ticks
from control_plane.services.errors import Permanent, VersionConflict
from control_plane.services.ports.database import Records
from schemas.errors import SchemaError

TICKS: Final = 200
"""Ticks that one step accounts for."""

NEVER: Final = 1e15
"""A `due_at` that never comes: the cadence has no further tick."""

REFUSALS: Final = (Permanent, DomainError, SchemaError)
"""What a request for a job raises that no later try makes good."""

_MOST_NAMES: Final = 10


class MakeJob(Protocol):
    """Creates a job with its executions, within the caller's transaction."""

    def __call__(
        self,
        records: Records,
        job_id: str,
        spec: JobSpec,
        now: float,
        created_by: str,
        schedule: tuple[str, str, float] | None,
        /,
    ) -> Job:
        """The job; an error of the request (`Permanent`, a `DomainError`) when it cannot be made."""


class CancelJob(Protocol):
    """Cancels a job, within the caller's transaction."""

    def __call__(self, records: Records, job_id: str, now: float, /) -> object:
        """A job that is over, or that is being cancelled, stays as it is."""


@dataclass(frozen=True, slots=True)
class JobMachine:
    """What schedules need of jobs."""

    make: MakeJob
    cancel: CancelJob


class JobNotMade(Exception):
    """The job of a run cannot be made. The transaction is rolled back: part of the job may be in it."""

    def __init__(self, key: RunKey, reason: Reason) -> None:
        super().__init__(reason.text)
        self.key = key
        self.reason = reason


@dataclass(slots=True)
class Step:
    """What one step came to: the schedule as it is stored, and the runs that were decided."""

    schedule: Schedule
    decided: list[ScheduleRun] = field(default_factory=list)
    made_job: bool = False


class Advance:
    """The steps of schedules."""

    def __init__(self, jobs: JobMachine) -> None:
        self._jobs = jobs

    def step(
        self, records: Records, schedule_id: str, now: float, refused: Mapping[RunKey, Reason] | None = None
    ) -> Step | None:
        """Advance one schedule; None when it does not exist.

        A run in `refused` gets no job: its tick is accounted for with that reason. `JobNotMade`, `VersionConflict`.
        """
        before = records.schedules.get(schedule_id)
        if before is None:
            return None
        step = Step(before)
        running = self._end_runs(records, step, now)
        self._account(records, step, running, now, refused or {})
        self._serve_queue(records, step, running, now, refused or {})
        after = replace(step.schedule, due_at=self._due_at(records, step, running, now))
        step.schedule = records.schedules.save(before, after)
        append_ticks(records, step.decided)
        return step

    def _end_runs(self, records: Records, step: Step, now: float) -> list[ScheduleRun]:
        """Note the ends of jobs, in their order; returns the runs that are not over."""
        runs = records.schedules.running(step.schedule.schedule_id)
        jobs = records.jobs.some(run.job_id for run in runs if run.job_id)
        over: list[tuple[float, ScheduleRun, Job | None]] = []
        running = []
        for run in runs:
            job = jobs.get(run.job_id or "")
            if job is not None and job.open:
                running.append(run)
            else:
                over.append((now if job is None or job.ended_at is None else job.ended_at, run, job))
        for ended_at, run, job in sorted(over, key=lambda one: one[0]):
            outcome = None if job is None or job.outcome is None else str(job.outcome)
            records.schedules.save_run(replace(run, ended_at=ended_at, outcome=outcome))
            step.schedule = decisions.after_end(step.schedule, run.kind, job, now)
        return running

    def _account(
        self, records: Records, step: Step, running: list[ScheduleRun], now: float, refused: Mapping[RunKey, Reason]
    ) -> None:
        """Give every tick that is due a run, until one makes a job."""
        cadence = step.schedule.spec.cadence
        found = islice(ticks(cadence, step.schedule.cursor), TICKS + 1)
        nominal_at = next(found, None)
        for _ in range(TICKS):
            if nominal_at is None or nominal_at + step.schedule.delay > now:
                return
            following = next(found, None)
            is_last = following is None or following + step.schedule.delay > now
            self._account_for(records, step, running, nominal_at, now, is_last=is_last, refused=refused)
            if step.made_job:
                return
            nominal_at = following

    def _account_for(
        self,
        records: Records,
        step: Step,
        running: list[ScheduleRun],
        nominal_at: float,
        now: float,
        *,
        is_last: bool,
        refused: Mapping[RunKey, Reason],
    ) -> None:
        schedule = step.schedule
        key = RunKey(schedule.schedule_id, RunKind.TICK, nominal_at)
        one = bool(running) and schedule.spec.overlap == "queue_one"
        waits = one and records.schedules.queued_for(schedule.schedule_id, ReasonCode.OVERLAP)
        verdict = judge(schedule, nominal_at, World(now, is_last=is_last, running=bool(running), waits=waits))
        run = ScheduleRun(
            schedule_id=schedule.schedule_id,
            kind=RunKind.TICK,
            nominal_at=nominal_at,
            status=verdict.status,
            reason=verdict.reason,
            at=now,
            queued=verdict.status is RunStatus.QUEUED,
        )
        skip_at = None if schedule.skip_at is not None and schedule.skip_at <= nominal_at else schedule.skip_at
        step.schedule = replace(schedule, cursor=nominal_at, skip_at=skip_at)
        if run.status is not RunStatus.FIRED:
            _insert(records, step, run)
        elif key in refused:
            _insert(records, step, self._refused(step, run, refused[key], now))
        else:
            fired = decisions.fired(run, free_job_id(records, key), now)
            if not _insert(records, step, fired):
                return
            if verdict.cancels:
                for other in running:
                    self._jobs.cancel(records, other.job_id or "", now)
                running.clear()
            self._make(records, step, fired, now)
            running.append(fired)

    def _serve_queue(
        self, records: Records, step: Step, running: list[ScheduleRun], now: float, refused: Mapping[RunKey, Reason]
    ) -> None:
        """Let the oldest queued run begin, if it may."""
        if step.made_job or not decisions.queue_may_fire(step.schedule, running):
            return
        run = records.schedules.next_queued(step.schedule.schedule_id)
        if run is None:
            return
        if run.key in refused:
            run = self._refused(step, run, refused[run.key], now)
            records.schedules.save_run(run)
            step.decided.append(run)
            return
        fired = decisions.fired(run, free_job_id(records, run.key), now)
        records.schedules.save_run(fired)
        step.decided.append(fired)
        self._make(records, step, fired, now)
        running.append(fired)

    def _make(self, records: Records, step: Step, run: ScheduleRun, now: float) -> None:
        make_job(self._jobs, records, step.schedule, run, now)
        step.made_job = True

    def _refused(self, step: Step, run: ScheduleRun, reason: Reason, now: float) -> ScheduleRun:
        """The run of a tick whose job cannot be made."""
        if run.kind is RunKind.TICK:
            step.schedule = decisions.after_failure(step.schedule, f"the tick at {stamp(run.nominal_at)}", now)
        return replace(run, status=RunStatus.MISSED, reason=reason, at=now)

    def _due_at(self, records: Records, step: Step, running: list[ScheduleRun], now: float) -> float:
        """When the next step has work; the end of a job that the queue waits for is seen in the rows of jobs."""
        upcoming = next_tick(step.schedule.spec.cadence, step.schedule.cursor)
        tick_at = NEVER if upcoming is None else upcoming + step.schedule.delay
        may_fire = decisions.queue_may_fire(step.schedule, running)
        if may_fire and records.schedules.next_queued(step.schedule.schedule_id) is not None:
            return min(now, tick_at)
        return tick_at


def _insert(records: Records, step: Step, run: ScheduleRun) -> bool:
    """Insert the run of a tick; False when another replica did."""
    if records.schedules.add_runs([run]) == 0:
        return False
    step.decided.append(run)
    return True


def make_job(jobs: JobMachine, records: Records, schedule: Schedule, run: ScheduleRun, now: float) -> Job:
    """Make the job of a run, and the cells of its clients. `JobNotMade`."""
    job_id = run.job_id or ""
    try:
        job = jobs.make(
            records,
            job_id,
            schedule.spec.job,
            now,
            schedule.created_by,
            (schedule.schedule_id, str(run.kind), run.nominal_at),
        )
    except VersionConflict:
        raise
    except REFUSALS as error:
        raise JobNotMade(run.key, Reason(ReasonCode.JOB_REFUSED, f"no job could be made: {error}")) from error
    if run.kind is not RunKind.MANUAL:
        watch_until = now + 2 * MAX_JOB_DEADLINE + schedule.spec.catch_up.within
        records.coverage.add(schedule.schedule_id, run.nominal_at, job_id, now=now, watch_until=watch_until)
    return job


def append_ticks(records: Records, runs: list[ScheduleRun]) -> None:
    """Append what became of these runs to the change log; call it last in a transaction."""
    records.changes.append([tick_of(run) for run in runs])


def tick_of(run: ScheduleRun) -> ScheduleTicked:
    """What became of a run, as a change."""
    return ScheduleTicked(
        at=run.at,
        schedule_id=run.schedule_id,
        kind=str(run.kind),
        nominal_at=run.nominal_at,
        status=str(run.status),
        job_id=run.job_id,
    )


def free_job_id(records: Records, key: RunKey) -> str:
    """The id of a run's job. It is taken only by a job of an earlier schedule with the same id."""
    wanted = decisions.job_id_of(key, stamp(key.nominal_at))
    names = [wanted, *(f"{wanted}-{n}" for n in range(2, _MOST_NAMES))]
    taken = records.jobs.some(names) if records.jobs.get(wanted) is not None else {}
    return next((name for name in names if name not in taken), wanted)


def stamp(at: float) -> str:
    """An instant in UTC as a job's id has it: to the second, or to the millisecond where it is not whole.

    >>> stamp(1795658400.0), stamp(1795658400.25)
    ('20261126T020000Z', '20261126T020000.250Z')
    """
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y%m%dT%H%M%S}{f'.{moment.microsecond // 1000:03d}' if moment.microsecond else ''}Z"
