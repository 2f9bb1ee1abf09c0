"""The use cases of schedules.

Rule: the caller is the first argument. A verb that is repeated changes nothing; `run_now` alone makes a job each time.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final, Protocol

from msgspec.structs import replace

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act, instant_text
from control_plane.domain.changes import ScheduleChanged
from control_plane.domain.gate.forecast import Forecast
from control_plane.domain.jobs.spec import DAY, JobSpec
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.schedules import decisions
from control_plane.domain.schedules.model import (
    CellState,
    RunKey,
    RunKind,
    RunStatus,
    Schedule,
    ScheduleRun,
    ScheduleSpec,
)
from control_plane.domain.schedules.ticks import Tick, described, next_tick, ticks
from control_plane.services.audit.recording import Detail, record
from control_plane.services.clients.reach import reach_of, within_reach
from control_plane.services.errors import BadInput, ConditionFailed, KeyTaken, UnknownSchedule
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.schedules import CellCounts, CellFilter, CellPage, RunFilter, RunPage
from control_plane.services.schedules.advance import (
    NEVER,
    JobMachine,
    JobNotMade,
    append_ticks,
    free_job_id,
    make_job,
)
from control_plane.services.schedules.reach import require_own, seen_by, seen_page, seen_runs

MAX_BACKFILL: Final = 10_000
"""Ticks of one request."""

MAX_PREVIEW: Final = 1_000
SHOWN_TICKS: Final = 10
"""Ticks that a dry run shows."""

MAX_COVERED: Final = 1_000
"""Ticks of one report of coverage."""

MAX_CELLS: Final = 50_000
"""Cells of one page: of a span of many ticks it has fewer clients than were requested."""

DEFAULT_SPAN: Final = 30 * DAY
"""Seconds of a report of coverage, up to now."""

_MILLISECOND: Final = 0.001


class CheckJob(Protocol):
    """Makes every check of a job without making it."""

    def __call__(self, records: Records, spec: JobSpec, now: float, /) -> tuple[Sequence[str], Sequence[str]]:
        """The clients that match now, and warnings; raises what the creation of the job would."""


class ForecastJob(Protocol):
    """Makes the forecast of a schedule."""

    def __call__(self, records: Records, schedule: Schedule, clients: Sequence[str], now: float, /) -> Forecast | None:
        """What those of the clients are expected to send that have caps; None if none has."""


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule with what its rows show about it: the next tick, what waits in the queue, the jobs that run."""

    schedule: Schedule
    next_at: float | None
    queued: int = 0
    running: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Created:
    """The result of a creation. `new` is False when the same schedule existed, or when nothing was to be made.

    `clients` (those that match now), `upcoming` (the next ticks) and `forecast` (what devices with caps of their own
    are expected to send) are those of a dry run.
    """

    view: ScheduleView
    new: bool
    warnings: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    upcoming: tuple[Tick, ...] = ()
    forecast: Forecast | None = None


@dataclass(frozen=True, slots=True)
class Backfilled:
    """How many ticks of a span were queued, and how many have a job, or wait for one, already."""

    queued: int
    left_out: int


@dataclass(frozen=True, slots=True)
class CoveredTick:
    """One tick of a report: its run, as far as it is kept, and how many of its cells are in each state."""

    tick: Tick
    run: ScheduleRun | None
    counts: dict[CellState, int]


@dataclass(frozen=True, slots=True)
class Coverage:
    """A report: every tick of the span, and one page of clients with their cells."""

    since: float
    until: float
    ticks: list[CoveredTick]
    clients: CellPage


