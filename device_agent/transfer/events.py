"""What can happen to one upload on the device, and what it can ask to be done.

Rule: shapes only. `now` is in seconds on a clock that never goes back and runs through suspend; `jitter` is a random
number from 0 to 1, drawn by the caller.
"""

from collections.abc import Mapping

from msgspec import Struct

from device_agent.errors import PutFailure
from device_agent.transfer.records import Order, TransferRecord
from schemas.messages import Response
from schemas.parts import Part
from schemas.values import DigestName, ErrorCode, Fingerprint, PresignedPart


class Seen(Struct, frozen=True):
    """What the open source looked like after it was read; `fingerprint` is None when nobody could look.

    `linked` is False once its path no longer leads to it; `gone` is True when the path then leads nowhere.
    """

    fingerprint: Fingerprint | None = None
    linked: bool = True
    gone: bool = False


# What the owner says. Late and repeated ones change nothing.


class Repeated(Struct, frozen=True, kw_only=True):
    """`download_file` of this attempt came again."""

    now: float
    acknowledges: int = 0


class Granted(Struct, frozen=True, kw_only=True):
    """URLs for some parts; `lifetime` in seconds from now, None when unknown."""

    now: float
    acknowledges: int = 0
    completed: tuple[tuple[int, int], ...] = ()
    parts: tuple[PresignedPart, ...] = ()
    lifetime: float | None = None
    chunk_size: int | None = None


class GrantRefused(Struct, frozen=True, kw_only=True):
    """A grant that this agent will not use: a foreign host, a header it does not send."""

    now: float
    code: ErrorCode
    text: str


class CancelRequested(Struct, frozen=True, kw_only=True):
    """Somebody wants this upload stopped."""

    now: float


class CloseReceived(Struct, frozen=True, kw_only=True):
    """The owner has ended this upload; nothing is to be answered."""

    now: float
    outcome: str


# What happens on the device.


class Admitted(Struct, frozen=True, kw_only=True):
    """This upload's turn has come."""

    now: float


class Opened(Struct, frozen=True, kw_only=True):
    """The source is open. `digest` is that of a small file, which is read where it is opened."""

    now: float
    fingerprint: Fingerprint
    digest: str | None = None


class OpenRefused(Struct, frozen=True, kw_only=True):
    """The source cannot be opened."""

    now: float
    code: ErrorCode
    text: str


class Digested(Struct, frozen=True, kw_only=True):
    """Digests of parts to be asked for; None for a part whose reading was stopped."""

    now: float
    digests: Mapping[int, str | None]


class Rechecked(Struct, frozen=True, kw_only=True):
    """Digests, taken again, of parts that were stored before the source was reopened."""

    now: float
    digests: Mapping[int, str | None]


class WorkerFree(Struct, frozen=True, kw_only=True):
    """One part may be begun; `rate` is the bytes per second that one part was seen to reach, None if unknown."""

    now: float
    rate: float | None = None


class Held(Struct, frozen=True, kw_only=True):
    """The store of the next part is to be left alone until then, for whatever upload it turned away."""

    now: float
    until: float


class PartStored(Struct, frozen=True, kw_only=True):
    """The store has taken a part; `etag` is empty when it held the object already (412)."""

    now: float
    number: int
    etag: str
    seen: Seen


class PartFailed(Struct, frozen=True, kw_only=True):
    """A PUT stored nothing that we may rely on."""

    now: float
    number: int
    kind: PutFailure
    text: str
    seen: Seen
    retry_after: float | None = None
    jitter: float = 0.5


class Tick(Struct, frozen=True, kw_only=True):
    """Time has passed; see `transfer.wake_at`."""

    now: float
    jitter: float = 0.5


class Faulted(Struct, frozen=True, kw_only=True):
    """The agent itself cannot go on with this upload."""

    now: float
    code: ErrorCode
    text: str


RemoteEvent = Repeated | Granted | GrantRefused | CancelRequested | CloseReceived
WorkEvent = Admitted | Opened | OpenRefused | Digested | Rechecked | WorkerFree | Held | PartStored | PartFailed
Event = RemoteEvent | WorkEvent | Tick | Faulted


class Keep(Struct, frozen=True):
    """Make this durable before anything else that this event asks for."""

    record: TransferRecord


class PublishResponse(Struct, frozen=True):
    """Publish this response; the caller adds its epoch."""

    response: Response


class OpenSource(Struct, frozen=True):
    """Open the order's file and report `Opened` or `OpenRefused`."""

    order: Order


class DigestParts(Struct, frozen=True):
    """Digest these parts and report `Digested`; with `recheck`, report `Rechecked`."""

    parts: tuple[Part, ...]
    digest: DigestName
    recheck: bool = False


class PutPart(Struct, frozen=True):
    """Send this part to this URL and report `PartStored` or `PartFailed`."""

    url: PresignedPart
    part: Part


class StopParts(Struct, frozen=True):
    """Stop every PUT under way, and close the source once none reads it."""


class WriteTombstone(Struct, frozen=True):
    """Forget all but the outcome."""

    outcome: str


class Count(Struct, frozen=True):
    """Count something that was dropped; `what` names the counter."""

    what: str


Effect = Keep | PublishResponse | OpenSource | DigestParts | PutPart | StopParts | WriteTombstone | Count
