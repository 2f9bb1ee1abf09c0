"""What the services need of the world, as Protocols; `adapters` hold the real ones and the in-memory ones.

Rule: an adapter translates every foreign exception to `services.errors`. Instants are seconds since the epoch (UTC).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from control_plane.domain.clients import Client
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import State, Upload, UploadKey

T = TypeVar("T")


# --- the database ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One outbox row: a duty of one upload, how often it was tried and when it is tried next.

    `due_at` is `PARKED` while the client it speaks to is away.
    """

    key: UploadKey
    duty: Duty
    due_at: float
    tries: int = 0


PARKED = 1e15
"""A `due_at` that never comes: the task waits for its client, whose next hello wakes it."""


@dataclass(frozen=True, slots=True)
class UploadFilter:
    """Which uploads to list; None means any."""

    client_id: str | None = None
    states: frozenset[State] | None = None
    error: str | None = None
    created_after: float | None = None
    created_before: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` rows after `cursor`, which is what the page before gave."""

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


class Records(Protocol):
    """The rows, inside one transaction; every method is synchronous and sees what the transaction wrote before.

    An exception that leaves the work of a transaction rolls all of it back.
    """

    # uploads
    def upload(self, key: UploadKey) -> Upload | None:
        """One upload with its parts."""

    def uploads_by_id(self, upload_id: str) -> list[Upload]:
        """Every client's upload of this id: usually one."""

    def upload_by_s3_key(self, s3_key: str) -> Upload | None:
        """The upload whose object key this is."""

    def add_upload(self, upload: Upload) -> None:
        """Insert at `version` 0; `KeyTaken` when the key or the object key is in use."""

    def save_upload(self, before: Upload, after: Upload) -> Upload:
        """Write `after` over `before` and return it with `version` one higher.

        `VersionConflict` when the stored version is not `before.version`. Only the parts that differ are written.
        """

    def list_uploads(self, where: UploadFilter, page: Page) -> tuple[list[Upload], str | None]:
        """Newest first, with the cursor of the next page. Of their parts only which are stored is promised."""

    def open_uploads_of(self, client_id: str) -> list[Upload]:
        """Every upload of the client that is not terminal or whose end the client must still be told."""

    def overdue(self, now: float, limit: int) -> list[UploadKey]:
        """Uploads that a deadline can end and whose deadline has passed, longest overdue first.

        That is no upload whose object is being completed here; one that is overheard is not.
        """

    def prune_uploads(self, ended_before: float, limit: int) -> int:
        """Delete that many terminal uploads without tasks, oldest first; returns how many went."""

    # outbox
    def tasks_of(self, key: UploadKey) -> list[OutboxEntry]:
        """The outbox rows of one upload."""

    def put_task(self, task: OutboxEntry) -> None:
        """Insert or replace the row of (upload, kind, subject)."""

    def drop_task(self, key: UploadKey, kind: Kind, subject: str) -> None:
        """Delete one row, if it is there."""

    def due_tasks(self, now: float, limit: int) -> list[OutboxEntry]:
        """Rows whose `due_at` has come, earliest first."""

    def wake_tasks(self, client_id: str, now: float) -> int:
        """Make the parked rows of one client due; returns how many."""

    def next_due(self) -> float | None:
        """The earliest `due_at` of any row that is not parked."""

    # clients
    def client(self, client_id: str) -> Client | None:
        """One client."""

    def clients(self, client_ids: Iterable[str]) -> dict[str, Client]:
        """Those of these clients that are known."""

    def save_clients(self, clients: Sequence[Client]) -> None:
        """Insert or replace, all at once."""

    def list_clients(self, labels: Mapping[str, str], page: Page) -> tuple[list[Client], str | None, int]:
        """By client id, those that bear all these labels; with the next cursor and the total count."""

    def delete_client(self, client_id: str) -> bool:
        """Forget a client, not its uploads; False when it was not known."""

    # idempotency
    def idempotency(self, caller: str, client_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        """What this key was used for."""

    def add_idempotency(self, record: IdempotencyRecord) -> None:
        """Remember a key; `KeyTaken` when it is there already."""

    def prune_idempotency(self, created_before: float) -> int:
        """Forget old keys; returns how many."""


class Database(Protocol):
    """The database. `DatabaseUnavailable` when it is locked, full or away."""

    async def write(self, work: Callable[[Records], T]) -> T:
        """Run `work` in one transaction that may write; it is committed durably before this returns.

        `work` runs again when it lost a race to another process: what it does besides is done again too.
        """

    async def read(self, work: Callable[[Records], T]) -> T:
        """Run `work` on one consistent snapshot."""

    async def check(self) -> None:
        """Raise when the database cannot be used."""

    async def close(self) -> None:
        """Let go of everything."""


# --- the object store ------------------------------------------------------------------------------------------------


# --- the broker ------------------------------------------------------------------------------------------------------
