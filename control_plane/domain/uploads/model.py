"""One upload as it is stored: plain data and what follows from it.

Rule: nothing here changes an upload; `machine.apply` does.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from msgspec import Struct, field

from control_plane.domain.reasons import Reason
from schemas.messages import CHUNK_SIZE, KEEP
from schemas.parts import PartPlan
from schemas.values import DigestName, Fingerprint, Outcome, UploadOptions, WantedPart

MAX_ATTEMPTS: Final = 3
"""Attempts of one upload, each with its own S3 upload id (protocol.md section 4)."""

MAX_DEADLINE: Final = 30 * 86_400
"""Seconds from the creation to the deadline; a whole number, for the REST document shows it."""

MAX_SETBACKS: Final = 10
"""Setbacks in a row of one attempt before it is given up. The pauses between them grow, so that they take minutes."""

MAX_STRIKES: Final = 3
"""Step timers that run out in a row before the owner gives up on a connected client."""


class State(StrEnum):
    """The states of an upload (protocol.md section 5)."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    IN_PROGRESS = "in_progress"
    COMPLETING = "completing"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.REJECTED, State.CANCELLED, State.EXPIRED})
OPEN: Final = frozenset(State) - TERMINAL
EXPIRABLE: Final = OPEN - {State.COMPLETING}
"""States that a deadline ends; a completing upload is proven or fails first."""

OUTCOMES: Final[dict[State, Outcome]] = {state: Outcome(state.value) for state in TERMINAL}


class Origin(StrEnum):
    """Where the upload began: as a REST request, or as a command that another sender published over MQTT."""

    REST = "rest"
    MQTT = "mqtt"


class Proof(StrEnum):
    """The strongest proof that the object is the file (protocol.md section 5)."""

    CHECKSUM = "checksum"
    ETAG = "etag"
    ACCEPTED = "accepted"
    SIZE = "size"


class UploadKey(NamedTuple):
    """The identity of an upload: ids are unique per client."""

    client_id: str
    upload_id: str


class PartRecord(Struct, frozen=True):
    """One part: the digest that the client offered (base64), and the etag once the part is stored.

    An empty etag means that the object store answered 412: an earlier request may have stored the part.
    """

    digest: str | None = None
    etag: str | None = None

    @property
    def stored(self) -> bool:
        """Whether the client reported the part as stored."""
        return self.etag is not None


class Stray(Struct, frozen=True):
    """An object of an abandoned attempt, to be deleted once `after` (s since the epoch), when its last URL has expired.

    It is deleted only if its metadata carries `token`, or if it has no token and `token` is its ETag in quotes.
    """

    s3_key: str
    token: str
    after: float


class AfterReceipt(Struct, frozen=True):
    """What the device reports of the file after the upload: an `AfterOutcome`, and why it was kept."""

    outcome: str
    at: float
    """Instant (s) at which the receipt was committed."""
    code: str | None = None
    text: str | None = None


class UploadReceipt(Struct, frozen=True, omit_defaults=True):
    """The receipt of the object of a completed upload, as far as it is made.

    Until `wait_until` (s) the device is waited for; then the control plane signs alone. `asked`: the device is asked in
    each close, until it has signed or was `refused`, which has the text. `envelope` is the signed receipt in JSON;
    `device_key` and `witness_key` are the public keys that have signed it, in their text form. `done_at` (s): all that
    is to be done with it, is done.
    """

    wait_until: float
    asked: bool = False
    refused: str | None = None
    envelope: str | None = None
    device_key: str | None = None
    witness_key: str | None = None
    done_at: float | None = None

    @property
    def wanted(self) -> bool:
        """Whether the device is asked for it."""
        return self.asked and self.device_key is None and self.refused is None


class ListedFile(Struct, frozen=True):
    """A file as its client listed it."""

    size: int
    mtime_ns: int


