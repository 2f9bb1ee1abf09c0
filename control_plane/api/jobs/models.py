"""The shapes of REST's answers about jobs.

Rule: as in `api.models`: an answer always has all its members. `spec` has the form of the request, so that what one
control plane shows, another one takes.
"""

from typing import Any, Literal, Self

from msgspec import to_builtins
from pydantic import ConfigDict

from control_plane.api.jobs import examples
from control_plane.api.models import Instant, Output, Period, Reason
from control_plane.domain.gate.forecast import Forecast
from control_plane.domain.jobs.model import (
    ApprovalState,
    ExecutionState,
    FileOutcome,
    Job,
    JobFile,
    JobOutcome,
    JobState,
    JobTotals,
)
from control_plane.domain.jobs.spec import JobSpec, Rate
from control_plane.presentation import instant, known_instant
from control_plane.services.clients.sets import ShownSet
from control_plane.services.jobs.manifest import Manifest, ManifestRow
from control_plane.services.jobs.service import ActedOn, DryRun
from control_plane.services.jobs.views import ExecutionView, JobView

_MINUTE = 60.0


class FileSums(Output):
    """Sums over the executions: files to be sent or sent, and those of them that are proven."""

    files: int
    bytes: int
    proven: int
    proven_bytes: int

    @classmethod
    def of(cls, totals: JobTotals) -> Self:
        """The sums of a job."""
        return cls(files=totals.files, bytes=totals.bytes, proven=totals.proven, proven_bytes=totals.proven_bytes)


class JobRow(Output):
    """One job in a list. `version` is that of its specification: `ETag` and `If-Match` hold it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB_ROW]})

    job_id: str
    state: JobState
    outcome: JobOutcome | None
    approval: ApprovalState
    reason: Reason | None
    clients: int
    executions: dict[ExecutionState, int]
    totals: FileSums
    version: int
    schedule_id: str | None
    nominal_at: Instant | None
    created_at: Instant
    created_by: str
    deadline: Instant | None
    ended_at: Instant | None

    @classmethod
    def of(cls, view: JobView) -> Self:
        """The job of `view`, in short."""
        return cls(**_row(view))


class ReasonCount(Output):
    """How many executions are in one state for one reason."""

    state: ExecutionState
    reason_code: str
    executions: int


class JobStage(Output):
    """The stage of a rollout, counted from 1, and since when."""

    number: int
    of: int
    percent: float
    since: Instant | None


class JobDocument(JobRow):
    """One job: its roll-up, and its specification in the form of the request."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB]})

    ending: JobState | None
    run: int
    stage: JobStage | None
    reasons: list[ReasonCount]
    spec: dict[str, Any]

    @classmethod
    def of(cls, view: JobView) -> Self:
        """The job of `view`."""
        job = view.job
        reasons = [
            ReasonCount(state=state, reason_code=code, executions=n)
            for (state, code), n in sorted(view.counts.items(), key=lambda pair: (-pair[1], pair[0]))
            if n
        ]
        return cls(
            **_row(view),
            ending=job.ending,
            run=job.run,
            stage=_stage(job),
            reasons=reasons,
            spec=spec_document(job.spec),
        )


