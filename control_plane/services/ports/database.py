"""The database, as the services use it: one protocol for each aggregate, bundled as `Records`.

Rule: an adapter translates every foreign exception to `services.errors`. Instants are seconds since the epoch (UTC).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from control_plane.domain.changes import Change, NumberedChange
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason
from control_plane.domain.selectors import Selector
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import State, Upload, UploadKey
from control_plane.services.ports.figures import FigureRecords
from control_plane.services.ports.fleet import GroupRecords, ListingRecords
from control_plane.services.ports.gate import GateRecords
from schemas.values import DeviceBudget

if TYPE_CHECKING:
    from control_plane.services.audit.ports import AuditRecords
    from control_plane.services.devices.ports import BatchRecords, DeviceRecords, EnrollmentRecords
    from control_plane.services.ports.jobs import JobRecords
    from control_plane.services.ports.overview import OverviewRecords
    from control_plane.services.ports.schedules import CoverageRecords, ScheduleRecords
    from control_plane.services.ports.sessions import SessionRecords, TokenRecords
    from control_plane.services.ports.webhooks import WebhookRecords
    from control_plane.services.trust.ports import TrustRecords

T = TypeVar("T")


class SubjectType(StrEnum):
    """The aggregates that have outbox entries."""

    UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Subject:
    """What an outbox entry is about. `client_id` is "" where no client is involved."""

    type: SubjectType
    client_id: str
    id: str

    @classmethod
    def of_upload(cls, key: UploadKey) -> Self:
        """The subject of an upload's entries."""
        return cls(SubjectType.UPLOAD, key.client_id, key.upload_id)

    @property
    def upload_key(self) -> UploadKey:
        """The key of the upload; only for subjects of type `UPLOAD`."""
        return UploadKey(self.client_id, self.id)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a duty failed, and when."""

    reason: Reason
    at: float


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A stored duty: how often it was tried, when it is tried next, and why the last try failed.

    `due_at` is `PARKED` while the client that the duty addresses is offline. `last_error` is None until a try fails.
    """

    subject: Subject
    duty: Duty
    due_at: float
    tries: int = 0
    last_error: Failure | None = None


PARKED = 1e15
"""A `due_at` that never comes: the entry waits until its client connects."""


