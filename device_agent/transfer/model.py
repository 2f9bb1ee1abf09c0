"""One upload as the device sees it: its state as a value, the questions one can put to it, and how it is restored.

Rule: immutable and free of IO. What `replay` rebuilds is durable; the rest (URLs, parts under way, a question) is lost
in a crash and asked for again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from device_agent.errors import IllegalTransition
from device_agent.transfer.part_set import NO_PARTS, PartSet
from device_agent.transfer.records import Ending, Order
from schemas.parts import PartPlan, plan_as_given, plan_parts
from schemas.values import Fingerprint, PresignedPart

NO_OWNER: Final = "cli-unknown"
"""The owner of a pre-granted command that names none: it never answers."""


class State(StrEnum):
    """Where one upload stands on the device."""

    QUEUED = "queued"
    """Other uploads are before it; nothing is open."""
    OPENING = "opening"
    """The source is being opened."""
    REQUESTING = "asking"
    """A question is being prepared or unanswered, and nothing can be sent."""
    SENDING = "sending"
    """Granted parts are under way or ready to be; a question may be unanswered too."""
    WAITING = "waiting"
    """Nothing can be sent before `Transfer.wakes_at`, for a named reason."""
    CHECKING = "checking"
    """Every part is stored; those are being digested again that were stored before the source was reopened or moved."""
    ENDED = "ended"
    """The final answer has been said, and is repeated until the owner closes the upload."""
    CLOSED = "closed"
    """Only a tombstone is left."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A URL for a part that is not stored yet; `expires_at` is None when its life is unknown."""

    url: PresignedPart
    expires_at: float | None = None
    lifetime: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The etag of a stored part that the owner has not acknowledged; `said` is 0 until a response told it."""

    etag: str
    said: int = 0


@dataclass(frozen=True, slots=True)
class PartRequest:
    """Parts that were, or are about to be, asked for. `sequence` is 0 while their digests are taken."""

    numbers: tuple[int, ...]
    sequence: int = 0
    answered: bool = False


@dataclass(frozen=True, slots=True)
class PartRetry:
    """What went wrong with one part so far; it is not begun again before `until`."""

    failures: int = 0
    refusals: int = 0
    mismatches: int = 0
    until: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
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
    """Of every part that we stored; needed when the source is opened again."""
    # Lost in a crash.
    opened: Fingerprint | None = None
    """The source as it is open now; None while it is not."""
    moved: bool = False
    """Under `prefix`: the open source was seen to have changed, and perhaps it did more than grow."""
    unchecked: PartSet = NO_PARTS
    grants: Mapping[int, Grant] = field(default_factory=dict)
    last_granted: PartSet = NO_PARTS
    in_flight: PartSet = NO_PARTS
    offered: Mapping[int, str] = field(default_factory=dict)
    """Digests of parts that were asked for and are not stored."""
    digesting: tuple[int, ...] = ()
    """Parts that are being digested now."""
    ahead: Mapping[int, str] = field(default_factory=dict)
    """Digests of parts that are about to be asked for."""
    request: PartRequest | None = None
    retries: Mapping[int, PartRetry] = field(default_factory=dict)
    hold_until: float = 0.0
    """The store asked to be left alone until then."""
    request_after: float = 0.0
    failures: int = 0
    """Failed PUTs since a part was last stored."""
    renewals: int = 0
    """URLs that ran out since a part was last stored."""
    empty_grants: int = 0
    published_at: float = 0.0
    republish_at: float | None = None
    """When the latest response is said again."""
    repeats: int = 0
    unanswered_since: float | None = None

    @property
    def plan(self) -> PartPlan:
        """The part plan; `IllegalTransition` before the source was ever opened."""
        if self.source is None:
            text = f"upload {self.order.upload_id} has no plan before its source is open"
            raise IllegalTransition(text)
        return plan_of(self.order, self.source.size)

    @property
    def done(self) -> PartSet:
        """Parts that need not be sent."""
        return self.settled | PartSet.of(self.kept)

    @property
    def complete(self) -> bool:
        """Whether every part is stored."""
        return self.source is not None and len(self.done) >= self.plan.total

    @property
    def prefix(self) -> bool:
        """Whether the source may grow while it is sent."""
        return self.order.options.on_change == "prefix"

    @property
    def startable(self) -> list[int]:
        """Granted parts that are not under way, ascending."""
        return sorted(number for number in self.grants if number not in self.in_flight)

    @property
    def awaiting_grant(self) -> bool:
        """Whether a question was said and not answered."""
        return self.request is not None and self.request.sequence > 0 and not self.request.answered

    @property
    def preparing_request(self) -> bool:
        """Whether a question waits for the digests of its parts."""
        return self.request is not None and self.request.sequence == 0


def plan_of(order: Order, file_size: int) -> PartPlan:
    """The part plan; `SchemaError` for sizes that S3 does not take."""
    plan = plan_as_given if order.pregranted else plan_parts
    return plan(file_size, order.chunk_size)


def grant_of(url: PresignedPart, now: float, lifetime: float | None) -> Grant:
    """A URL received `now`; its life counts from receipt."""
    return Grant(url, None if lifetime is None else now + lifetime, lifetime)


def bytes_of(plan: PartPlan, parts: PartSet) -> int:
    """Bytes in these parts, without walking through them."""
    members = len(parts)
    if plan.total in parts:
        return (members - 1) * plan.part_size + plan.part(plan.total).size
    return members * plan.part_size


def acknowledge(transfer: Transfer, sequence: int) -> Transfer:
    """The owner has committed every response up to `sequence`: its etags are never told again.

    An acknowledgement of more than we remember moves our count on, so that no sequence is used twice.
    """
    if sequence <= transfer.acknowledged:
        return transfer
    told = PartSet.of(number for number, kept in transfer.kept.items() if 0 < kept.said <= sequence)
    return replace(
        transfer,
        acknowledged=sequence,
        sequence=max(transfer.sequence, sequence),
        settled=transfer.settled | told,
        kept={number: kept for number, kept in transfer.kept.items() if number not in told},
    )


def number_response(transfer: Transfer, sequence: int) -> Transfer:
    """Number the next response: it carries every etag that no response has told."""
    kept = {number: replace(part, said=part.said or sequence) for number, part in transfer.kept.items()}
    return replace(transfer, sequence=sequence, kept=kept)


def settle(transfer: Transfer, parts: PartSet) -> Transfer:
    """These parts count as sent; nothing about them is told again."""
    return replace(
        transfer,
        settled=transfer.settled | parts,
        kept={number: kept for number, kept in transfer.kept.items() if number not in parts},
        grants={number: grant for number, grant in transfer.grants.items() if number not in parts},
    )
