"""What can happen to an upload, and what is to be done about it.

Rule: an event carries its time. Events from the device may be repeated, late or false, and never raise; the others
are ours, and an illegal one is our own bug. A duty follows from the state alone and is safe when done twice; a reply is
said once, for whoever spoke will speak again.
"""

from dataclasses import dataclass, field
from typing import Final

from control_plane.domain.uploads.model import Proof, State
from schemas.values import DigestName, ErrorCode, Fingerprint, WantedPart

# --- from the device -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote:
    """`sequence` None marks an answer outside the count, such as `cancelled` for an unknown upload."""

    now: float
    attempt: int = 1
    sequence: int | None = None
    etags: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRequested(_Remote):
    """The client offered its file, or asks for more URLs; a question may leave out what the offer said.

    `one_put` are the digests under which a file of one part may be granted as one PutObject on this store.
    """

    file_size: int | None = None
    fingerprint: Fingerprint | None = None
    chunk_size: int | None = None
    wanted: tuple[WantedPart, ...] = ()
    one_put: frozenset[DigestName] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded(_Remote):
    """The client says that every part is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReported(_Remote):
    """The client could not go on. `delay` (s) is how long to wait before the same attempt is tried again."""

    code: ErrorCode
    text: str = ""
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(_Remote):
    """The client will never do this."""

    code: ErrorCode
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledByClient(_Remote):
    """The client stopped, since somebody told it so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed(_Remote):
    """The client sent bytes, or named what it waits for; unacknowledged and lossy."""

    bytes_sent: int
    reason: str | None = None


# --- ours ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """The command was published to a connected client."""

    now: float
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFromHello:
    """The client said hello, at `now`, without this upload: what it was told before is lost."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimedOut:
    """A connected client was told what to do, and nothing moved for a step timer."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """An operator wants no more of this upload."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The upload took too long."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipartCreated:
    """The store opened a multipart upload for this attempt."""

    now: float
    attempt: int
    s3_upload_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionProven:
    """The object is there, and is the file, on this ground."""

    now: float
    attempt: int
    proof: Proof


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionFailed:
    """The object is not there, or is not shown to be the file.

    `again` asks for a new attempt; without it the upload fails with `error`. `left` says that an object of this
    attempt is there, and is not the file.
    """

    now: float
    attempt: int
    error: str
    text: str
    again: bool = False
    left: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStoreRejected:
    """The object store will not open an upload for this key; nobody on the device can help it."""

    now: float
    attempt: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was overheard of another owner's upload: history, nothing more."""

    now: float
    state: State
    attempt: int = 1
    file_size: int | None = None
    etags: dict[int, str] = field(default_factory=dict)
    error: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupDone:
    """What a duty had to remove (a multipart upload, a stray object) is gone."""

    now: float
    target: str


RemoteEvent = PartsRequested | Succeeded | ErrorReported | Rejected | CancelledByClient | Progressed
LocalEvent = (
    Dispatched
    | MissingFromHello
    | StepTimedOut
    | CancelRequested
    | DeadlinePassed
    | MultipartCreated
    | CompletionProven
    | CompletionFailed
    | ObjectStoreRejected
    | Observed
    | CleanupDone
)
Event = RemoteEvent | LocalEvent
REMOTE_EVENTS: Final = (PartsRequested, Succeeded, ErrorReported, Rejected, CancelledByClient, Progressed)


# --- what is to be done ----------------------------------------------------------------------------------------------