@dataclass(frozen=True, slots=True)
class UploadFilter:
    """Which uploads to list; None means any. Instants are seconds since the epoch; `since` is inclusive.

    With `reach`, only those of known clients that it selects.
    """

    client_id: str | None = None
    states: frozenset[State] | None = None
    error: str | None = None
    job_id: str | None = None
    created_since: float | None = None
    created_before: float | None = None
    ended_since: float | None = None
    reach: Selector | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` rows after `cursor`, which comes from the previous page."""

    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What a caller's key was used for: `body` is a digest of the request."""

    caller: str
    client_id: str
    idempotency_key: str
    body: str
    upload_id: str
    created_at: float


@dataclass(frozen=True, slots=True)
class OpenUploads:
    """How many open uploads a client has, and the one that changed last."""

    count: int
    latest: Upload


UploadPage = tuple[list[Upload], str | None]
"""Uploads, and the cursor of the next page."""

ClientPage = tuple[list[Client], str | None, int]
"""Clients, the cursor of the next page, and how many clients match on all pages."""


class UploadRecords(Protocol):
    """Uploads with their parts."""

    def get(self, key: UploadKey) -> Upload | None:
        """One upload."""

    def by_id(self, upload_id: str) -> list[Upload]:
        """Every client's upload of this id: usually one."""

    def by_s3_key(self, s3_key: str) -> Upload | None:
        """The upload with this object key."""

    def retried_of(self, client_id: str) -> list[Upload]:
        """The client's uploads that are past their first attempt, in any state."""

    def add(self, upload: Upload) -> None:
        """Insert at `version` 0; `KeyTaken` when the key or the object key is in use."""

    def save(self, before: Upload, after: Upload) -> Upload:
        """Write `after` over `before` and return it with `version` one higher.

        `VersionConflict` when the stored version is not `before.version`. Only the parts that differ are written.
        """

    def count_open(self, client_id: str) -> int:
        """How many uploads `open_of` finds."""

    def bytes_offered(self, client_id: str, owner: str, since: float) -> int:
        """The sum of the file sizes of the client's uploads of this owner that were created at `since` or later."""

    def open_of(self, client_id: str) -> list[Upload]:
        """Every upload of the client that is not terminal, or that the client has yet to acknowledge as ended."""

    def open_among(self, client_ids: Sequence[str]) -> dict[str, OpenUploads]:
        """The uploads that are not terminal, of those of these clients that have one. Of their parts, as `list`."""

    def overdue(self, now: float, limit: int) -> list[UploadKey]:
        """Uploads past their deadline, in a state that a deadline can end, longest overdue first.

        Uploads that this owner is completing are left out; observed ones are not.
        """

    def deadline_ahead(self, after: float, limit: int) -> list[UploadKey]:
        """Open uploads with a deadline later than `after`, in any order."""

    def prune(self, ended_before: float, limit: int) -> int:
        """Delete up to `limit` terminal uploads without outbox entries, oldest first; returns the number deleted."""

    def list(self, where: UploadFilter, page: Page) -> UploadPage:
        """Newest first. Of the parts, only which ones are stored is guaranteed to be right."""


class OutboxRecords(Protocol):
    """Stored duties."""

    def of(self, subject: Subject) -> list[OutboxEntry]:
        """The entries of one subject."""

    def put(self, entry: OutboxEntry) -> None:
        """Insert the entry, or replace the one with the same subject, kind and target."""

    def drop(self, subject: Subject, kind: Kind, target: str) -> None:
        """Delete one entry, if it exists."""

    def due(self, now: float, limit: int) -> list[OutboxEntry]:
        """Entries with a `due_at` up to `now`, earliest first."""

    def wake(self, client_id: str, now: float) -> int:
        """Make the parked entries of one client due; returns the number of entries."""

    def wake_failed(self, codes: Iterable[str], now: float) -> int:
        """Make the waiting entries due that have a last error of these reason codes; returns their number.

        None of them before its duty is required; parked entries stay parked.
        """

    def release(self, job_id: str, now: float) -> int:
        """Make the grants of the job due that the gate holds, and that are not parked; returns their number."""

    def release_device(self, client_id: str, now: float) -> int:
        """Make the grants of the client due that wait for its device's own caps or conditions; returns their number."""

    def pull_in(self, kind: Kind, after: float, due_at: float) -> int:
        """Make the entries of this kind that are due later than `after`, and not parked, due at `due_at`."""

    def next_due(self) -> float | None:
        """The earliest `due_at` of all entries that are not parked."""


class ClientRecords(Protocol):
    """Clients with their labels."""

    def get(self, client_id: str) -> Client | None:
        """One client."""

    def among(self, client_ids: Iterable[str]) -> dict[str, Client]:
        """Those of these clients that exist, by id."""

    def budgets(self, client_ids: Collection[str]) -> dict[str, DeviceBudget]:
        """What those of these devices report that have a budget of their own."""

    def presences(self, client_ids: Sequence[str]) -> dict[str, Client]:
        """Those of these clients that exist, with what their last presence changed and nothing else."""

    def save(self, clients: Sequence[Client]) -> None:
        """Insert or replace, all at once; the last of several with one id wins."""

    def delete(self, client_id: str) -> bool:
        """Delete a client, not its uploads; False when it does not exist."""

    def left_rows(self, client_ids: Collection[str]) -> frozenset[str]:
        """Those of these ids that an upload, an execution or a change names, whether the client exists or not."""

    def matching(self, patterns: Sequence[str], selector: Selector | None) -> list[str]:
        """The ids, sorted, of clients that one of the ids and patterns matches, or the selector; None selects none.

        Clients that are expected and were never seen are clients too. A selector reads the effective labels.
        """

    def selected(self, client_ids: Sequence[str], selector: Selector) -> Sequence[str]:
        """Those of these clients, in their order, that exist and that the selector matches."""

    def list(self, page: Page, client_ids: Sequence[str] | None = None, reach: Selector | None = None) -> ClientPage:
        """A page of clients by id, in the order of code points: of all, or of these, which are sorted and exist.

        With `reach` instead of ids, of those that it selects.
        """


class IdempotencyRecords(Protocol):
    """Idempotency keys."""

    def get(self, caller: str, client_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        """What this key was used for."""

    def add(self, record: IdempotencyRecord) -> None:
        """Insert a key; `KeyTaken` when it exists."""

    def prune(self, created_before: float) -> int:
        """Delete old keys; returns the number deleted."""


class ChangeRecords(Protocol):
    """The change log. Numbers rise in the order of the commits, on all replicas together; there may be gaps."""

    def append(self, changes: Iterable[Change]) -> None:
        """Append changes in this order.

        Call it last in a transaction: on PostgreSQL it holds a lock until the commit, which orders the numbers.
        """

    def after(self, number: int, limit: int) -> list[NumberedChange]:
        """Changes with a higher number, lowest first; 0 starts at the oldest one kept."""

    def about(self, client_id: str, subject_id: str, limit: int) -> list[NumberedChange]:
        """The last changes of one subject of a client (an upload, a job, or the client itself), newest first."""

    def span(self) -> tuple[int, int]:
        """The lowest and the highest number in the log; both 0 before the first change."""

    def prune(self, before: float, limit: int) -> int:
        """Delete up to `limit` changes from before this instant, oldest first; returns the number deleted.

        The last change stays: its number shows how far the log has come.
        """


class Records(Protocol):
    """The rows inside one transaction. Every method is synchronous and sees what the transaction wrote before.

    An exception that leaves the work of a transaction rolls all of it back.
    """

    @property
    def uploads(self) -> UploadRecords:
        """Uploads with their parts."""

    @property
    def outbox(self) -> OutboxRecords:
        """Stored duties."""

    @property
    def clients(self) -> ClientRecords:
        """Clients with their labels."""

    @property
    def idempotency(self) -> IdempotencyRecords:
        """Idempotency keys."""

    @property
    def changes(self) -> ChangeRecords:
        """The change log."""

    @property
    def audit(self) -> "AuditRecords":
        """What callers did; the database in memory keeps none of it."""

    @property
    def groups(self) -> GroupRecords:
        """Named selections of clients."""

    @property
    def listings(self) -> ListingRecords:
        """The last listings of files of each client; `UnsupportedRecords` where there are none."""

    @property
    def gate(self) -> GateRecords:
        """Rates, budgets and their shares; `UnsupportedRecords` where there are none."""

    @property
    def jobs(self) -> "JobRecords":
        """Jobs, with their executions and files; `UnsupportedRecords` where there are none."""

    @property
    def schedules(self) -> "ScheduleRecords":
        """Schedules with their runs; `UnsupportedRecords` where there are none."""

    @property
    def coverage(self) -> "CoverageRecords":
        """The cells of schedules; `UnsupportedRecords` where there are none."""

    @property
    def overview(self) -> "OverviewRecords":
        """Sums over the fleet; `UnsupportedRecords` where there are none."""

    @property
    def sessions(self) -> "SessionRecords":
        """Signed-in browsers; `UnsupportedRecords` where there are none."""

    @property
    def tokens(self) -> "TokenRecords":
        """Tokens that were used or revoked; `UnsupportedRecords` where there are none."""

    @property
    def devices(self) -> "DeviceRecords":
        """Devices, their keys, and the keys that were revoked."""

    @property
    def enrollments(self) -> "EnrollmentRecords":
        """Requests of devices to be enrolled; `UnsupportedRecords` where there are none."""

    @property
    def batches(self) -> "BatchRecords":
        """Batches of devices; `UnsupportedRecords` where there are none."""

    @property
    def trust(self) -> "TrustRecords":
        """The published documents of trust; `UnsupportedRecords` where there are none."""

    @property
    def figures(self) -> FigureRecords:
        """The figures of the whole fleet; `UnsupportedRecords` where there are none."""

    @property
    def webhooks(self) -> "WebhookRecords":
        """Webhooks with their deliveries; `UnsupportedRecords` where there are none."""


class Database(Protocol):
    """The database. `DatabaseUnavailable` when it is locked, full or unreachable."""

    async def write(self, work: Callable[[Records], T]) -> T:
        """Run `work` in one transaction that may write; it is committed durably before this returns.

        `work` runs again after it lost a race to another process: its side effects are repeated too.
        """

    async def read(self, work: Callable[[Records], T]) -> T:
        """Run `work` on one consistent snapshot."""

    async def check(self) -> None:
        """Raise when the database cannot be used."""

    async def close(self) -> None:
        """Close all connections."""
