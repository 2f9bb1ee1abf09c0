"""What can happen to one upload on the device, and what it can ask to be done.

Rule: shapes only. `now` is in seconds on a clock that never goes back and runs through suspend; `jitter` is a random
number from 0 to 1, drawn by the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from device_agent.errors import PutFailure
from device_agent.records import Order, TransferRecord
from schemas.messages import Response
from schemas.parts import Part
from schemas.values import DigestName, ErrorCode, Fingerprint, PresignedPart


@dataclass(frozen=True, slots=True)
class Seen:
    """What the open source looked like after it was read; `fingerprint` is None when nobody could look.

    `linked` is False once its path no longer leads to it; `gone` is True when the path then leads nowhere.
    """

    fingerprint: Fingerprint | None = None
    linked: bool = True
    gone: bool = False


# What the owner says. Late and repeated ones change nothing.


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """`download_file` of this attempt came again."""

    now: float
    acknowledges: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """URLs for some parts; `lifetime` in seconds from now, None when unknown."""

    now: float
    acknowledges: int = 0
    completed: tuple[tuple[int, int], ...] = ()
    parts: tuple[PresignedPart, ...] = ()
    lifetime: float | None = None
    chunk_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRefused:
    """A grant that this agent will not use: a foreign host, a header it does not send."""

    now: float
    code: ErrorCode
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsked:
    """Somebody wants this upload stopped."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseAsked:
    """The owner has ended this upload; nothing is to be answered."""

    now: float
    outcome: str


# What happens on the device.


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """This upload's turn has come."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The source is open."""

    now: float
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRefused:
    """The source cannot be opened."""

    now: float
    code: ErrorCode
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Digested:
    """Digests of parts to be asked for; None for a part that could not be read in full."""

    now: float
    digests: Mapping[int, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechecked:
    """Digests, taken again, of parts that were stored before the source was reopened."""

    now: float
    digests: Mapping[int, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFree:
    """One part may be begun; `rate` is the bytes per second that one part was seen to reach, None if unknown."""

    now: float
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The store of the next part is to be left alone until then, for whatever upload it turned away."""

    now: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStored:
    """The store has taken a part; `etag` is empty when it held the object already (412)."""

    now: float
    number: int
    etag: str
    seen: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFailed:
    """A PUT stored nothing that we may rely on."""

    now: float
    number: int
    kind: PutFailure
    text: str
    seen: Seen
    retry_after: float | None = None
    jitter: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed; see `transfer.wake_at`."""

    now: float
    jitter: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulted:
    """The agent itself cannot go on with this upload."""

    now: float
    code: ErrorCode
    text: str


RemoteEvent = Repeated | Granted | GrantRefused | CancelAsked | CloseAsked
WorkEvent = Admitted | Opened | OpenRefused | Digested | Rechecked | WorkerFree | Held | PartStored | PartFailed
Event = RemoteEvent | WorkEvent | Tick | Faulted


@dataclass(frozen=True, slots=True)
class Keep:
    """Make this durable before anything else that this event asks for."""

    record: TransferRecord


@dataclass(frozen=True, slots=True)
class Say:
    """Publish this response; the caller adds its epoch."""

    response: Response


@dataclass(frozen=True, slots=True)
class OpenSource:
    """Open the order's file and report `Opened` or `OpenRefused`."""

    order: Order


@dataclass(frozen=True, slots=True)
class DigestParts:
    """Digest these parts and report `Digested`; with `recheck`, report `Rechecked`."""

    parts: tuple[Part, ...]
    digest: DigestName
    recheck: bool = False


@dataclass(frozen=True, slots=True)
class PutPart:
    """Send this part to this URL and report `PartStored` or `PartFailed`."""

    url: PresignedPart
    part: Part


@dataclass(frozen=True, slots=True)
class StopParts:
    """Stop every PUT under way, and close the source once none reads it."""


@dataclass(frozen=True, slots=True)
class Entomb:
    """Forget all but the outcome."""

    outcome: str


@dataclass(frozen=True, slots=True)
class Count:
    """Count something that was dropped; `what` names the counter."""

    what: str


Effect = Keep | Say | OpenSource | DigestParts | PutPart | StopParts | Entomb | Count
