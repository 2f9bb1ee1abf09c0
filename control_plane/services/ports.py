"""What the services need of the world, as Protocols; `adapters` hold the real ones and the in-memory ones.

Rule: an adapter translates every foreign exception to `services.errors`. Instants are seconds since the epoch (UTC).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from control_plane.domain.events import Duty, Kind
from control_plane.domain.presence import Client
from control_plane.domain.record import Upload
from control_plane.domain.values import State, UploadKey
from schemas.topics import Channel
from schemas.values import DigestName, PresignedPart

T = TypeVar("T")


class Clock(Protocol):
    """Both clocks, so that tests can hold them."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


# --- the database ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
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
    def tasks_of(self, key: UploadKey) -> list[Task]:
        """The outbox rows of one upload."""

    def put_task(self, task: Task) -> None:
        """Insert or replace the row of (upload, kind, subject)."""

    def drop_task(self, key: UploadKey, kind: Kind, subject: str) -> None:
        """Delete one row, if it is there."""

    def due_tasks(self, now: float, limit: int) -> list[Task]:
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


class Store(Protocol):
    """The database. `StoreUnavailable` when it is locked, full or away."""

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


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """What the object store was seen to do, by a probe at start (protocol.md section 5).

    `part_digests` and `object_digests` are the digests whose mismatch it refuses on UploadPart and on PutObject;
    `etag_is_md5` that an ETag is the MD5 of the bytes (and of the parts' MD5s); `if_none_match` that it refuses to
    overwrite when told so; `clock_skew` is its clock minus ours (s), None when it did not say.
    """

    part_digests: frozenset[DigestName] = frozenset()
    object_digests: frozenset[DigestName] = frozenset()
    etag_is_md5: bool = False
    if_none_match: bool = False
    encrypts: bool = False
    clock_skew: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What HEAD says of an object; `metadata` has lower-case names. `etag` is without quotes."""

    size: int
    etag: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    encryption: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MultipartInfo:
    """One multipart upload in flight at the store."""

    s3_key: str
    s3_upload_id: str
    initiated_at: float


@dataclass(frozen=True, slots=True)
class Grantable:
    """What one URL is bound to: the part, its bytes' count and digest, and how long (s) it may be used."""

    part_number: int
    size: int
    digest: str | None
    expires_in: float


class ObjectStore(Protocol):
    """The S3 bucket. `ObjectStoreDown` when a call may be tried again, `ObjectStoreRefused` when not."""

    bucket: str

    async def ensure_bucket(self) -> None:
        """Create the bucket, private, when it is missing."""

    async def probe(self) -> StoreCapabilities:
        """See what the store enforces, on objects of our own prefix that are removed again."""

    async def create_multipart(self, s3_key: str, token: str, digest: DigestName) -> str:
        """Open a multipart upload whose object will bear `token`; returns S3's upload id. Not idempotent."""

    def presign_part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """A URL for one part, bound to its size and digest. Pure computation."""

    def presign_object(
        self, s3_key: str, token: str, part: Grantable, digest: DigestName, *, once: bool
    ) -> PresignedPart:
        """A URL that creates the whole object; `once` signs `If-None-Match: *` in."""

    def presign_get(self, s3_key: str, expires_in: float) -> str:
        """A URL to read an object with."""

    def url_lifetime(self, wanted: float) -> float:
        """Seconds that a URL signed now may live: `wanted`, or less when the credentials end sooner."""

    async def complete(self, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> None:
        """Assemble the parts. Any error leaves it in doubt; `ObjectStoreRefused.code` may be `NoSuchUpload`."""

    async def head(self, s3_key: str) -> ObjectInfo | None:
        """What is there under this key; None when nothing is."""

    async def list_parts(self, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
        """Part numbers and etags (without quotes) of a multipart upload; None when it is gone."""

    async def abort(self, s3_key: str, s3_upload_id: str) -> None:
        """Abort and see that no parts are left; fine when it is gone already."""

    async def delete(self, s3_key: str) -> None:
        """Delete an object; fine when it is gone already."""

    async def list_multipart(self, prefix: str) -> list[MultipartInfo]:
        """Every multipart upload in flight whose key begins with `prefix`."""

    async def multipart_size(self, s3_key: str, s3_upload_id: str) -> int:
        """Bytes in the parts of a multipart upload; 0 when it is gone."""

    async def lifecycle(self) -> Mapping[str, Any]:
        """The bucket's lifecycle configuration: `Rules`, and whatever else `set_lifecycle` must be given back."""

    async def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        """Replace the bucket's lifecycle configuration."""

    async def close(self) -> None:
        """Let go of everything."""


# --- the broker ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message that came in."""

    topic: str
    payload: bytes
    retained: bool = False


class Messenger(Protocol):
    """The broker. `MessengerDown` when it is away or refuses."""

    @property
    def connected(self) -> bool:
        """Whether a connection stands and its subscriptions were granted."""

    async def publish(self, channel: Channel, client_id: str, payload: bytes) -> None:
        """Publish to one client's topic (or the birth topic) and wait for the broker's word."""


EventLog = Callable[[str, Mapping[str, Any]], None]
"""Takes an event's name and its facts: structured logging, counters, live streams."""
