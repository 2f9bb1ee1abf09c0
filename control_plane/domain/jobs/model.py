"""One job, its execution on one client, and the files of that execution, as they are stored.

Rule: plain data; `machine` and `executions` change it. Instants are seconds since the epoch, sizes bytes.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Struct

from control_plane.domain.jobs.spec import JobSpec
from control_plane.domain.reasons import Reason, ReasonCode

MAX_OPEN_FILES: Final = 8
"""Open uploads of one execution."""

SELECTION_PAGE: Final = 500
"""Files in one page of a selection."""


class JobState(StrEnum):
    """The states of a job."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"
    EXPIRED = "expired"


JOB_TERMINAL: Final = frozenset({JobState.COMPLETED, JobState.CANCELLED, JobState.ABORTED, JobState.EXPIRED})
JOB_OPEN: Final = frozenset(JobState) - JOB_TERMINAL


class JobOutcome(StrEnum):
    """How a job that is over went: every execution succeeded or had nothing to send, some did, none did."""

    ALL = "all"
    PARTIAL = "partial"
    NONE = "none"


class ApprovalState(StrEnum):
    """Whether a person has to approve, or has approved, what the job sends."""

    NOT_NEEDED = "not_needed"
    PENDING = "pending"
    GRANTED = "granted"


class ExecutionState(StrEnum):
    """The states of a job on one client."""

    QUEUED = "queued"
    LISTING = "listing"
    AWAITING_APPROVAL = "awaiting_approval"
    UPLOADING = "uploading"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REMOVED = "removed"
    SKIPPED = "skipped"


RUNNING_EXECUTIONS: Final = frozenset({ExecutionState.LISTING, ExecutionState.UPLOADING})
"""States that count against `max_running`."""

EXECUTION_OPEN: Final = RUNNING_EXECUTIONS | {ExecutionState.QUEUED, ExecutionState.AWAITING_APPROVAL}
EXECUTION_TERMINAL: Final = frozenset(ExecutionState) - EXECUTION_OPEN
DONE: Final = frozenset({ExecutionState.SUCCEEDED, ExecutionState.SKIPPED})
"""Ends of an execution that leave nothing to send."""


class FileOutcome(StrEnum):
    """What became of a selected file. `left_out` is beyond the limits of the job, or was not begun before its end."""

    PROVEN = "proven"
    FAILED = "failed"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    LEFT_OUT = "left_out"


class ExecutionKey(NamedTuple):
    """The identity of an execution."""

    job_id: str
    client_id: str


class Job(Struct, frozen=True, kw_only=True):
    """One request over a fleet.

    `state` and `ending`: what it becomes once it is over; the first of cancel, deadline and abort wins. `stage` counts
    from 0, `stage_below` is the `place` up to which executions may begin. `held_seconds` is how long it was paused in
    all, before `held_since`.
    """

    job_id: str
    spec: JobSpec
    created_at: float
    deadline: float
    """The instant at which it expires."""
    created_by: str = ""
    spec_version: int = 1
    """Rises with each PATCH and verb."""
    version: int = 0
    """Number of commits since the row was inserted, for compare-and-set."""
    state: JobState = JobState.RUNNING
    ending: JobState | None = None
    outcome: JobOutcome | None = None
    approval: ApprovalState = ApprovalState.NOT_NEEDED
    approve_later: bool = False
    """Whether executions that are listed later need no further approval."""
    ended_at: float | None = None
    run: int = 1
    """How often it began: a retry after its end is the next run."""
    stage: int = 0
    stage_since: float = 0.0
    stage_below: float = 1.0
    held_seconds: float = 0.0
    held_since: float | None = None
    reason: Reason | None = None
    """What holds back all that is not begun, or why it ended."""
    next_wake_at: float = 0.0
    """When the runner looks at it next."""
    swept_at: float = 0.0
    """When the targets of a continuous job were last resolved."""
    schedule_id: str | None = None
    kind: str | None = None
    nominal_at: float | None = None
    clients: int = 0
    """Its executions."""
    request: str = ""
    """The digest of the request that made it: a repeat that has the same one means this job."""
    reported: int = 0
    """The last run with a report in the object store."""

    @property
    def paused(self) -> bool:
        """Whether an operator holds it."""
        return self.state is JobState.PAUSED

    @property
    def open(self) -> bool:
        """Whether it is not over."""
        return self.state in JOB_OPEN

    @property
    def tick_at(self) -> float:
        """The instant that `{tick}` and the ages of files refer to."""
        return self.created_at if self.nominal_at is None else self.nominal_at

    @property
    def scope(self) -> str:
        """Within which a file that was proven counts as unchanged: its schedule, or its template of keys."""
        return f"schedule:{self.schedule_id}" if self.schedule_id else f"key:{self.spec.key}"

    def held(self, now: float) -> float:
        """Seconds for which it was paused, up to `now`."""
        return self.held_seconds + (max(0.0, now - self.held_since) if self.held_since is not None else 0.0)