class JobPageDocument(Output):
    """Jobs, newest first; `cursor` fetches the next page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB_PAGE]})

    jobs: list[JobRow]
    cursor: str | None


class CrossingDocument(Output):
    """So many devices would pass their own cap of a `period` on `date`, a day in the zone of the job."""

    date: str
    period: Period
    clients: int
    first: list[str]


class ForecastDocument(Output):
    """What is expected of the clients whose devices have caps of their own (`limited`), until these are reset.

    `by_history` are judged by what they sent in the last jobs of the same files, `by_limit` by `max_bytes`, `unknown`
    not at all. `bytes` is the sum.
    """

    limited: int
    by_history: int
    by_limit: int
    unknown: int
    bytes: int
    crossings: list[CrossingDocument]

    @classmethod
    def of(cls, found: Forecast | None) -> Self | None:
        """The forecast; None where no device has a cap."""
        return None if found is None else cls.model_validate(to_builtins(found))


class DryRunDocument(Output):
    """What a job would do: the clients that it matches, the first ten of them, and what may not be meant."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DRY_RUN]})

    dry_run: Literal[True] = True
    clients: int
    set: str
    first: list[str]
    warnings: list[str]
    spec: dict[str, Any]
    forecast: ForecastDocument | None

    @classmethod
    def of(cls, found: DryRun) -> Self:
        """The result of the checks."""
        return cls(
            clients=found.clients,
            set=found.set,
            first=list(found.first),
            warnings=list(found.warnings),
            spec=spec_document(found.spec),
            forecast=ForecastDocument.of(found.forecast),
        )


class ExecutionDocument(Output):
    """A job on one client. Sizes are bytes; `matched_…` is what the device found, before limits."""

    client_id: str
    state: ExecutionState
    reason: Reason | None
    attempt: int
    approved: bool
    matched_files: int
    matched_bytes: int
    left_out: int
    unchanged: int
    files: int
    bytes: int
    proven: int
    proven_bytes: int
    failed: int
    rejected: int
    began_at: Instant | None
    listed_at: Instant | None
    ended_at: Instant | None
    updated_at: Instant

    @classmethod
    def of(cls, view: ExecutionView) -> Self:
        """The execution of `view`."""
        one = view.execution
        return cls(
            client_id=one.client_id,
            state=one.state,
            reason=Reason.of(view.reason, view.next_wake_at),
            attempt=one.attempt,
            approved=one.approved,
            matched_files=one.matched_files,
            matched_bytes=one.matched_bytes,
            left_out=one.left_out,
            unchanged=one.unchanged,
            files=one.files,
            bytes=one.bytes,
            proven=one.proven,
            proven_bytes=one.proven_bytes,
            failed=one.failed,
            rejected=one.rejected,
            began_at=instant(one.began_at),
            listed_at=instant(one.listed_at),
            ended_at=instant(one.ended_at),
            updated_at=known_instant(one.updated_at),
        )


class ExecutionPageDocument(Output):
    """Executions by client id. The first page of a filter has `count` and `set` of all that match."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EXECUTION_PAGE]})

    executions: list[ExecutionDocument]
    count: int | None
    set: str | None
    cursor: str | None

    @classmethod
    def of(cls, views: list[ExecutionView], cursor: str | None, shown: ShownSet | None) -> Self:
        """One page."""
        return cls(
            executions=[ExecutionDocument.of(view) for view in views],
            count=None if shown is None else shown.count,
            set=None if shown is None else shown.set,
            cursor=cursor,
        )


class JobFileDocument(Output):
    """A selected file. `outcome` is null while nothing is decided; `key` is known once an upload exists."""

    client_id: str
    number: int
    path: str
    size: int
    mtime_ns: int
    outcome: FileOutcome | None
    reason: Reason | None
    upload_id: str | None
    key: str | None

    @classmethod
    def of(cls, file: JobFile) -> Self:
        """The row of one file."""
        return cls(
            client_id=file.client_id,
            number=file.n,
            path=file.path,
            size=file.size,
            mtime_ns=file.mtime_ns,
            outcome=file.outcome,
            reason=Reason.of(file.reason),
            upload_id=file.upload_id,
            key=file.key,
        )


class JobFilePageDocument(Output):
    """Files by client id and number."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.JOB_FILE_PAGE]})

    files: list[JobFileDocument]
    cursor: str | None


class ManifestClient(Output):
    """What one client would send; `minutes` at the rate of its last upload, null without one."""

    client_id: str
    state: ExecutionState
    approved: bool
    files: int
    bytes: int
    left_out: int
    minutes: float | None

    @classmethod
    def of(cls, row: ManifestRow) -> Self:
        """One row."""
        one = row.execution
        return cls(
            client_id=one.client_id,
            state=one.state,
            approved=one.approved,
            files=one.files,
            bytes=one.bytes,
            left_out=one.left_out,
            minutes=None if row.seconds is None else round(row.seconds / _MINUTE, 1),
        )