# A Struct is copied with changes by one call in C, and an upload is copied at each event.
class Upload(Struct, frozen=True, kw_only=True):
    """One file of one client, uploaded to one object.

    Sizes are bytes; instants are seconds since the epoch, by the control plane's clock.
    """

    client_id: str
    upload_id: str
    owner: str
    """Who grants, completes and closes it, for life: a control plane or one run of the command line."""
    origin: Origin
    s3_key: str
    token: str
    """Random; with the attempt's number it marks the object (`object_token`)."""
    created_at: float
    updated_at: float
    deadline: float
    """Instant after which the upload expires, unless it is completing."""
    file_path: str | None = None
    """On the device; None for a file that the client did not name."""
    digest: DigestName = DigestName.MD5
    chunk_size: int = CHUNK_SIZE
    """Size of a part that the plan begins with; `part_size` is the plan's."""
    options: UploadOptions = field(default_factory=UploadOptions)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    state: State = State.QUEUED
    version: int = 0
    """Number of commits since the row was inserted, for compare-and-set."""
    attempt: int = 1
    sequence: int = 0
    """The highest committed response of this attempt; 0 before the first."""
    s3_upload_id: str | None = None
    """The open multipart upload of this attempt."""
    one_put: bool = False
    """Whether this attempt is granted as one PutObject instead of a multipart upload."""
    file_size: int | None = None
    part_size: int | None = None
    fingerprint: Fingerprint | None = None
    parts: Mapping[int, PartRecord] = field(default_factory=dict)
    """By part number."""
    wanted: tuple[WantedPart, ...] = ()
    """Parts of the client's last request, kept until its next response: until then the grant may be lost."""
    resume_at: float = 0.0
    """Instant before which the state's main duty is not due; 0 for at once."""
    touched_at: float = 0.0
    """Instant of the last command published, response committed or progress seen: the step timer counts from it."""
    strikes: int = 0
    """Step timers that ran out in a row."""
    setbacks: int = 0
    """How often in a row the object store refused this attempt, or showed no object of it."""
    held: bool = False
    """Whether the gate refused its last grant: until `resume_at`, for `reason`."""
    bytes_sent: int = 0
    """As the client reported them last."""
    client_busy: bool = False
    """Whether the client may be working on the upload, and must be sent a cancel when it ends."""
    reason: Reason | None = None
    """What the upload waits for, by the last response or progress."""
    error: str | None = None
    """An `ErrorCode` or a `ReasonCode`, once it failed, was rejected or expired; of an observed upload, its last."""
    message: str | None = None
    """A sentence to `error`, or to a cancellation."""
    proof: Proof | None = None
    completed_at: float | None = None
    """Instant at which it reached a terminal state, whichever one."""
    litter: tuple[str, ...] = ()
    """S3 upload ids to abort, each below one of `keys`."""
    strays: tuple[Stray, ...] = ()
    """Objects to delete."""
    job_id: str | None = None
    """The job that made it, and the number of its file there (`job_file`)."""
    job_file: int | None = None
    listed: ListedFile | None = None
    """The file that a person approved: no other one is granted."""
    after: str = KEEP
    """What the device is to do with the file once the object is proven (`schemas.messages.After`)."""
    after_receipt: AfterReceipt | None = None
    """What became of it; None before the device reports that."""
    receipt: UploadReceipt | None = None
    """None for an upload that is not completed, and for one of which none is made."""
    traceparent: str | None = None
    """The trace that it belongs to (W3C Trace Context); None for one that is not traced."""

    @property
    def key(self) -> UploadKey:
        """The identity of the upload."""
        return UploadKey(self.client_id, self.upload_id)

    @property
    def message_id(self) -> str:
        """The id of the command that begins this attempt; a repeat has the same."""
        return self.upload_id if self.attempt == 1 else f"{self.upload_id[:56]}.{self.attempt}"

    @property
    def object_token(self) -> str:
        """The value that this attempt writes into the object's metadata, to recognise its own object."""
        return f"{self.token}.{self.attempt}"

    @property
    def next_key(self) -> str:
        """The object key of the next attempt, when that may not use this one. `token` keeps others from taking it."""
        folder, _, name = self.s3_key.rpartition("/")
        return f"{folder}/{self.token[:8]}-{self.attempt + 1}-{name}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The object keys of all attempts, the newest first: each `next_key` contains the key before it."""
        keys = [self.s3_key]
        folder, _, name = self.s3_key.rpartition("/")
        for attempt in range(self.attempt, 1, -1):
            before = name.removeprefix(f"{self.token[:8]}-{attempt}-")
            if before != name:
                name = before
                keys.append(f"{folder}/{name}")
        return tuple(keys)

    @property
    def plan(self) -> PartPlan | None:
        """The parts of the file; None before the first offer."""
        if self.file_size is None or self.part_size is None:
            return None
        return PartPlan(self.file_size, self.part_size)

    @property
    def opened(self) -> bool:
        """Whether a multipart upload is open, or a PutObject may be granted. Never true of an observed upload."""
        return self.one_put or self.s3_upload_id is not None

    @property
    def stored_parts(self) -> list[int]:
        """Numbers of the parts that the client reported as stored, ascending."""
        return sorted(number for number, part in self.parts.items() if part.stored)

    @property
    def missing_parts(self) -> list[int]:
        """Numbers of the parts that are not reported as stored; empty before the first offer too."""
        plan = self.plan
        return [] if plan is None else [n for n in plan.numbers if n not in self.parts or not self.parts[n].stored]

    @property
    def to_grant(self) -> tuple[WantedPart, ...]:
        """The wanted parts that need a URL: those not yet stored with the digest that the client offers now."""
        return tuple(part for part in self.wanted if not self._has(part))

    def _has(self, part: WantedPart) -> bool:
        record = self.parts.get(part.part_number)
        return record is not None and record.stored and record.digest is not None and record.digest == part.digest
