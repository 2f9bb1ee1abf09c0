"""Jobs, executions and their files in the database.

Rule: what many executions need is one call with all of them. Rows change by compare-and-set on their version; sums over
the executions of a job change by deltas, in the order of their keys, so that two transactions never wait in a circle.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from control_plane.domain.jobs.model import (
    CountKey,
    Counts,
    Execution,
    ExecutionKey,
    ExecutionState,
    FileOutcome,
    Job,
    JobFile,
    JobState,
    JobTotals,
)
from control_plane.domain.reasons import Reason
from control_plane.domain.selectors import Selector
from control_plane.services.ports.database import Page


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; None means any.

    With `reach`, those that have an execution of a known client that it selects; and open continuous ones whose targets
    have it.
    """

    states: frozenset[JobState] | None = None
    schedule_id: str | None = None
    reach: Selector | None = None


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Which executions of a job; None means any. `listed_before` includes that instant.

    With `reach`, only those of known clients that it selects.
    """

    job_id: str
    states: frozenset[ExecutionState] | None = None
    reason_code: str | None = None
    client_ids: frozenset[str] | None = None
    listed_before: float | None = None
    reach: Selector | None = None


@dataclass(frozen=True, slots=True)
class FileFilter:
    """Which files of a job; None means any. `undecided`: only those without an outcome. `reach` as of executions."""

    job_id: str
    client_id: str | None = None
    outcomes: frozenset[FileOutcome] | None = None
    undecided: bool = False
    reach: Selector | None = None


JobPage = tuple[list[Job], str | None]
ExecutionPage = tuple[list[Execution], str | None]
FilePage = tuple[list[JobFile], str | None]


@dataclass(frozen=True, slots=True)
class Tally:
    """The files of one execution, counted by outcome.

    `open` have an upload and no outcome, `pending` have neither. `worst` is the reason of one file that failed.
    """

    open: int = 0
    pending: int = 0
    proven: int = 0
    proven_bytes: int = 0
    failed: int = 0
    rejected: int = 0
    worst: Reason | None = None


class Settlement(NamedTuple):
    """The end of one file's upload."""

    job_id: str
    client_id: str
    n: int
    upload_id: str
    outcome: FileOutcome
    reason: Reason | None
    key: str


class ProvenFile(NamedTuple):
    """The size and the time of change (ns) of a file when it was proven."""

    size: int
    mtime_ns: int


class ExecutionRecords(Protocol):
    """Executions."""

    def some(self, keys: Iterable[ExecutionKey]) -> dict[ExecutionKey, Execution]:
        """Those of these executions that exist."""

    def add(self, executions: Sequence[Execution]) -> None:
        """Insert all at `version` 0 and count them; `KeyTaken` when one exists."""

    def save(self, changes: Sequence[tuple[Execution, Execution]]) -> list[Execution]:
        """Write each second over its first, adjust the job's counts, and return them with `version` one higher.

        `VersionConflict` when a stored version is not that of the first.
        """

    def due(self, now: float, limit: int) -> list[Execution]:
        """Executions that began, are not over, and have a `due_at` up to `now`; earliest first."""

    def next_due(self) -> float | None:
        """The earliest `due_at` of all executions that began and are not parked."""

    def queued(self, job_id: str, now: float, below: float, limit: int) -> list[Execution]:
        """Queued executions with a `due_at` up to `now` and a place up to `below`; earliest first."""

    def next_queued(self, job_id: str, below: float) -> float | None:
        """The earliest `due_at` of the job's queued executions that are not parked, with a place up to `below`."""

    def wake(self, client_ids: Iterable[str], now: float) -> int:
        """Make the parked executions of these clients due, and wake their jobs; returns the number of executions."""

    def wake_held(self, client_ids: Iterable[str], now: float) -> int:
        """Make the executions due that wait for their device's own caps or conditions; returns their number."""

    def all_open(self, job_id: str, limit: int, *, sending: bool = True) -> list[Execution]:
        """Up to `limit` executions of the job that are not over and not being cancelled.

        Without `sending`, only those that do not upload.
        """

    def of_client(self, client_id: str) -> list[Execution]:
        """The client's executions that are not over."""

    def clients(self, job_id: str) -> dict[str, ExecutionState]:
        """Every client of the job, with the state of its execution."""

    def nth_place(self, job_id: str, n: int) -> float | None:
        """The n-th lowest place, from 1; None when the job has fewer executions."""

    def list(self, where: ExecutionFilter, page: Page) -> ExecutionPage:
        """By client id."""

    def mean_bytes(self, job_ids: Collection[str], client_ids: Sequence[str]) -> dict[str, float]:
        """The mean bytes of the files that these clients sent in these jobs; those that sent none are left out."""

    def largest(self, where: ExecutionFilter, limit: int) -> Sequence[Execution]:
        """Those with the most bytes to send, largest first."""

    def client_ids(self, where: ExecutionFilter) -> Sequence[str]:
        """The clients of all of them, sorted."""

    def matching(self, where: ExecutionFilter) -> Sequence[Execution]:
        """All of them, by client id."""