class ScheduleService:
    """What a caller can do with schedules."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        jobs: JobMachine,
        check: CheckJob,
        forecast: ForecastJob,
        on_made: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs
        self._check = check
        self._forecast = forecast
        self._on_made = on_made

    async def create(
        self, principal: Principal, schedule_id: str | None, spec: ScheduleSpec, *, dry_run: bool = False
    ) -> Created:
        """Create a schedule, which ticks from now on. The same id with the same request is the same schedule.

        `KeyTaken` when the id is that of another one; `dry_run` makes every check and stores nothing.
        """
        now, spec = self._clock.now(), _bound(spec, principal)
        wanted = new_schedule(schedule_id or f"schedule-{secrets.token_hex(4)}", spec, now, principal.subject)

        def work(records: Records) -> Created:
            found = records.schedules.get(wanted.schedule_id)
            if found is not None and (found.spec != spec or not dry_run):
                if found.spec != spec:
                    message = f"schedule {wanted.schedule_id!r} exists, and is another one"
                    raise KeyTaken(message)
                return Created(_view(records, found), new=False)
            clients, warnings = map(tuple, self._check(records, spec.job, now))
            if dry_run:
                upcoming = tuple(upcoming_ticks(spec, now, SHOWN_TICKS))
                view = _view(records, found or wanted)
                expected = self._forecast(records, wanted, clients, now)
                return Created(
                    view, new=False, warnings=warnings, clients=clients, upcoming=upcoming, forecast=expected
                )
            records.schedules.add(wanted)
            _record(records, principal, Act.SCHEDULE_CREATE, wanted.schedule_id, now)
            _append_changed(records, wanted.schedule_id, now)
            return Created(_view(records, wanted), new=True, warnings=warnings)

        return await (self._database.read(work) if dry_run else self._database.write(work))

    async def replace(self, principal: Principal, schedule_id: str, spec: ScheduleSpec, if_match: int) -> ScheduleView:
        """Replace what a schedule requests, from now on; its jobs are the caller's.

        It keeps the reach with which it was made: no answer shows it, so a caller without one would drop it unseen.
        `ConditionFailed`, `BadInput` while a tick is being judged.
        """
        now = self._clock.now()

        def change(records: Records, before: Schedule) -> Schedule:
            if before.spec_version != if_match:
                raise ConditionFailed(before.spec_version)
            targets = replace(spec.job.targets, reach=before.spec.job.targets.reach)
            wanted = replace(spec, job=replace(spec.job, targets=targets))
            self._check(records, wanted.job, now)
            delay = decisions.share_of_jitter(schedule_id, wanted.jitter)
            after = replace(before, spec=wanted, delay=delay, created_by=principal.subject)
            if wanted.cadence == before.spec.cadence:
                return after
            upcoming = next_tick(before.spec.cadence, before.cursor)
            if upcoming is not None and upcoming + before.delay <= now:
                message = "ticks that were due are being accounted for: ask again in a moment"
                raise BadInput(message)
            return replace(after, cursor=max(now, before.cursor), skip_at=None)

        return await self._change(principal, Act.SCHEDULE_REPLACE, schedule_id, change)

    async def show(self, principal: Principal, schedule_id: str) -> ScheduleView:
        """One schedule; `UnknownSchedule`."""

        def work(records: Records) -> ScheduleView:
            return _view(records, seen_by(records, principal, _require(records, schedule_id)))

        return await self._database.read(work)

    async def schedules(self, principal: Principal, page: Page) -> tuple[list[ScheduleView], str | None]:
        """Schedules by id."""

        def work(records: Records) -> tuple[list[ScheduleView], str | None]:
            found, cursor = seen_page(records, principal, page)
            return [_view(records, schedule) for schedule in found], cursor

        return await self._database.read(work)

    async def delete(self, principal: Principal, schedule_id: str) -> None:
        """Delete a schedule with its runs and its coverage; its jobs continue. `UnknownSchedule`."""
        now = self._clock.now()

        def work(records: Records) -> None:
            require_own(records, principal, _require(records, schedule_id))
            if not records.schedules.delete(schedule_id):
                raise UnknownSchedule(schedule_id)
            _record(records, principal, Act.SCHEDULE_DELETE, schedule_id, now)
            _append_changed(records, schedule_id, now)

        await self._database.write(work)

    async def pause(self, principal: Principal, schedule_id: str, note: str = "") -> ScheduleView:
        """Hold the schedule: its ticks are accounted for as paused, and its queue waits. Jobs that run continue."""
        now = self._clock.now()
        text = note or f"paused by {principal.subject}"
        return await self._change(
            principal,
            Act.SCHEDULE_PAUSE,
            schedule_id,
            lambda _, before: decisions.paused(before, note if before.paused else text, now),
        )

    async def resume(self, principal: Principal, schedule_id: str) -> ScheduleView:
        """Resume the schedule. Ticks of the pause are not made up for: `backfill` makes them."""
        now = self._clock.now()
        return await self._change(
            principal, Act.SCHEDULE_RESUME, schedule_id, lambda _, before: decisions.resumed(before, now)
        )

    async def skip_next(self, principal: Principal, schedule_id: str) -> ScheduleView:
        """Skip the next tick; a repeat before it skips the same one."""
        now = self._clock.now()

        def change(_: Records, before: Schedule) -> Schedule:
            upcoming = next_tick(before.spec.cadence, max(before.cursor, now - before.delay))
            return replace(before, skip_at=upcoming)

        return await self._change(principal, Act.SCHEDULE_SKIP, schedule_id, change)

    async def run_now(self, principal: Principal, schedule_id: str) -> ScheduleRun:
        """Make a job of the schedule now, also while it is paused or a job of it runs. It moves no tick.

        `BadInput` when no job can be made.
        """
        now = self._clock.now()
        try:
            run = await self._database.write(lambda records: self._run(records, principal, schedule_id, now))
        except JobNotMade as error:
            raise BadInput(error.reason.text) from error
        self._on_made()
        return run

    def _run(self, records: Records, principal: Principal, schedule_id: str, now: float) -> ScheduleRun:
        schedule = require_own(records, principal, _require(records, schedule_id))
        key = RunKey(schedule_id, RunKind.MANUAL, int(now * 1000) / 1000)
        while records.schedules.run(key) is not None:
            key = key._replace(nominal_at=round(key.nominal_at + _MILLISECOND, 3))
        run = ScheduleRun(
            schedule_id=schedule_id,
            kind=RunKind.MANUAL,
            nominal_at=key.nominal_at,
            status=RunStatus.FIRED,
            reason=Reason(ReasonCode.BY_OPERATOR, f"started by {principal.subject}"),
            at=now,
            job_id=free_job_id(records, key),
        )
        records.schedules.add_runs([run])
        make_job(self._jobs, records, schedule, run, now)
        _record(records, principal, Act.SCHEDULE_RUN, schedule_id, now, {"job_id": run.job_id or ""})
        append_ticks(records, [run])
        return run

    async def backfill(self, principal: Principal, schedule_id: str, since: float, until: float) -> Backfilled:
        """Queue every tick from `since` to `until` (both included) that has no job; they run oldest first, one by one.

        `BadInput` for a span in the future, without ticks, or with more than `MAX_BACKFILL`.
        """
        now = self._clock.now()
        if not since <= until <= now:
            message = "the span must end after it begins, and not in the future"
            raise BadInput(message)

        def work(records: Records) -> Backfilled:
            before = require_own(records, principal, _require(records, schedule_id))
            found = _ticks_of(before, since, until, MAX_BACKFILL)
            if not found:
                message = "the schedule has no tick in this span"
                raise BadInput(message)
            taken = _with_jobs(records, schedule_id, since, until)
            reason = Reason(ReasonCode.BACKFILL, f"requested by {principal.subject}")
            runs = [
                ScheduleRun(
                    schedule_id=schedule_id,
                    kind=RunKind.BACKFILL,
                    nominal_at=nominal_at,
                    status=RunStatus.QUEUED,
                    reason=reason,
                    at=now,
                    queued=True,
                )
                for nominal_at in found
                # A tick that is due and has no run yet is the runner's.
                if nominal_at not in taken and nominal_at <= before.cursor
            ]
            queued = records.schedules.add_runs(runs)
            facts: Detail = {"since": instant_text(since), "until": instant_text(until), "queued": queued}
            _record(records, principal, Act.SCHEDULE_BACKFILL, schedule_id, now, facts)
            records.schedules.save(before, replace(before, due_at=min(before.due_at, now)))
            _append_changed(records, schedule_id, now)
            return Backfilled(queued, len(found) - queued)

        return await self._database.write(work)

    async def preview(self, principal: Principal, schedule_id: str, count: int) -> list[Tick]:
        """The next ticks, with their local times; `UnknownSchedule`."""
        now = self._clock.now()

        def work(records: Records) -> list[Tick]:
            # On the database's thread: a thousand leap days take half a second.
            schedule = seen_by(records, principal, _require(records, schedule_id))
            return upcoming_ticks(schedule.spec, max(schedule.cursor, now), count)

        return await self._database.read(work)

    async def runs(self, principal: Principal, where: RunFilter, page: Page) -> RunPage:
        """The runs of a schedule, the latest first; `UnknownSchedule`."""

        def work(records: Records) -> RunPage:
            schedule = seen_by(records, principal, _require(records, where.schedule_id))
            found, cursor = records.schedules.runs(where, page)
            return seen_runs(principal, schedule, found), cursor

        return await self._database.read(work)

    async def coverage(
        self,
        principal: Principal,
        schedule_id: str,
        page: Page,
        *,
        since: float | None = None,
        until: float | None = None,
        state: CellState | None = None,
    ) -> Coverage:
        """What is proven and what is missing, for each tick of the span; by default of the last thirty days.

        `BadInput` for a span of more than `MAX_COVERED` ticks.
        """
        end = self._clock.now() if until is None else until
        begin = end - DEFAULT_SPAN if since is None else since
        reach = reach_of(principal)

        def work(records: Records) -> Coverage:
            schedule = seen_by(records, principal, _require(records, schedule_id))
            runs = records.schedules.runs(
                RunFilter(schedule_id, frozenset({RunKind.TICK, RunKind.BACKFILL}), since=begin, until=end),
                Page(2 * MAX_COVERED + 1),
            )[0]
            if reach is None:
                counts = records.coverage.counts(schedule_id, begin, end)
            else:
                counts = records.coverage.counts_within(schedule_id, begin, end, reach)
            covered = _covered(schedule, seen_runs(principal, schedule, runs), counts)
            if len(covered) > MAX_COVERED:
                message = f"the span has more than {MAX_COVERED} ticks: choose a shorter one with from and to"
                raise BadInput(message)
            some = Page(min(page.limit, max(1, MAX_CELLS // max(1, len(covered)))), page.cursor)
            clients = records.coverage.list(CellFilter(schedule_id, begin, end, state, reach), some)
            return Coverage(begin, end, covered, clients)

        return await self._database.read(work)

    async def _change(
        self, principal: Principal, act: Act, schedule_id: str, change: Callable[[Records, Schedule], Schedule]
    ) -> ScheduleView:
        """Apply a person's change; without a difference nothing is written."""
        now = self._clock.now()

        def work(records: Records) -> ScheduleView:
            before = require_own(records, principal, _require(records, schedule_id))
            after = change(records, before)
            if after != before:
                after = replace(after, spec_version=before.spec_version + 1, updated_at=now, due_at=now)
                after = records.schedules.save(before, after)
                _record(records, principal, act, schedule_id, now)
                _append_changed(records, schedule_id, now)
            return _view(records, after)

        return await self._database.write(work)