class ManifestDocument(Output):
    """What would be sent, as it was at `as_of`: totals, the ten clients with the most bytes, the ten largest files.

    `clients` is one page, by id.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MANIFEST]})

    as_of: Instant
    approval: ApprovalState
    totals: FileSums
    waiting: int
    largest: list[ManifestClient]
    largest_files: list[JobFileDocument]
    clients: list[ManifestClient]
    cursor: str | None

    @classmethod
    def of(cls, found: Manifest) -> Self:
        """The manifest of a job."""
        return cls(
            as_of=known_instant(found.as_of),
            approval=found.job.approval,
            totals=FileSums.of(found.totals),
            waiting=found.waiting,
            largest=[ManifestClient.of(row) for row in found.largest],
            largest_files=[JobFileDocument.of(file) for file in found.largest_files],
            clients=[ManifestClient.of(row) for row in found.clients],
            cursor=found.cursor,
        )


class ActDocument(Output):
    """The job after an act, and on how many executions it acted."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ACT]})

    acted_on: int
    job: JobDocument

    @classmethod
    def of(cls, found: ActedOn) -> Self:
        """The result of an act."""
        return cls(acted_on=found.executions, job=JobDocument.of(found.view))


def spec_document(spec: JobSpec) -> dict[str, Any]:
    """The specification in the form of the request: what it holds, `bodies.JobBody` reads as the same."""
    document: dict[str, Any] = to_builtins(spec)
    # No request can name it: the token decides.
    del document["targets"]["reach"]
    options: dict[str, Any] = {
        "priority": spec.options.priority,
        "max_bytes_per_second": spec.options.max_bytes_per_second,
        "on_change": spec.options.on_change,
        "compression": spec.options.compression,
        "give_up_after": spec.options.give_up_after,
        "encrypt_to": list(spec.options.encrypt_to),
    }
    approval: object = spec.approval.mode
    if spec.approval.mode == "limits":
        approval = {"bytes_over": spec.approval.bytes_over, "clients_over": spec.approval.clients_over}
    rollout = {
        "per_minute": _rate(spec.rollout.rate),
        "max_running": spec.rollout.max_running,
        "stages": document["rollout"]["stages"],
    }
    windows = [
        {"cron": window.cron, "for": window.seconds, "zone": window.zone, "on_end": window.on_end}
        for window in spec.windows
    ]
    return {**document, "options": options, "approval": approval, "rollout": rollout, "windows": windows}


def _rate(rate: Rate | None) -> int | str | None:
    if rate is None:
        return None
    return rate.count if rate.seconds == _MINUTE else f"{rate.count}/{rate.seconds:.0f}s"


def _row(view: JobView) -> dict[str, Any]:
    job = view.job
    return {
        "job_id": job.job_id,
        "state": job.state,
        "outcome": job.outcome,
        "approval": job.approval,
        "reason": Reason.of(job.reason, (job.next_wake_at or None) if job.open else None),
        "clients": job.clients,
        "executions": {state: view.count(state) for state in ExecutionState},
        "totals": FileSums.of(view.totals),
        "version": job.spec_version,
        "schedule_id": job.schedule_id,
        "nominal_at": instant(job.nominal_at),
        "created_at": known_instant(job.created_at),
        "created_by": job.created_by,
        "deadline": instant(job.deadline),
        "ended_at": instant(job.ended_at),
    }


def _stage(job: Job) -> JobStage | None:
    stages = job.spec.rollout.stages
    if not stages:
        return None
    number = min(job.stage, len(stages) - 1)
    return JobStage(
        number=number + 1, of=len(stages), percent=stages[number].percent, since=instant(job.stage_since or None)
    )
