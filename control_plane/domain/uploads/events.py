"""What can happen to an upload.

Rule: an event carries its time, `now`, in seconds since the epoch. Remote events come from the device: they may be
repeated, late or false, and never raise. Local events come from the control plane: an illegal one raises.
"""

from dataclasses import dataclass, field
from typing import Final

from control_plane.domain.reasons import Reason
from control_plane.domain.uploads.model import Proof, State, UploadReceipt
from schemas.names import covers_owner
from schemas.values import DigestName, ErrorCode, Fingerprint, WantedPart

# --- remote: from the device -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote:
    """`sequence` is None in a response outside the count, such as `cancelled` for an unknown upload.

    `etags` are those of stored parts, by part number.
    """

    now: float
    attempt: int = 1
    sequence: int | None = None
    etags: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRequested(_Remote):
    """The client offers its file, or requests more URLs; a request may leave out the fields of the offer.

    `file_path` is the path on the device, `file_size` is in bytes. `one_put` are the digests under which this object
    store lets a file of one part be granted as one PutObject. `encrypt_to` are the recipients that it is sealed for.
    """

    file_path: str | None = None
    file_size: int | None = None
    fingerprint: Fingerprint | None = None
    wanted: tuple[WantedPart, ...] = ()
    one_put: frozenset[DigestName] = frozenset()
    encrypt_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded(_Remote):
    """The client reports that every part is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReported(_Remote):
    """The client stopped with an error.

    What follows (the same attempt again, a new one, the end) depends on `code`; `delay` (s) is the pause before the
    upload is dispatched again.
    """

    code: ErrorCode
    text: str = ""
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(_Remote):
    """The client rejects the upload for good."""

    code: ErrorCode
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledByClient(_Remote):
    """The client stopped because it received a cancel, from this owner or from another sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed(_Remote):
    """A status message: `bytes_sent` in this attempt, and the reason while the client waits. It may be lost."""

    bytes_sent: int
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterReported(_Remote):
    """The receipt about the file of an upload that is over; `outcome` is an `AfterOutcome`."""

    outcome: str
    code: str | None = None
    text: str | None = None


# --- local: from the control plane -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """The download command of this attempt was published to a connected client."""

    now: float
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFromHello:
    """The client's hello, received at `now`, does not list this upload: the client lost its command."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimedOut:
    """A command was published to a connected client, and no response or progress came for a step timer."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """An operator cancels this upload, or no one may have it; `text` is what the upload shows then."""

    now: float
    text: str = "cancelled by an operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The upload's deadline passed, or lies further ahead than any deadline can."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipartCreated:
    """The object store opened a multipart upload for this attempt."""

    now: float
    attempt: int
    s3_upload_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionProven:
    """The object exists and is the file, on the ground of `proof`; `receipt` is the one to be made, if any."""

    now: float
    attempt: int
    proof: Proof
    receipt: UploadReceipt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptSigned:
    """The receipt of this attempt is signed: by the control plane, and by the device if there is a `device_key`."""

    now: float
    attempt: int
    envelope: str
    witness_key: str
    device_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRefused:
    """The device has signed what the database contradicts, or with another key; `text` says which."""

    now: float
    attempt: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptDone:
    """The receipt `envelope` is where it is to be."""

    now: float
    attempt: int
    envelope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionFailed:
    """The object is not the file, or can never come to exist.

    With `again` a new attempt follows after `delay` (s); without it the upload fails with `error`. With `left` an
    object of this attempt exists.
    """

    now: float
    attempt: int
    error: str
    text: str
    again: bool = False
    left: bool = False
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetBack:
    """The object store refused a step, or shows no proven object.

    What it answers may change: the step is due again in `delay` (s), and the upload waits for `reason` until then.
    `setbacks` is the upload's count when the step began, so a step that two replicas performed counts once. The last of
    MAX_SETBACKS has the effect of a `CompletionFailed` with `error`, `again` and the text of the reason. `left` is how
    an object is recognised that the attempt may have left (`Stray.token`); None when it left none.
    """

    now: float
    attempt: int
    setbacks: int
    reason: Reason
    error: str
    delay: float
    again: bool = False
    left: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The gate refused a grant for `reason`; it is checked again at `wake_at` (s since the epoch).

    `attempt` and `sequence` are of the request that was refused.
    """

    now: float
    attempt: int
    sequence: int
    reason: Reason
    wake_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOpened:
    """The grant that the gate had refused was published."""

    now: float
    attempt: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineMoved:
    """An operator moved the deadline to `deadline` (s since the epoch)."""

    now: float
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OverQuota:
    """The client offered more bytes than it may upload in a day."""

    now: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupDone:
    """The target of a clean-up duty (a multipart upload, a stray object) is gone."""

    now: float
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A command or response of another owner's upload passed by. `file_size` is in bytes.

    `owners` are patterns for those whose uploads the signer of the command may change; None for what no key signed.
    """

    now: float
    state: State
    attempt: int = 1
    file_size: int | None = None
    etags: dict[int, str] = field(default_factory=dict)
    error: str | None = None
    text: str | None = None
    owners: tuple[str, ...] | None = None

    def may_change(self, owner: str) -> bool:
        """Whether this may change an upload of an owner."""
        return self.owners is None or covers_owner(self.owners, owner)


UploadResponse = PartsRequested | Succeeded | ErrorReported | Rejected | CancelledByClient
"""Events from the response channel: acknowledged, and counted by `sequence`."""

RemoteEvent = UploadResponse | Progressed | AfterReported
LocalEvent = (
    Dispatched
    | MissingFromHello
    | StepTimedOut
    | CancelRequested
    | DeadlinePassed
    | MultipartCreated
    | CompletionProven
    | ReceiptSigned
    | ReceiptRefused
    | ReceiptDone
    | CompletionFailed
    | SetBack
    | Held
    | GateOpened
    | DeadlineMoved
    | OverQuota
    | CleanupDone
    | Observed
)
Event = RemoteEvent | LocalEvent
Heard = Dispatched | CancelRequested | Observed
"""What the command of another sender does to the upload that it is about."""

RESPONSES: Final = (PartsRequested, Succeeded, ErrorReported, Rejected, CancelledByClient)
REMOTE_EVENTS: Final = (*RESPONSES, Progressed, AfterReported)
