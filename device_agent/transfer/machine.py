"""The device's side of one upload: the table of its states, and one pure function for what happens next.

Rule: whatever changes an upload on the device is decided here. Nothing here does IO, reads a clock or draws a random
number. Late and repeated remote events change nothing and are never raised; an impossible local one is our bug.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, assert_never

from device_agent.errors import IllegalTransition
from device_agent.transfer import advance as steps
from device_agent.transfer import handlers as grants
from device_agent.transfer import handlers as parts
from device_agent.transfer import handlers as source
from device_agent.transfer.advance import Step, next_retry, next_stale, pick_part
from device_agent.transfer.events import (
    Admitted,
    CancelRequested,
    CloseReceived,
    Count,
    Digested,
    Effect,
    Event,
    Faulted,
    Granted,
    GrantRefused,
    Held,
    Keep,
    Opened,
    OpenRefused,
    OpenSource,
    PartFailed,
    PartStored,
    PublishResponse,
    Rechecked,
    RemoteEvent,
    Repeated,
    Tick,
    WorkerFree,
    WorkEvent,
)
from device_agent.transfer.model import State, Transfer, grant_of
from device_agent.transfer.part_set import PartSet
from device_agent.transfer.records import Began, Order
from device_agent.transfer.responses import latest_response
from schemas.values import PresignedPart

_OPEN_OR_ENDED: Final = frozenset({State.REQUESTING, State.SENDING, State.WAITING, State.CHECKING, State.ENDED})
_QUEUED: Final = frozenset({State.QUEUED})
_OPENING: Final = frozenset({State.OPENING})
_ENDED: Final = frozenset({State.ENDED})
_CLOSED: Final = frozenset({State.CLOSED})

_Row = Mapping[type[Event], frozenset[State]]

_WHILE_OPEN: Final[_Row] = {
    Repeated: _OPEN_OR_ENDED,
    Granted: _OPEN_OR_ENDED,
    GrantRefused: _ENDED,
    CancelRequested: _ENDED,
    CloseReceived: _CLOSED,
    Digested: _OPEN_OR_ENDED,
    Rechecked: _OPEN_OR_ENDED,
    WorkerFree: _OPEN_OR_ENDED,
    Held: _OPEN_OR_ENDED,
    PartStored: _OPEN_OR_ENDED,
    PartFailed: _OPEN_OR_ENDED,
    Tick: _OPEN_OR_ENDED,
    Faulted: _ENDED,
}

ALLOWED: Final[Mapping[State, _Row]] = {
    State.QUEUED: {
        Admitted: _OPENING,
        Repeated: _QUEUED,
        Granted: _QUEUED | _ENDED,
        GrantRefused: _ENDED,
        CancelRequested: _ENDED,
        CloseReceived: _CLOSED,
        PartStored: _QUEUED,
        PartFailed: _QUEUED,
        Tick: _QUEUED,
        Faulted: _ENDED,
    },
    State.OPENING: {
        Opened: _OPEN_OR_ENDED,
        OpenRefused: _ENDED,
        Repeated: _OPENING,
        Granted: _OPENING | _ENDED,
        GrantRefused: _ENDED,
        CancelRequested: _ENDED,
        CloseReceived: _CLOSED,
        PartStored: _OPENING,
        PartFailed: _OPENING,
        Tick: _OPENING,
        Faulted: _ENDED,
    },
    State.REQUESTING: _WHILE_OPEN,
    State.SENDING: _WHILE_OPEN,
    State.WAITING: _WHILE_OPEN,
    State.CHECKING: _WHILE_OPEN,
    # What was under way when the end came still reports.
    State.ENDED: {
        Repeated: _ENDED | _QUEUED,
        Granted: _ENDED,
        GrantRefused: _ENDED,
        CancelRequested: _ENDED,
        CloseReceived: _CLOSED,
        Opened: _ENDED,
        OpenRefused: _ENDED,
        Digested: _ENDED,
        Rechecked: _ENDED,
        PartStored: _ENDED,
        PartFailed: _ENDED,
        Tick: _ENDED | _CLOSED,
        Faulted: _ENDED,
    },
    State.CLOSED: {},
}
"""Which states each event may lead to. An empty row is a terminal state."""


def begin(
    order: Order,
    *,
    acknowledges: int = 0,
    urls: tuple[PresignedPart, ...] = (),
    now: float = 0.0,
    lifetime: float | None = None,
) -> Step:
    """Accept a command that begins an attempt; sequences count on from what the owner acknowledges."""
    granted = {url.part_number: grant_of(url, now, lifetime) for url in urls}
    transfer = Transfer(order, sequence=acknowledges, acknowledged=acknowledges, grants=granted)
    return replace(transfer, last_granted=PartSet.of(granted)), (Keep(Began(order, acknowledges, urls)),)


def restored(transfer: Transfer, now: float) -> Transfer:
    """A replayed transfer, ready to go on `now`: patience with a silent owner is counted afresh."""
    if transfer.ending is None:
        return transfer
    return replace(transfer, published_at=now, republish_at=now, unanswered_since=now)


def apply(transfer: Transfer, event: Event) -> Step:
    """What `event` makes of `transfer`, and what is to be done; `Keep` effects come before what relies on them.

    `IllegalTransition` for a local event that the state does not know.
    """
    allowed = ALLOWED[transfer.state].get(type(event))
    if allowed is None:
        if isinstance(event, RemoteEvent):
            return transfer, (Count("late_events"),)
        text = f"{type(event).__name__} in state {transfer.state}"
        raise IllegalTransition(text)
    after, effects = _apply(transfer, event)
    if after.state not in allowed:
        text = f"{type(event).__name__} led from {transfer.state} to {after.state}"
        raise IllegalTransition(text)
    return after, effects


def derive(transfer: Transfer) -> tuple[Effect, ...]:
    """What is to be done, from the state alone: after a restart, a reconnect, or when an effect was lost."""
    latest = latest_response(transfer)
    say = () if latest is None or not (transfer.awaiting_grant or transfer.ending) else (PublishResponse(latest),)
    match transfer.state:
        case State.QUEUED | State.CLOSED:
            return ()
        case State.OPENING:
            return (OpenSource(transfer.order),)
        case State.REQUESTING | State.SENDING | State.WAITING | State.CHECKING | State.ENDED:
            return (*say, *steps.digests_due(transfer))
        case _:
            assert_never(transfer.state)


def ready(transfer: Transfer, now: float) -> bool:
    """Whether a `WorkerFree` would find a part to begin."""
    return next_url(transfer, now) is not None


def next_url(transfer: Transfer, now: float) -> str | None:
    """Where a `WorkerFree` would send a part; None when there is none to begin."""
    number = pick_part(transfer, now) if transfer.state in {State.SENDING, State.WAITING} else None
    return None if number is None else transfer.grants[number].url.url


def wake_at(transfer: Transfer) -> float | None:
    """The next moment at which a `Tick` may change something; None when only events can."""
    match transfer.state:
        case State.QUEUED | State.OPENING | State.CLOSED:
            moments: list[float | None] = []
        case State.ENDED:
            moments = [transfer.republish_at, steps.give_up_at(transfer)]
        case State.REQUESTING | State.SENDING | State.WAITING | State.CHECKING:
            moments = [next_stale(transfer), *_request_moments(transfer)]
            if transfer.state is State.WAITING:
                moments += [next_retry(transfer), transfer.request_after or None]
        case _:
            assert_never(transfer.state)
    return min((moment for moment in moments if moment is not None), default=None)


def _request_moments(transfer: Transfer) -> list[float | None]:
    return [transfer.republish_at, steps.give_up_at(transfer)] if transfer.awaiting_grant else []


def _apply(transfer: Transfer, event: Event) -> Step:
    match event:
        case Repeated():
            step = grants.repeat(transfer, event)
        case Granted():
            step = grants.grant(transfer, event)
        case CloseReceived(outcome=outcome):
            step = steps.close(transfer, outcome)
        case CancelRequested(now=now):
            step = steps.cancel(transfer, now)
        case GrantRefused(now=now, code=code, text=text) | Faulted(now=now, code=code, text=text):
            step = steps.fail(transfer, now, code, text)
        case Tick():
            step = steps.tick(transfer, event)
        case _:
            step = _apply_work(transfer, event)
    return step


def _apply_work(transfer: Transfer, event: WorkEvent) -> Step:
    match event:
        case Admitted():
            step: Step = (replace(transfer, state=State.OPENING), (OpenSource(transfer.order),))
        case Opened():
            step = source.opened(transfer, event)
        case OpenRefused(now=now, code=code, text=text):
            step = source.refused(transfer, now, code, text)
        case Digested():
            step = source.digested(transfer, event)
        case Rechecked():
            step = source.rechecked(transfer, event)
        case WorkerFree():
            step = steps.start_part(transfer, event)
        case Held():
            step = steps.hold(transfer, event)
        case PartStored():
            step = parts.stored(transfer, event)
        case PartFailed():
            step = parts.failed(transfer, event)
        case _:
            assert_never(event)
    return step
