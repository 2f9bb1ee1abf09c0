"""One upload as it is stored: plain data, and what can be read off it.

Rule: nothing here changes an upload; `domain.upload` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from control_plane.domain.reasons import Reason
from schemas.messages import CHUNK_SIZE
from schemas.parts import PartPlan
from schemas.values import DigestName, Fingerprint, Outcome, UploadOptions, WantedPart

MAX_ATTEMPTS: Final = 3
"""How often an upload may begin anew with a fresh S3 upload id (protocol.md section 4)."""

MAX_STRIKES: Final = 3
"""How many step timers in a row may run out before a connected client is given up."""


class State(StrEnum):
    """Where an upload stands (protocol.md section 5)."""

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
"""States that a deadline ends; one that is completing is settled first."""

OUTCOMES: Final[dict[State, Outcome]] = {state: Outcome(state.value) for state in TERMINAL}


class Origin(StrEnum):
    """Who asked for the upload: a caller of ours, or somebody who published the command himself."""

    REST = "rest"
    MQTT = "mqtt"


class Proof(StrEnum):
    """The strongest ground on which an object is believed to be the file (protocol.md section 5)."""

    CHECKSUM = "checksum"
    ETAG = "etag"
    ACCEPTED = "accepted"
    SIZE = "size"


class Refusal(StrEnum):
    """Why the control plane itself ended an upload; beside the device's error codes in REST's `error`."""

    NOT_PROVEN = "not_proven"
    STORE_REFUSED = "store_refused"
    DEADLINE_PASSED = "deadline_passed"
    NO_PROGRESS = "no_progress"


class UploadKey(NamedTuple):
    """An upload's identity: ids are unique per client."""

    client_id: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What is known of one part: the digest its client offered, and the etag once it is stored.

    An empty etag means that the store said 412: an earlier request of ours may have won.
    """

    digest: str | None = None
    etag: str | None = None

    @property
    def stored(self) -> bool:
        """Whether the client reported this part as stored."""
        return self.etag is not None


@dataclass(frozen=True, slots=True)
class Stray:
    """An object of an abandoned PutObject attempt, to be deleted after its last URL has died."""

    s3_key: str
    token: str
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file of one client to one object.

    `sequence` is the highest committed response of this `attempt`; `wanted` is the client's last question, kept until
    its next response, since until then the answer may be lost; `client_busy` says that the client may be working on
    it; `litter` are S3 upload ids to abort, `strays` objects to delete.
    """

    client_id: str
    upload_id: str
    owner: str
    origin: Origin
    s3_key: str
    token: str
    created_at: float
    updated_at: float
    deadline: float
    file_path: str | None = None
    digest: DigestName = DigestName.MD5
    chunk_size: int = CHUNK_SIZE
    options: UploadOptions = field(default_factory=UploadOptions)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    state: State = State.QUEUED
    version: int = 0
    attempt: int = 1
    sequence: int = 0
    s3_upload_id: str | None = None
    one_put: bool = False
    file_size: int | None = None
    part_size: int | None = None
    fingerprint: Fingerprint | None = None
    parts: Mapping[int, PartRecord] = field(default_factory=dict)
    wanted: tuple[WantedPart, ...] = ()
    resume_at: float = 0.0
    touched_at: float = 0.0
    strikes: int = 0
    bytes_sent: int = 0
    client_busy: bool = False
    reason: Reason | None = None
    error: str | None = None
    message: str | None = None
    proof: Proof | None = None
    completed_at: float | None = None
    litter: tuple[str, ...] = ()
    strays: tuple[Stray, ...] = ()

    @property
    def key(self) -> UploadKey:
        """The upload's identity."""
        return UploadKey(self.client_id, self.upload_id)

    @property
    def message_id(self) -> str:
        """The id of the command that begins this attempt: the same however often it is said."""
        return self.upload_id if self.attempt == 1 else f"{self.upload_id[:56]}.{self.attempt}"

    @property
    def object_token(self) -> str:
        """What this attempt writes into the object's metadata, to know its own object again."""
        return f"{self.token}.{self.attempt}"

    @property
    def plan(self) -> PartPlan | None:
        """How the file is cut; None before the first offer."""
        if self.file_size is None or self.part_size is None:
            return None
        return PartPlan(self.file_size, self.part_size)

    @property
    def opened(self) -> bool:
        """Whether its object is ours to make: of another owner's upload nothing is, as long as it may look."""
        return self.one_put or self.s3_upload_id is not None

    @property
    def stored_parts(self) -> list[int]:
        """Numbers of the parts that the client reported as stored, ascending."""
        return sorted(number for number, part in self.parts.items() if part.stored)

    @property
    def missing_parts(self) -> list[int]:
        """Numbers of the parts that nobody reported yet; empty before the first offer too."""
        plan = self.plan
        return [] if plan is None else [n for n in plan.numbers if n not in self.parts or not self.parts[n].stored]

    @property
    def to_grant(self) -> tuple[WantedPart, ...]:
        """What of the open question still needs a URL: parts not stored with the bytes that are offered now."""
        return tuple(part for part in self.wanted if not self._has(part))

    def _has(self, part: WantedPart) -> bool:
        record = self.parts.get(part.part_number)
        return record is not None and record.stored and record.digest is not None and record.digest == part.digest