class Execution(Struct, frozen=True, kw_only=True):
    """A job on one client.

    `place` in [0, 1) orders the clients of a rollout. `due_at` is when the runner looks at it next: `PARKED` while its
    client is offline, None once it is over. `listing_left` and `execution_left` (s) are what remains of the two
    timeouts at `clock_at`; while `clock_at` is None they stand still. `ending`: its open uploads are being cancelled.
    """

    job_id: str
    client_id: str
    place: float
    created_at: float
    updated_at: float
    due_at: float | None
    version: int = 0
    state: ExecutionState = ExecutionState.QUEUED
    reason: Reason = Reason(ReasonCode.CREATED, "waits for its turn")
    attempt: int = 1
    retries_failed: int = 0
    retries_timed_out: int = 0
    """Automatic retries so far."""
    ending: ExecutionState | None = None
    began_at: float | None = None
    """First dispatch of this attempt."""
    ended_at: float | None = None
    listing_left: float | None = None
    execution_left: float | None = None
    clock_at: float | None = None
    held_at: float = 0.0
    """The job's paused seconds at `clock_at`."""
    asks: int = 0
    """Requests in a row that were not answered."""
    selection: str | None = None
    next_index: int | None = None
    """Where the next page of the selection begins; None once it is read."""
    listed_at: float | None = None
    """When its selection was stored as a whole."""
    approved: bool = False
    matched_files: int = 0
    matched_bytes: int = 0
    """What the device found, before limits."""
    left_out: int = 0
    unchanged: int = 0
    files: int = 0
    bytes: int = 0
    """Files of the selection that are to be sent, or were."""
    proven: int = 0
    proven_bytes: int = 0
    failed: int = 0
    rejected: int = 0

    @property
    def key(self) -> ExecutionKey:
        """Its identity."""
        return ExecutionKey(self.job_id, self.client_id)

    @property
    def open(self) -> bool:
        """Whether it is not over."""
        return self.state in EXECUTION_OPEN


class JobFile(Struct, frozen=True, kw_only=True):
    """A selected file of an execution; `n` counts from 1. `outcome` is None while it is to be sent, or is being sent.

    `attempt` is that of the execution which listed it. `key` is the object's, once an upload exists.
    """

    job_id: str
    client_id: str
    n: int
    path: str
    size: int
    mtime_ns: int
    attempt: int = 1
    upload_id: str | None = None
    outcome: FileOutcome | None = None
    reason: Reason | None = None
    key: str | None = None


CountKey = tuple[ExecutionState, str]
"""The state and the reason code of some executions."""

Counts = Mapping[CountKey, int]
"""How many executions of a job have this state and reason code."""


class JobTotals(Struct, frozen=True):
    """Sums over the executions of a job: rows of files, bytes listed and proven."""

    files: int = 0
    bytes: int = 0
    proven: int = 0
    proven_bytes: int = 0


def in_state(counts: Counts, *states: ExecutionState) -> int:
    """How many executions are in one of these states."""
    return sum(n for (state, _), n in counts.items() if state in states)


def place_of(job_id: str, client_id: str) -> float:
    """The place of a client in a rollout, in [0, 1): the same on every replica, and another in each job."""
    digest = hashlib.sha256(f"{job_id}\0{client_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def upload_id_of(job_id: str, client_id: str, n: int, attempt: int, at: float) -> str:
    """The upload of one file in one attempt, made at the instant `at`.

    Without the instant, a database that is restored from a backup would name an upload that its device has closed.
    """
    name = f"{job_id}\0{client_id}\0{n}\0{attempt}\0{at}"
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
