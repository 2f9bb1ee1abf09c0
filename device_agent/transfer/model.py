"""One upload on the device as an immutable value: its fields, and what can be computed from them alone.

Rule: immutable and free of IO. The fields that `replay` restores are durable; a crash loses the others (URLs, parts in
flight, a request), and they are requested again.
"""

import functools
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import replace

from device_agent.errors import IllegalTransition
from device_agent.transfer.part_set import NO_PARTS, PartSet
from device_agent.transfer.records import Ending, Order
from schemas.parts import PartPlan, plan_as_given, plan_parts
from schemas.values import DigestName, Fingerprint, PresignedPart


class State(StrEnum):
    """The state of one upload on the device."""

    QUEUED = "queued"
    """Waits for a slot; the source is not open."""
    OPENING = "opening"
    """The source is being opened."""
    REQUESTING = "requesting"
    """A request for URLs is being prepared or not answered yet, and no part can be sent."""
    SENDING = "sending"
    """Granted parts are in flight or can be started; a request may be open too."""
    WAITING = "waiting"
    """No part can be sent before a known moment, for a reason that is reported."""
    CHECKING = "checking"
    """Every part is stored; parts stored before the source was reopened or changed are digested again."""
    ENDED = "ended"
    """The final response is published, and repeated until the owner closes the upload."""
    CLOSED = "closed"
    """Only a tombstone is left."""


class Grant(Struct, frozen=True):
    """A URL for a part that is not stored yet; `expires_at` and `lifetime` are None when its life is unknown."""

    url: PresignedPart
    expires_at: float | None = None
    lifetime: float | None = None


class Kept(Struct, frozen=True):
    """The etag of a stored part that the owner has not acknowledged.

    `reported_in` is the sequence of the first response with it, 0 before that.
    """

    etag: str
    reported_in: int = 0


class PartRequest(Struct, frozen=True):
    """The parts of one request for URLs. `sequence` is 0 while they are digested and nothing is published."""

    numbers: tuple[int, ...]
    sequence: int = 0
    answered: bool = False


class Hold(Struct, frozen=True):
    """The owner grants nothing before `until`, and has given the reason."""

    reason: str
    until: float


class PartRetry(Struct, frozen=True):
    """The failures of one part so far; it is not started again before `until`."""

    failures: int = 0
    refusals: int = 0
    mismatches: int = 0
    until: float = 0.0
    text: str = ""


