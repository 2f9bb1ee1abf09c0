"""Webhooks, and the deliveries of changes to them.

Rule: pure. A delivery is tried until it is answered with 2xx, for three days; then it is dead, and an operator may
replay it. Instants are seconds since the epoch (UTC).
"""

from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

PATIENCE: Final = 3 * 86_400.0
"""Seconds after its creation, or its replay, for which a delivery is tried."""

GONE: Final = 410
"""The status with which a receiver ends its subscription (Standard Webhooks)."""


class Webhook(Struct, frozen=True, kw_only=True):
    """Where changes are sent, and which: `types` and `selector` as for an event stream; empty for all.

    `position` is the number of the last change of the log that was looked at for it; `note` is why it is disabled.
    """

    webhook_id: str
    url: str
    types: tuple[str, ...]
    selector: str
    secret: str
    enabled: bool
    note: str
    position: int
    created_at: float
    created_by: str


class DeliveryState(StrEnum):
    """The states of a delivery; one that is replayed waits again."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


class Delivery(Struct, frozen=True, kw_only=True):
    """One change for one webhook. `number` is that of the change; `body` is what is sent.

    `due_at` is None once it has ended, and later than any instant while an older delivery of the same subject waits.
    `since` is when it was created or replayed; `status` is that of the last answer, None without one.
    """

    webhook_id: str
    number: int
    type: str
    subject: str
    body: str
    state: DeliveryState
    due_at: float | None
    since: float
    tries: int = 0
    tried_at: float | None = None
    status: int | None = None
    error: str | None = None


class ReceiverAnswer(Struct, frozen=True, kw_only=True):
    """What a receiver answered: a status, or None and why there is none; `retry_after` (s) as in its answer."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether the receiver has the message."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110 section 15.3


def after_try(delivery: Delivery, answer: ReceiverAnswer, now: float, pause: float) -> Delivery:
    """The delivery after a try that ended at `now`; the next one begins `pause` seconds later."""
    tried = replace(delivery, tried_at=now, status=answer.status, error=answer.error)
    if answer.accepted:
        return replace(tried, state=DeliveryState.DELIVERED, due_at=None)
    if answer.status == GONE or now - delivery.since >= PATIENCE:
        return replace(tried, state=DeliveryState.DEAD, due_at=None)
    return replace(tried, due_at=now + pause)


def replayed(delivery: Delivery, now: float) -> Delivery:
    """A delivery that has ended, to be tried again from `now` on."""
    return replace(delivery, state=DeliveryState.WAITING, due_at=now, since=now, tries=0)
