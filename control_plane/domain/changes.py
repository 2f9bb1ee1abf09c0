"""Committed changes as typed facts: the entries of the durable change log.

Rule: a change is appended, and numbered, in the transaction that commits it. Readers (event streams, webhooks, audit)
receive changes in the order of their numbers, on every replica. A `name` that was released keeps its meaning.
"""

from dataclasses import dataclass
from typing import ClassVar

from control_plane.domain.uploads.model import State


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadCreated:
    """An upload was created at `at` (s since the epoch): by a use case, a job, or the command of another sender."""

    name: ClassVar[str] = "upload.created"
    subject: ClassVar[str] = "upload_id"
    at: float
    client_id: str
    upload_id: str
    job_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStateChanged:
    """An upload changed from the state `was` to `state` at `at` (s since the epoch).

    `error` is the error code of an upload that failed, was rejected or expired; in other states None, except that an
    observed upload has the code of the last error that its client reported.
    """

    name: ClassVar[str] = "upload.state_changed"
    subject: ClassVar[str] = "upload_id"
    at: float
    client_id: str
    upload_id: str
    attempt: int
    was: State
    state: State
    error: str | None
    job_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadMismatched:
    """A verification at `at` (s since the epoch) found that an object is not what was proven; `text` says how."""

    name: ClassVar[str] = "upload.mismatched"
    subject: ClassVar[str] = "upload_id"
    at: float
    client_id: str
    upload_id: str
    s3_key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStateChanged:
    """A job changed from the state `was` to `state` at `at` (s since the epoch); `was` is None for a new job.

    `outcome` is None until the job has ended.
    """

    name: ClassVar[str] = "job.state_changed"
    subject: ClassVar[str] = "job_id"
    at: float
    job_id: str
    was: str | None
    state: str
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStateChanged:
    """A job's execution on one client changed from `was` to `state` at `at` (s since the epoch).

    `was` is None for a new execution; `reason` is a reason code.
    """

    name: ClassVar[str] = "execution.state_changed"
    subject: ClassVar[str] = "job_id"
    at: float
    job_id: str
    client_id: str
    attempt: int
    was: str | None
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanged:
    """The specification, the deadline or the approval of a job changed at `at` (s since the epoch)."""

    name: ClassVar[str] = "job.changed"
    subject: ClassVar[str] = "job_id"
    at: float
    job_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleTicked:
    """The run of a schedule for `nominal_at` came to `status` at `at` (both s since the epoch).

    `job_id` is None for a run that made no job.
    """

    name: ClassVar[str] = "schedule.tick"
    subject: ClassVar[str] = "schedule_id"
    at: float
    schedule_id: str
    kind: str
    nominal_at: float
    status: str
    job_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChanged:
    """A schedule was made, changed or deleted, or cells of its coverage changed, at `at` (s since the epoch)."""

    name: ClassVar[str] = "schedule.changed"
    subject: ClassVar[str] = "schedule_id"
    at: float
    schedule_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConnected:
    """A connection of the client began: its birth was applied at `at` (s since the epoch)."""

    name: ClassVar[str] = "client.connected"
    subject: ClassVar[str] = "client_id"
    at: float
    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDisconnected:
    """The client's connection ended: its `offline` was applied at `at` (s since the epoch).

    A client has no such change when its beats stop without an `offline`.
    """

    name: ClassVar[str] = "client.disconnected"
    subject: ClassVar[str] = "client_id"
    at: float
    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientForgotten:
    """An operator deleted the client at `at` (s since the epoch)."""

    name: ClassVar[str] = "client.forgotten"
    subject: ClassVar[str] = "client_id"
    at: float
    client_id: str


Change = (
    UploadCreated
    | UploadStateChanged
    | UploadMismatched
    | JobStateChanged
    | JobChanged
    | ExecutionStateChanged
    | ScheduleTicked
    | ScheduleChanged
    | ClientConnected
    | ClientDisconnected
    | ClientForgotten
)


def subject_id(change: Change) -> str:
    """The id of what changed: of an upload, a job (also for its executions), a schedule or a client."""
    found: str = getattr(change, change.subject)
    return found


def subject_of(change: Change) -> str:
    """What changed, in one text: the client, then the upload or the job; changes of one subject are read in order."""
    client_id = getattr(change, "client_id", "")
    return "/".join(dict.fromkeys(part for part in (client_id, subject_id(change)) if part))


@dataclass(frozen=True, slots=True)
class NumberedChange:
    """A committed change. Numbers rise in commit order, with gaps allowed."""

    number: int
    change: Change
