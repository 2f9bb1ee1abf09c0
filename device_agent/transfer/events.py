"""The events that can happen to one upload on the device, and the effects that it can request.

Rule: shapes only. `now` is in seconds on a clock that never goes back and runs through suspend; `jitter` is a random
number from 0 to 1, drawn by the caller.
"""

from collections.abc import Mapping

from msgspec import Struct

from device_agent.errors import PutFailure
from device_agent.transfer.records import Afterwards, Order, ReceiptDue, TransferRecord
from schemas.messages import ReceiptOrder, Response, Wait
from schemas.parts import Part
from schemas.values import DigestName, ErrorCode, Fingerprint, PresignedPart


class Seen(Struct, frozen=True):
    """The open source after it was read; `fingerprint` is None when it could not be examined.

    `linked` is False once the path no longer leads to this file; `gone` is True when the path then leads nowhere.
    `ends` is False when bytes follow after the size that the file had when it was opened.
    """

    fingerprint: Fingerprint | None = None
    linked: bool = True
    gone: bool = False
    ends: bool = True


# Events from the owner. A late or repeated one changes nothing.


class Repeated(Struct, frozen=True, kw_only=True):
    """`download_file` of this attempt was received again."""

    now: float
    acknowledges: int = 0


class Granted(Struct, frozen=True, kw_only=True):
    """URLs for some parts; `lifetime` in seconds from now, None when unknown. Or a wait in place of URLs.

    `rate` is the limit in bytes per second from now on; URLs without it end a limit that was set before.
    """

    now: float
    acknowledges: int = 0
    completed: tuple[tuple[int, int], ...] = ()
    parts: tuple[PresignedPart, ...] = ()
    lifetime: float | None = None
    chunk_size: int | None = None
    wait: Wait | None = None
    rate: int | None = None


class GrantRefused(Struct, frozen=True, kw_only=True):
    """A grant that this agent does not use: its host is not allowed, or it needs a header that is not sent."""

    now: float
    code: ErrorCode
    text: str


class CancelRequested(Struct, frozen=True, kw_only=True):
    """`cancel_upload` was received."""

    now: float


class CloseReceived(Struct, frozen=True, kw_only=True):
    """The owner has ended this upload, of this `attempt`; no response is expected.

    `proof` and `receipt` as in `close_upload`; an agent without a key takes no `receipt`.
    """

    now: float
    outcome: str
    attempt: int = 1
    proof: str | None = None
    receipt: ReceiptOrder | None = None


# Events on the device.


class Measured(Struct, frozen=True, kw_only=True):
    """The size of a source that waits to be opened, in bytes; 0 when it cannot be opened."""

    now: float
    size: int


class Admitted(Struct, frozen=True, kw_only=True):
    """The scheduler has given this upload a slot."""

    now: float


class Opened(Struct, frozen=True, kw_only=True):
    """The source is open. `digest` is set for a small file, which is digested by the thread that opens it.

    `racy` is True when the file changed so short a time ago that a later change may leave its times as they are.
    """

    now: float
    fingerprint: Fingerprint
    racy: bool = False
    digest: str | None = None


class OpenRefused(Struct, frozen=True, kw_only=True):
    """The source cannot be opened."""

    now: float
    code: ErrorCode
    text: str


class Digested(Struct, frozen=True, kw_only=True):
    """Digests of parts to be requested; None for a part that was not read to its end.

    `contents` are digests of the file's own bytes in the parts of a sealed file.
    """

    now: float
    digests: Mapping[int, str | None]
    contents: Mapping[int, str] = {}


class Rechecked(Struct, frozen=True, kw_only=True):
    """New digests of parts that were stored before the source was reopened, or before it may have changed."""

    now: float
    digests: Mapping[int, str | None]


class WorkerFree(Struct, frozen=True, kw_only=True):
    """One part may be started; `rate` is the measured bytes per second of one part, None if unknown."""

    now: float
    rate: float | None = None


class HostPaused(Struct, frozen=True, kw_only=True):
    """The host of the next part gets no request before `until`, because of failures of any upload."""

    now: float
    until: float


class Barred(Struct, frozen=True, kw_only=True):
    """The device's own limits let no part begin, for this reason; None: they do again."""

    now: float
    reason: str | None


class PartStored(Struct, frozen=True, kw_only=True):
    """The object store has a part; `etag` is empty when the object was there already (412)."""

    now: float
    number: int
    etag: str
    seen: Seen


class PartFailed(Struct, frozen=True, kw_only=True):
    """A PUT that stored nothing that can be relied on."""

    now: float
    number: int
    kind: PutFailure
    text: str
    seen: Seen
    retry_after: float | None = None
    jitter: float = 0.5


class Tick(Struct, frozen=True, kw_only=True):
    """Time has passed; see `machine.wake_at`."""

    now: float
    jitter: float = 0.5


class Faulted(Struct, frozen=True, kw_only=True):
    """The agent itself failed on this upload."""

    now: float
    code: ErrorCode
    text: str


RemoteEvent = Repeated | Granted | GrantRefused | CancelRequested | CloseReceived
WorkEvent = (
    Measured
    | Admitted
    | Opened
    | OpenRefused
    | Digested
    | Rechecked
    | WorkerFree
    | HostPaused
    | Barred
    | PartStored
    | PartFailed
)
Event = RemoteEvent | WorkEvent | Tick | Faulted


class Keep(Struct, frozen=True):
    """Append this record to the journal, before the other effects of the same event."""

    record: TransferRecord


class PublishResponse(Struct, frozen=True):
    """Publish this response; the caller adds its epoch."""

    response: Response


class MeasureSource(Struct, frozen=True):
    """Look how large the order's file is, and report `Measured`."""

    order: Order


class OpenSource(Struct, frozen=True):
    """Open the order's file and report `Opened` or `OpenRefused`."""

    order: Order


class DigestParts(Struct, frozen=True):
    """Digest these parts and report `Digested`; with `recheck`, report `Rechecked`."""

    parts: tuple[Part, ...]
    digest: DigestName
    recheck: bool = False


class PutPart(Struct, frozen=True):
    """Send this part to this URL and report `PartStored` or `PartFailed`.

    `content` is what the file must still have in this part of a sealed file; None for any other file.
    """

    url: PresignedPart
    part: Part
    content: str | None = None


class StopParts(Struct, frozen=True):
    """Stop every PUT that is in flight, and close the source after the last read."""


class WriteTombstone(Struct, frozen=True):
    """Replace everything known about the upload by its outcome, what is to be done with its file, and its receipt."""

    outcome: str
    after: Afterwards | None = None
    receipt: ReceiptDue | None = None


class Count(Struct, frozen=True):
    """Increment the counter named `what`."""

    what: str


Effect = Keep | PublishResponse | OpenSource | DigestParts | PutPart | StopParts | WriteTombstone | Count
