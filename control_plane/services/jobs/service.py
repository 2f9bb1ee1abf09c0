"""The use cases of jobs: create, look, steer.

Rule: every method takes the calling `Principal` first; input is checked here once, for every entry point. A verb is one
transaction; a repeat of it changes nothing.
"""

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from msgspec.structs import replace as changed

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act, instant_text
from control_plane.domain.errors import Forbidden, IllegalVerb
from control_plane.domain.gate.forecast import Forecast
from control_plane.domain.jobs.events import (
    DeadlineExtended,
    JobCancelRequested,
    JobEvent,
    PauseRequested,
    ResumeRequested,
    SpecificationChanged,
)
from control_plane.domain.jobs.four_eyes import OFF, FourEyes
from control_plane.domain.jobs.model import ExecutionState, Job, JobFile
from control_plane.domain.jobs.spec import MAX_JOB_DEADLINE, JobSpec, Rate, Window
from control_plane.domain.selectors import Selector
from control_plane.services.audit.recording import Detail, record
from control_plane.services.clients.beats import Beats
from control_plane.services.clients.reach import reach_of, within_reach
from control_plane.services.clients.sets import ShownSet, ShownSets
from control_plane.services.clients.targeting import resolve
from control_plane.services.errors import (
    BadInput,
    ConditionFailed,
    ConditionMissing,
    JobExists,
    JobRefused,
    UnknownJob,
    VersionConflict,
)
from control_plane.services.jobs import acts
from control_plane.services.jobs.checks import check_new
from control_plane.services.jobs.creation import any_selected, create_job
from control_plane.services.jobs.forecast import forecast_of
from control_plane.services.jobs.manifest import Manifest, manifest_of
from control_plane.services.jobs.turn import JobTools, JobTurn
from control_plane.services.jobs.views import ExecutionView, JobView, execution_views, is_of, job_views, sees_job
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.jobs import ExecutionFilter, FileFilter, JobFilter

T = TypeVar("T")

_TRIES: Final = 5
_DECISIONS: Final = frozenset({Act.JOB_APPROVE, Act.JOB_REJECT})
"""Acts that are recorded also where nothing waited for them: what a person decided counts."""

FIRST: Final = 10
"""Clients that a dry run names."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A new job. `request` is the digest of its body: the same id with the same digest is the same job."""

    spec: JobSpec
    request: str
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a job would do."""

    clients: int
    set: str
    first: tuple[str, ...]
    warnings: tuple[str, ...]
    spec: JobSpec
    forecast: Forecast | None
    """None when no client has own caps."""


@dataclass(frozen=True, slots=True)
class ActedOn:
    """The job after an act, and on how many executions it acted."""

    view: JobView
    executions: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Which executions a bulk act is for; None means any. `shown` is the set that the caller saw."""

    states: frozenset[ExecutionState] | None = None
    reason_code: str | None = None
    client_ids: frozenset[str] | None = None
    shown: ShownSet | None = None

    def of(self, job_id: str) -> ExecutionFilter:
        """The filter within one job."""
        return ExecutionFilter(job_id, self.states, self.reason_code, self.client_ids)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may change of a job that runs; `given` are the names of the members that the caller gave."""

    given: frozenset[str]
    rate: Rate | None = None
    max_running: int | None = None
    priority: int = 0
    windows: tuple[Window, ...] = ()
    deadline: float = 0.0
    """An instant."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The caller of an act, and what the record of it shows."""

    by: Principal
    act: Act
    detail: Detail = field(default_factory=dict)