# A Struct is copied with changes by one call in C; `dict` is for the cached properties.
class Transfer(Struct, frozen=True, dict=True):
    """One attempt of one upload."""

    order: Order
    state: State = State.QUEUED
    # Durable.
    sequence: int = 0
    acknowledged: int = 0
    source: Fingerprint | None = None
    ending: Ending | None = None
    settled: PartSet = NO_PARTS
    kept: Mapping[int, Kept] = field(default_factory=dict)
    digests: Mapping[int, str] = field(default_factory=dict)
    """Of every part that this device stored; compared when the source is opened again."""
    contents: Mapping[int, str] = field(default_factory=dict)
    """Of a sealed file: digests of the file's bytes in parts that were offered and are not stored."""
    # Lost in a crash.
    measured: int | None = None
    """Bytes in a source that was not opened yet."""
    opened: Fingerprint | None = None
    """The fingerprint of the open source; None while it is closed."""
    doubtful: bool = False
    """The open source may have changed, and no size or time shows it: the parts that were sent are to be compared."""
    unchecked: PartSet = NO_PARTS
    grants: Mapping[int, Grant] = field(default_factory=dict)
    last_granted: PartSet = NO_PARTS
    in_flight: PartSet = NO_PARTS
    offered: Mapping[int, str] = field(default_factory=dict)
    """Digests of parts that were requested and are not stored."""
    digesting: tuple[int, ...] = ()
    """Parts that are being digested."""
    ahead: Mapping[int, str] = field(default_factory=dict)
    """Digests of parts of the next request."""
    request: PartRequest | None = None
    retries: Mapping[int, PartRetry] = field(default_factory=dict)
    paused_until: float = 0.0
    """No part is started before this moment."""
    request_after: float = 0.0
    """No request is published before this moment."""
    hold: Hold | None = None
    barred: str | None = None
    """Why the device's own limits let no part begin; None while they do."""
    rate: int | None = None
    """Bytes per second that the owner has set with its latest grant."""
    failures: int = 0
    """Failed PUTs since a part was last stored."""
    renewals: int = 0
    """URLs that expired since a part was last stored."""
    unreadable: int = 0
    """Times that the system could not read the source since a part was last stored; a resume keeps the count."""
    unreadable_since: float | None = None
    empty_grants: int = 0
    """Answers without a usable URL in a row."""
    published_at: float = 0.0
    """When the latest response was published."""
    republish_at: float | None = None
    """When the latest response is published again."""
    repeats: int = 0
    unanswered_since: float | None = None

    @property
    def known_size(self) -> int | None:
        """Bytes in the source, as far as it is known: once it was measured or opened."""
        return self.measured if self.source is None else self.source.size

    @property
    def plan(self) -> PartPlan:
        """The part plan; `IllegalTransition` before the source was first opened."""
        if self.source is None:
            text = f"upload {self.order.upload_id} has no plan before its source is open"
            raise IllegalTransition(text)
        return plan_of(self.order, self.source.size)

    # Most events look at these several times, and a value never changes.

    @functools.cached_property
    def done(self) -> PartSet:
        """Parts that need not be sent."""
        return self.settled | PartSet.of(self.kept)

    @functools.cached_property
    def startable(self) -> tuple[int, ...]:
        """Granted parts that are not in flight, ascending."""
        return tuple(sorted(number for number in self.grants if number not in self.in_flight))

    @property
    def complete(self) -> bool:
        """Whether every part is stored."""
        return self.source is not None and len(self.done) >= self.plan.total

    @property
    def prefix(self) -> bool:
        """Whether the source may grow while it is sent."""
        return self.order.options.on_change == "prefix"

    @property
    def digested(self) -> bool:
        """Whether every part is digested before it is sent, so that the file can be compared with it later."""
        return self.order.digest is not DigestName.NONE and not self.order.pregranted

    @property
    def rate_limit(self) -> int | None:
        """Bytes per second of all parts together; None without a limit."""
        return self.rate or self.order.options.max_bytes_per_second

    @property
    def awaiting_grant(self) -> bool:
        """Whether a request was published and not answered."""
        return self.request is not None and self.request.sequence > 0 and not self.request.answered

    @property
    def preparing_request(self) -> bool:
        """Whether a request waits for the digests of its parts."""
        return self.request is not None and self.request.sequence == 0


def plan_of(order: Order, file_size: int) -> PartPlan:
    """The part plan for `file_size` bytes; `SchemaError` for sizes that S3 does not accept."""
    return _plan(order.pregranted, file_size, order.chunk_size)


@functools.lru_cache(maxsize=256)
def _plan(pregranted: bool, file_size: int, chunk_size: int) -> PartPlan:  # noqa: FBT001 (a key of the cache)
    return (plan_as_given if pregranted else plan_parts)(file_size, chunk_size)


def grant_of(url: PresignedPart, now: float, lifetime: float | None) -> Grant:
    """A URL received `now`; its life counts from receipt."""
    return Grant(url, None if lifetime is None else now + lifetime, lifetime)


def bytes_of(plan: PartPlan, parts: PartSet) -> int:
    """Bytes in these parts, computed without a loop."""
    members = len(parts)
    if plan.total in parts:
        return (members - 1) * plan.part_size + plan.part(plan.total).size
    return members * plan.part_size


def acknowledge(transfer: Transfer, sequence: int) -> Transfer:
    """The owner has committed every response up to `sequence`: its etags are never reported again.

    An acknowledgement beyond the known sequence moves the count on, so that no sequence is used twice.
    """
    if sequence <= transfer.acknowledged:
        return transfer
    reported = PartSet.of(number for number, kept in transfer.kept.items() if 0 < kept.reported_in <= sequence)
    return replace(
        transfer,
        acknowledged=sequence,
        sequence=max(transfer.sequence, sequence),
        settled=transfer.settled | reported,
        kept={number: kept for number, kept in transfer.kept.items() if number not in reported},
    )


def number_response(transfer: Transfer, sequence: int) -> Transfer:
    """Give the next response this sequence: it carries every etag that no response has reported."""
    kept = {number: replace(part, reported_in=part.reported_in or sequence) for number, part in transfer.kept.items()}
    return replace(transfer, sequence=sequence, kept=kept)


def settle(transfer: Transfer, parts: PartSet) -> Transfer:
    """These parts count as sent; they are not reported again."""
    return replace(
        transfer,
        settled=transfer.settled | parts,
        kept={number: kept for number, kept in transfer.kept.items() if number not in parts},
        grants={number: grant for number, grant in transfer.grants.items() if number not in parts},
        contents={number: content for number, content in transfer.contents.items() if number not in parts},
    )