def upcoming_ticks(spec: ScheduleSpec, after: float, count: int) -> list[Tick]:
    """The next `count` ticks, with their local times."""
    return [described(spec.cadence, at) for at in islice(ticks(spec.cadence, after), count)]


def new_schedule(schedule_id: str, spec: ScheduleSpec, now: float, created_by: str) -> Schedule:
    """A schedule that ticks from `now` (s since the epoch) on."""
    delay = decisions.share_of_jitter(schedule_id, spec.jitter)
    upcoming = next_tick(spec.cadence, now)
    return Schedule(
        schedule_id=schedule_id,
        spec=spec,
        created_at=now,
        updated_at=now,
        created_by=created_by,
        cursor=now,
        delay=delay,
        due_at=NEVER if upcoming is None else upcoming + delay,
    )


def _record(
    records: Records, principal: Principal, act: Act, schedule_id: str, now: float, detail: Detail | None = None
) -> None:
    record(records, principal, act, now, target=f"schedule:{schedule_id}", detail=detail)


def _append_changed(records: Records, schedule_id: str, now: float) -> None:
    """Append to the change log that the schedule changed; call it last in a transaction."""
    records.changes.append([ScheduleChanged(at=now, schedule_id=schedule_id)])


def _bound(spec: ScheduleSpec, principal: Principal) -> ScheduleSpec:
    return replace(spec, job=within_reach(spec.job, principal))