class JobService:
    """What a caller may do with jobs. `poke` wakes the runner of this process after a commit."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        beats: Beats,
        tools: JobTools,
        poke: Callable[[], None],
        sets: ShownSets | None = None,
        four_eyes: FourEyes = OFF,
    ) -> None:
        self._database = database
        self._clock = clock
        self._beats = beats
        self._tools = tools
        self._poke = poke
        self._sets = sets or ShownSets()
        self._four_eyes = four_eyes

    # --- create and look ---------------------------------------------------------------------------------------------

    async def create(
        self, principal: Principal, new: JobRequest, shown: ShownSet | None = None
    ) -> tuple[JobView, bool]:
        """The job, and whether this call made it: False for a repeat of the same request.

        `JobExists` when its id is that of another request; `UnknownClient`, `BadInput`, `SelectorError`; `SetChanged`
        when its clients are not those that were shown.
        """
        job_id, now = new.job_id or secrets.token_hex(8), self._clock.now()

        new, reach = _bound(new, principal), reach_of(principal)

        def work(records: Records) -> tuple[JobView, bool]:
            if (known := _known(records, job_id, new)) is not None:
                return job_views(records, [known], reach)[0], False
            targets = new.spec.targets
            client_ids = resolve(records, targets.clients, targets.selector, targets.reach).client_ids
            if shown is not None:
                self._sets.require(shown, client_ids, reach)
            job = create_job(
                records, job_id, new.spec, now, principal.subject, client_ids=client_ids, four_eyes=self._four_eyes
            )
            if not job.clients and new.spec.targets.mode == "snapshot":
                message = "targets: no client matches"
                raise BadInput(message)
            job = records.jobs.save(job, changed(job, request=new.request))
            facts = _facts(new.spec)
            record(records, principal, Act.JOB_CREATE, now, target=f"job:{job_id}", clients=client_ids, detail=facts)
            return job_views(records, [job], reach)[0], True

        # What looks at every client is a separate read: a write of SQLite holds up all others.
        await self._database.read(
            lambda records: _known(records, job_id, new) or check_new(records, job_id, new.spec, now)
        )
        made = await self._write(work)
        self._poke()
        return made

    async def try_out(self, principal: Principal, new: JobRequest) -> DryRun:
        """Every check of `create`, with its errors; makes nothing."""
        job_id, now = new.job_id or "new", self._clock.now()
        new, reach = _bound(new, principal), reach_of(principal)

        def work(records: Records) -> DryRun:
            _known(records, job_id, new)
            clients, warnings = check_new(records, job_id, new.spec, now)
            named = self._sets.shown(clients, reach)
            expected = forecast_of(records, new.spec, clients, now)
            spec = self._four_eyes.tightened(new.spec, selected=any_selected(records, self._four_eyes, clients))
            return DryRun(named.count, named.set, clients[:FIRST], warnings, spec, expected)

        return await self._database.read(work)

    async def job(self, principal: Principal, job_id: str) -> JobView:
        """One job; `UnknownJob`."""
        return await self._database.read(lambda records: _view(records, job_id, reach_of(principal)))

    async def jobs(self, principal: Principal, where: JobFilter, page: Page) -> tuple[list[JobView], str | None]:
        """Jobs, newest first, and the cursor of the next page; `BadInput` for a malformed cursor."""
        reach = reach_of(principal)

        def work(records: Records) -> tuple[list[JobView], str | None]:
            found, cursor = records.jobs.list(dataclasses.replace(where, reach=reach), page)
            return job_views(records, found, reach), cursor

        return await self._database.read(work)

    async def executions(
        self, principal: Principal, where: ExecutionFilter, page: Page
    ) -> tuple[list[ExecutionView], str | None, ShownSet | None]:
        """Executions by client id, the cursor of the next page, and on the first page of a filter the set that matches.

        Without a filter there is no set: it would read every execution, and the job has their number.
        """
        now = self._clock.now()
        names_set = page.cursor is None and where != ExecutionFilter(where.job_id)
        reach = reach_of(principal)
        where = dataclasses.replace(where, reach=reach)

        def work(records: Records) -> tuple[list[ExecutionView], str | None, tuple[str, ...] | None]:
            job = _view(records, where.job_id, reach).job
            found, cursor = records.jobs.executions.list(where, page)
            clients = records.clients.among([one.client_id for one in found])
            everyone = tuple(records.jobs.executions.client_ids(where)) if names_set else None
            return execution_views(job, found, clients, self._beats, now), cursor, everyone

        views, cursor, everyone = await self._database.read(work)
        return views, cursor, None if everyone is None else self._sets.shown(everyone, reach)

    async def files(self, principal: Principal, where: FileFilter, page: Page) -> tuple[list[JobFile], str | None]:
        """Selected files by client id and number; `UnknownJob`, `BadInput` for a malformed cursor."""
        reach = reach_of(principal)

        def work(records: Records) -> tuple[list[JobFile], str | None]:
            _require(records, where.job_id, reach)
            return records.jobs.files.list(dataclasses.replace(where, reach=reach), page)

        found = await self._database.read(work)
        await self._record_read(principal, Act.JOB_FILES, where.job_id)
        return found

    async def manifest(self, principal: Principal, where: ExecutionFilter, page: Page) -> Manifest:
        """What the job would send; `UnknownJob`, `BadInput` for a malformed cursor."""
        now, reach = self._clock.now(), reach_of(principal)
        where = dataclasses.replace(where, reach=reach)
        found = await self._database.read(
            lambda records: manifest_of(records, _view(records, where.job_id, reach), where, page, now)
        )
        await self._record_read(principal, Act.JOB_MANIFEST, where.job_id)
        return found

    async def _record_read(self, principal: Principal, act: Act, job_id: str) -> None:
        """Record that the caller read names of files, before the answer goes out."""
        now = self._clock.now()
        await self._database.write(lambda records: record(records, principal, act, now, target=f"job:{job_id}"))

    # --- steer -------------------------------------------------------------------------------------------------------

    async def pause(self, principal: Principal, job_id: str, version: int | None = None) -> ActedOn:
        """Begin nothing more, grant nothing more; `UnknownJob`, `JobRefused`, `ConditionFailed`."""
        return await self._verb(_Asked(principal, Act.JOB_PAUSE), job_id, version, lambda now: PauseRequested(now=now))

    async def resume(self, principal: Principal, job_id: str, version: int | None = None) -> ActedOn:
        """Resume; errors as for `pause`."""
        return await self._verb(
            _Asked(principal, Act.JOB_RESUME), job_id, version, lambda now: ResumeRequested(now=now)
        )

    async def cancel(self, principal: Principal, job_id: str, version: int | None = None) -> ActedOn:
        """End it; errors as for `pause`."""
        asked = _Asked(principal, Act.JOB_CANCEL)
        return await self._verb(asked, job_id, version, lambda now: JobCancelRequested(now=now, by=principal.subject))

    async def extend(self, principal: Principal, job_id: str, version: int | None, deadline: float) -> ActedOn:
        """Move the deadline to an instant (s); `ConditionMissing` without a version, `BadInput`."""
        _require_version(version)
        return await self._verb(
            _Asked(principal, Act.JOB_EXTEND, detail={"deadline": instant_text(deadline)}),
            job_id,
            version,
            lambda now: DeadlineExtended(now=now, deadline=deadline),
            lambda job, now: _check_deadline(job, deadline, now),
        )

    async def tune(self, principal: Principal, job_id: str, version: int | None, tuning: Tuning) -> ActedOn:
        """Change how it continues; errors as for `extend`."""
        _require_version(version)

        def act(turn: JobTurn, job: Job) -> Sequence[str]:
            deadline = job.deadline
            if "deadline" in tuning.given:
                deadline = tuning.deadline
                _check_deadline(job, deadline, turn.now)
            event = SpecificationChanged(now=turn.now, spec=_tuned(job.spec, tuning), deadline=deadline)
            turn.take_job(job)
            turn.apply_to_job(job_id, event)
            return ()

        asked = _Asked(principal, Act.JOB_CHANGE, detail={"members": " ".join(sorted(tuning.given))})
        return await self._act(asked, job_id, version, act)

    async def approve(
        self,
        principal: Principal,
        job_id: str,
        *,
        client_ids: frozenset[str] | None,
        but: frozenset[str],
        as_of: float,
        later: bool,
        shown: ShownSet | None = None,
    ) -> ActedOn:
        """Approve what was listed up to `as_of` (s), of these clients or of all, but not of `but`.

        `later`: what is listed from now on needs no approval. `JobRefused` when a named client's files were listed
        again since, or its execution is over; `SetChanged` when the clients that wait are no longer those of `shown`.
        `Forbidden` for the person who created the job, where a second one must approve.
        """

        def act(turn: JobTurn, job: Job) -> Sequence[str]:
            if self._four_eyes.is_on and job.created_by == principal.subject:
                message = "you requested this job: a second person must approve it"
                raise Forbidden(message)
            if shown is not None:
                waiting = frozenset({ExecutionState.AWAITING_APPROVAL})
                self._chosen(turn.records, principal, job_id, Choice(waiting, shown=shown))
            where = ExecutionFilter(job_id, client_ids=client_ids, reach=reach_of(principal))
            return acts.approve(turn, job, where, but=but, as_of=as_of, later=later)

        facts: Detail = {"as_of": instant_text(as_of), "later": later, "but": " ".join(sorted(but))}
        return await self._act(_Asked(principal, Act.JOB_APPROVE, facts), job_id, None, act)

    async def reject(self, principal: Principal, job_id: str, choice: Choice) -> ActedOn:
        """Refuse what the chosen clients would send; `JobRefused`, `SetChanged`."""
        return await self._act(
            _Asked(principal, Act.JOB_REJECT),
            job_id,
            None,
            lambda turn, job: acts.reject(
                turn, job, self._chosen(turn.records, principal, job_id, choice), principal.subject
            ),
        )

    async def retry(
        self, principal: Principal, job_id: str, version: int | None, choice: Choice, deadline: float | None
    ) -> ActedOn:
        """Repeat the chosen executions that are over; `deadline` (s) is needed once the old one passed.

        `ConditionMissing`, `ConditionFailed`, `SetChanged`, `JobRefused`, `BadInput`.
        """
        _require_version(version)

        def act(turn: JobTurn, job: Job) -> Sequence[str]:
            if deadline is not None:
                _check_deadline(job, deadline, turn.now)
            elif job.deadline <= turn.now:
                message = "deadline: the deadline of the job has passed: give a new one"
                raise BadInput(message)
            return acts.retry(turn, job, self._chosen(turn.records, principal, job_id, choice), deadline)

        return await self._act(_Asked(principal, Act.JOB_RETRY), job_id, version, act)

    async def add_clients(
        self, principal: Principal, job_id: str, clients: Sequence[str], selector: str | None
    ) -> ActedOn:
        """Add clients to a snapshot; one that has an execution is left as it is. `UnknownClient`, `JobRefused`.

        Where a second person must approve, `Forbidden` for another than who created the job: that one could approve
        what it added; and once what is listed later is approved: no one would look at the new clients.
        """

        def act(turn: JobTurn, job: Job) -> Sequence[str]:
            if self._four_eyes.is_on and job.created_by != principal.subject:
                message = "another person requested this job, and must add the clients: you may approve it"
                raise Forbidden(message)
            if self._four_eyes.is_on and job.approve_later:
                message = "a second person approved all that this job lists, for the clients it has: create another one"
                raise Forbidden(message)
            if job.spec.targets.mode != "snapshot":
                message = "a continuous job takes the clients that match: it has no others"
                raise JobRefused(message, job.state)
            added = resolve(turn.records, clients, selector, principal.clients).client_ids
            if job.spec.approval.mode != "always" and any_selected(turn.records, self._four_eyes, added):
                message = "a second person must approve what some of these clients send: create another job for them"
                raise Forbidden(message)
            return acts.add(turn, job, added)

        asked = _Asked(principal, Act.JOB_ADD_CLIENTS, {"targets": " ".join(clients), "selector": selector or ""})
        return await self._act(asked, job_id, None, act)

    async def _verb(
        self,
        asked: _Asked,
        job_id: str,
        version: int | None,
        event_at: Callable[[float], JobEvent],
        check: Callable[[Job, float], None] | None = None,
    ) -> ActedOn:
        def act(turn: JobTurn, job: Job) -> Sequence[str]:
            if check is not None:
                check(job, turn.now)
            turn.take_job(job)
            turn.apply_to_job(job_id, event_at(turn.now))
            return ()

        return await self._act(asked, job_id, version, act)

    async def _act(
        self, asked: _Asked, job_id: str, version: int | None, act: Callable[[JobTurn, Job], Sequence[str]]
    ) -> ActedOn:
        """One act in one transaction; `version` is that of the specification that the caller saw.

        `act` returns the clients of the executions that it acted on: the record names them. An act that changes neither
        one of them nor the job leaves none, unless it is a decision.

        `Forbidden` for a job that concerns clients outside of the caller's reach.
        """
        reach = reach_of(asked.by)

        def work(records: Records) -> ActedOn:
            turn = JobTurn(records, self._tools, self._clock.now())
            job = _require(records, job_id, reach)
            _require_own(records, job, reach)
            clients = act(turn, _at_version(job, version))
            if clients or asked.act in _DECISIONS or turn.jobs.get(job_id, job) != job:
                target = f"job:{job_id}"
                record(records, asked.by, asked.act, turn.now, target=target, clients=clients, detail=asked.detail)
            turn.finish()
            return ActedOn(_view(records, job_id, reach), len(clients))

        try:
            acted = await self._write(work)
        except IllegalVerb as error:
            view = await self._database.read(lambda records: _view(records, job_id, reach))
            raise JobRefused(str(error), view.job.state, view.job.reason, view.job.next_wake_at or None) from error
        self._poke()
        return acted

    async def _write(self, work: Callable[[Records], T]) -> T:
        """Run `work` again while the runner, or another replica, changes the rows between its read and its write."""
        for _ in range(_TRIES - 1):
            try:
                return await self._database.write(work)
            except VersionConflict:
                continue
        return await self._database.write(work)

    def _chosen(self, records: Records, principal: Principal, job_id: str, choice: Choice) -> tuple[str, ...]:
        """The clients of a bulk act; `SetChanged` when they are no longer those that the caller saw."""
        where = dataclasses.replace(choice.of(job_id), reach=reach_of(principal))
        found = tuple(records.jobs.executions.client_ids(where))
        if choice.shown is not None:
            self._sets.require(choice.shown, found, where.reach)
        return found


def _facts(spec: JobSpec) -> Detail:
    """What a record shows of a new job."""
    targets = {"mode": spec.targets.mode, "selector": spec.targets.selector or ""}
    return {**targets, "paths": " ".join(spec.files.paths), "after": spec.after, "reason": spec.reason}


def _require(records: Records, job_id: str, reach: Selector | None) -> Job:
    job = records.jobs.get(job_id)
    if job is None or (reach is not None and not sees_job(records, job, reach)):
        raise UnknownJob(job_id)
    return job


def _require_own(records: Records, job: Job, reach: Selector | None) -> None:
    """`Forbidden` unless the job can touch no client outside of `reach`, now or later.

    Of a job that was made with another reach nor may a client that is over be outside: the end of the whole job, and
    the failures of its schedule, are about that client too.
    """
    if reach is None:
        return
    own = is_of(job, reach)
    takes_more = job.spec.targets.mode == "continuous" and not own
    if takes_more or records.jobs.goes_beyond(job.job_id, reach, open_only=own):
        message = f"job {job.job_id!r} has clients that are not among the token's: {reach.text}"
        raise Forbidden(message)


def _bound(new: JobRequest, principal: Principal) -> JobRequest:
    return dataclasses.replace(new, spec=within_reach(new.spec, principal))


def _known(records: Records, job_id: str, new: JobRequest) -> Job | None:
    """The job of this id, which the same request made; `JobExists` when another one did."""
    known = records.jobs.get(job_id)
    if known is not None and (known.request != new.request or known.spec.targets.reach != new.spec.targets.reach):
        message = f"job {job_id!r} exists, and was requested with another body"
        raise JobExists(message)
    return known


def _view(records: Records, job_id: str, reach: Selector | None) -> JobView:
    view = job_views(records, [_require(records, job_id, None)], reach)[0]
    if reach is not None and not view.counts and not is_of(view.job, reach):
        raise UnknownJob(job_id)
    return view


def _require_version(version: int | None) -> None:
    if version is None:
        message = "send If-Match with the version that the job showed: this changes what others may have changed"
        raise ConditionMissing(message)


def _at_version(job: Job, version: int | None) -> Job:
    if version is not None and version != job.spec_version:
        raise ConditionFailed(job.spec_version)
    return job


def _check_deadline(job: Job, deadline: float, now: float) -> None:
    if deadline <= now:
        message = "deadline: has passed already"
        raise BadInput(message)
    # A run that is repeated after its end may be later than any span from the creation.
    first = job.open and job.run == 1
    if deadline > (job.created_at if first else now) + MAX_JOB_DEADLINE:
        message = f"deadline: is more than 30 days {'after the creation' if first else 'away'}"
        raise BadInput(message)


def _tuned(spec: JobSpec, tuning: Tuning) -> JobSpec:
    rollout = spec.rollout
    if "rate" in tuning.given:
        rollout = changed(rollout, rate=tuning.rate)
    if "max_running" in tuning.given:
        rollout = changed(rollout, max_running=tuning.max_running)
    spec = changed(spec, rollout=rollout)
    if "priority" in tuning.given:
        spec = changed(spec, priority=tuning.priority)
    return changed(spec, windows=tuning.windows) if "windows" in tuning.given else spec