class JobFileRecords(Protocol):
    """The selected files of executions, and what was proven before."""

    def add(self, files: Sequence[JobFile]) -> None:
        """Insert all."""

    def put(self, files: Sequence[JobFile]) -> None:
        """Replace each row with the same job, client and number."""

    def of(self, key: ExecutionKey) -> Sequence[JobFile]:
        """Every file of one execution, by number."""

    def pending(self, key: ExecutionKey, limit: int) -> Sequence[JobFile]:
        """Files that have no outcome and no upload, by number."""

    def open(self, keys: Iterable[ExecutionKey]) -> dict[ExecutionKey, list[JobFile]]:
        """Files that have an upload and no outcome."""

    def tally(self, keys: Iterable[ExecutionKey]) -> dict[ExecutionKey, Tally]:
        """The files of these executions, counted; an execution without files has an empty tally."""

    def settle(self, ends: Sequence[Settlement]) -> None:
        """Store the outcome of files whose upload ended, and make their executions due."""

    def give_up(self, keys: Iterable[ExecutionKey], outcome: FileOutcome, reason: Reason) -> None:
        """Give the pending files of these executions this outcome."""

    def drop(self, files: Sequence[JobFile]) -> None:
        """Delete these rows."""

    def list(self, where: FileFilter, page: Page) -> FilePage:
        """By client id and number."""

    def largest(self, job_id: str, limit: int, reach: Selector | None = None) -> Sequence[JobFile]:
        """The largest files of the job that have no outcome, largest first; with `reach`, of its clients."""

    def proven(self, client_id: str, scope: str, paths: Iterable[str]) -> dict[str, ProvenFile]:
        """What was proven of these paths within `scope`."""

    def note_proven(self, scope: str, files: Sequence[JobFile]) -> None:
        """Remember these files as proven within `scope`."""


class JobRecords(Protocol):
    """Jobs, with their executions and files."""

    @property
    def executions(self) -> ExecutionRecords:
        """Executions."""

    @property
    def files(self) -> JobFileRecords:
        """Selected files."""

    def get(self, job_id: str) -> Job | None:
        """One job."""

    def some(self, job_ids: Iterable[str]) -> dict[str, Job]:
        """Those of these jobs that exist."""

    def add(self, job: Job) -> None:
        """Insert at `version` 0; `KeyTaken` when the id is in use."""

    def save(self, before: Job, after: Job) -> Job:
        """Write `after` over `before` and return it with `version` one higher; `VersionConflict`."""

    def list(self, where: JobFilter, page: Page) -> JobPage:
        """Newest first."""

    def due(self, now: float, limit: int) -> Sequence[Job]:
        """Open jobs with a `next_wake_at` up to `now`; the highest priority first."""

    def next_due(self) -> float | None:
        """The earliest `next_wake_at` of all open jobs."""

    def wake(self, job_ids: Iterable[str], now: float) -> None:
        """Make these jobs due. The version stays."""

    def continuous(self) -> Sequence[Job]:
        """Open jobs that clients may join."""

    def counts(self, job_id: str) -> Counts:
        """The executions by state and reason code; their sum is the number of executions at every commit."""

    def counts_of(self, job_ids: Iterable[str]) -> Mapping[str, Counts]:
        """The counts of several jobs."""

    def recounted(self, job_id: str) -> Mapping[CountKey, int]:
        """The same, from the executions themselves: a scan, to check the counts."""

    def totals(self, job_id: str) -> JobTotals:
        """The sums over its executions."""

    def sums_within(self, job_ids: Iterable[str], reach: Selector) -> Mapping[str, tuple[Counts, JobTotals]]:
        """Counts and sums over the executions of the clients that `reach` selects; jobs without one are left out."""

    def goes_beyond(self, job_id: str, reach: Selector, *, open_only: bool = False) -> bool:
        """Whether the job has an execution, that is not over or any, of a known client that `reach` does not select."""

    def add_to_totals(self, job_id: str, change: JobTotals) -> JobTotals:
        """Add to the sums, and return them as they are then."""

    def unreported(self, ended_after: float, limit: int) -> Sequence[Job]:
        """Jobs that ended after this instant, and whose last run has no report yet; earliest first."""

    def pull_in(self, after: float, now: float) -> int:
        """Make jobs and executions due that are due later than `after`, and not parked; returns their number."""

    def prune(self, ended_before: float, limit: int) -> int:
        """Delete old jobs with all that belongs to them, about `limit` rows at once.

        Returns 0 when there is nothing left to delete.
        """