def _require(records: Records, schedule_id: str) -> Schedule:
    schedule = records.schedules.get(schedule_id)
    if schedule is None:
        raise UnknownSchedule(schedule_id)
    return schedule


def _view(records: Records, schedule: Schedule) -> ScheduleView:
    upcoming = next_tick(schedule.spec.cadence, schedule.cursor)
    if upcoming is not None and upcoming == schedule.skip_at:
        upcoming = next_tick(schedule.spec.cadence, upcoming)
    running = records.schedules.running(schedule.schedule_id)
    return ScheduleView(
        schedule,
        upcoming,
        records.schedules.count_queued(schedule.schedule_id),
        tuple(run.job_id for run in running if run.job_id is not None),
    )


def _ticks_of(schedule: Schedule, since: float, until: float, most: int) -> list[float]:
    """The ticks from `since` to `until`; `BadInput` when there are more than `most`."""
    # A tick is a whole second: half a second before `since` lies none that is later than that.
    found = takewhile(lambda at: at <= until, (at for at in ticks(schedule.spec.cadence, since - 0.5) if at >= since))
    ticked = list(islice(found, most + 1))
    if len(ticked) > most:
        message = f"the span has more than {most} ticks: choose a shorter one"
        raise BadInput(message)
    return ticked


def _with_jobs(records: Records, schedule_id: str, since: float, until: float) -> set[float]:
    """Nominal instants that have a job, or wait for one."""
    statuses = frozenset({RunStatus.FIRED, RunStatus.QUEUED, RunStatus.BACKFILLED})
    where = RunFilter(schedule_id, frozenset({RunKind.TICK, RunKind.BACKFILL}), statuses, since, until)
    runs, _ = records.schedules.runs(where, Page(2 * MAX_BACKFILL + 1))
    return {run.nominal_at for run in runs}


def _covered(schedule: Schedule, runs: Sequence[ScheduleRun], counts: CellCounts) -> list[CoveredTick]:
    """One entry a tick; of two runs of one tick the one that made a job."""
    by_tick: dict[float, ScheduleRun | None] = dict.fromkeys(counts)
    for run in runs:
        if (other := by_tick.get(run.nominal_at)) is None or other.job_id is None:
            by_tick[run.nominal_at] = run
    return [
        CoveredTick(described(schedule.spec.cadence, at), by_tick[at], dict(counts.get(at, {})))
        for at in sorted(by_tick)
    ]
