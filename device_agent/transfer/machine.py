"""The state machine of one upload on the device: its states, the events each allows, and the handler of each event.

Rule: pure. Every change of an upload on the device is made here: `apply` looks the handler up, runs it, and checks the
result. A late or repeated remote event changes nothing and is never raised; an impossible local event is a bug.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

from msgspec.structs import replace

from device_agent.errors import IllegalTransition
from device_agent.transfer import handlers
from device_agent.transfer.advance import (
    Step,
    digests_due,
    give_up_at,
    latest_effects,
    may_resume,
    next_retry,
    next_stale,
    pick_part,
)
from device_agent.transfer.events import (
    Admitted,
    Barred,
    CancelRequested,
    CloseReceived,
    Count,
    Digested,
    Effect,
    Event,
    Faulted,
    Granted,
    GrantRefused,
    HostPaused,
    Keep,
    Measured,
    Opened,
    OpenRefused,
    OpenSource,
    PartFailed,
    PartStored,
    Rechecked,
    RemoteEvent,
    Repeated,
    Tick,
    WorkerFree,
)
from device_agent.transfer.model import State, Transfer, grant_of
from device_agent.transfer.part_set import PartSet
from device_agent.transfer.records import Began, Order
from schemas.values import PresignedPart

Handler = Callable[[Transfer, Any], Step]

HANDLERS: Final[Mapping[type[Event], Handler]] = {
    # From the owner.
    Repeated: handlers.repeated,
    Granted: handlers.granted,
    GrantRefused: handlers.ended_with_code,
    CancelRequested: handlers.cancel_requested,
    CloseReceived: handlers.close_received,
    # The source.
    Measured: handlers.measured,
    Admitted: handlers.admitted,
    Opened: handlers.opened,
    OpenRefused: handlers.open_refused,
    Digested: handlers.digested,
    Rechecked: handlers.rechecked,
    # Parts.
    WorkerFree: handlers.worker_free,
    HostPaused: handlers.host_paused,
    Barred: handlers.barred,
    PartStored: handlers.part_stored,
    PartFailed: handlers.part_failed,
    # Time, and a bug.
    Tick: handlers.ticked,
    Faulted: handlers.ended_with_code,
}
"""The one function for each event; every event has one."""

_QUEUED: Final = frozenset({State.QUEUED})
_OPENING: Final = frozenset({State.OPENING})
_ENDED: Final = frozenset({State.ENDED})
_CLOSED: Final = frozenset({State.CLOSED})
_OPEN_OR_ENDED: Final = frozenset({State.REQUESTING, State.SENDING, State.WAITING, State.CHECKING, State.ENDED})

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
    HostPaused: _OPEN_OR_ENDED,
    Barred: _OPEN_OR_ENDED,
    PartStored: _OPEN_OR_ENDED,
    PartFailed: _OPEN_OR_ENDED,
    Tick: _OPEN_OR_ENDED,
    Faulted: _ENDED,
}

ALLOWED: Final[Mapping[State, _Row]] = {
    State.QUEUED: {
        Measured: _QUEUED,
        Barred: _QUEUED,
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
        Barred: _OPENING,
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
    # Work that was in progress at the end still reports.
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
"""The events of each state, and the states that each may lead to; the handler computes which. Empty: a final state."""


def begin(
    order: Order,
    *,
    acknowledges: int = 0,
    urls: tuple[PresignedPart, ...] = (),
    now: float = 0.0,
    lifetime: float | None = None,
) -> Step:
    """Accept a command that begins an attempt; sequences continue after the one that the owner acknowledges.

    `urls` and their `lifetime` in seconds are those of a pre-granted command.
    """
    granted = {url.part_number: grant_of(url, now, lifetime) for url in urls}
    transfer = Transfer(order, sequence=acknowledges, acknowledged=acknowledges, grants=granted)
    return replace(transfer, last_granted=PartSet.of(granted)), (Keep(Began(order, acknowledges, urls)),)


def restored(transfer: Transfer, now: float) -> Transfer:
    """A replayed transfer, ready to continue `now`: the give-up timer for a silent owner starts again."""
    if transfer.ending is None:
        return transfer
    return replace(transfer, published_at=now, republish_at=now, unanswered_since=now)


def unreachable(transfer: Transfer, since: float, until: float) -> Transfer:
    """The same, where the time between two moments does not count as a silence of the owner."""
    if transfer.unanswered_since is None:
        return transfer
    return replace(transfer, unanswered_since=min(until, transfer.unanswered_since + until - since))


def apply(transfer: Transfer, event: Event) -> Step:
    """The transfer after `event`, and its effects; `Keep` effects come before those that depend on them.

    `IllegalTransition` for a local event that the state does not allow.
    """
    allowed = ALLOWED[transfer.state].get(type(event))
    if allowed is None:
        if isinstance(event, RemoteEvent):
            return transfer, (Count("late_events"),)
        text = f"{type(event).__name__} in state {transfer.state}"
        raise IllegalTransition(text)
    after, effects = HANDLERS[type(event)](transfer, event)
    if after.state not in allowed:
        text = f"{type(event).__name__} led from {transfer.state} to {after.state}"
        raise IllegalTransition(text)
    return after, effects


def derive(transfer: Transfer) -> tuple[Effect, ...]:
    """The effects that the state alone demands: after a restart, a reconnect, or when an effect was lost."""
    match transfer.state:
        case State.QUEUED | State.CLOSED:
            return ()
        case State.OPENING:
            return (OpenSource(transfer.order),)
        case State.REQUESTING | State.SENDING | State.WAITING | State.CHECKING | State.ENDED:
            unanswered = transfer.awaiting_grant or transfer.ending
            return (*(latest_effects(transfer) if unanswered else ()), *digests_due(transfer))
        case _:
            assert_never(transfer.state)


def needs_source(transfer: Transfer) -> bool:
    """Whether the source may be read again: not after an end that no resume follows."""
    return transfer.ending is None or may_resume(transfer.ending)


def ready(transfer: Transfer, now: float) -> bool:
    """Whether a `WorkerFree` would start a part."""
    return next_url(transfer, now) is not None


def next_url(transfer: Transfer, now: float) -> str | None:
    """The URL that a `WorkerFree` would send a part to; None when no part can be started."""
    number = pick_part(transfer, now) if transfer.state in {State.SENDING, State.WAITING} else None
    return None if number is None else transfer.grants[number].url.url


def next_size(transfer: Transfer) -> int | None:
    """Bytes of the part that would begin next; 1 while the file is not known, None when no part is left to begin."""
    if transfer.source is None:
        return 1
    number = min(transfer.startable, default=None)
    if number is None:
        number = (transfer.done | transfer.in_flight).first_missing()
    plan = transfer.plan
    return plan.part(number).size if number <= plan.total else None


def wake_at(transfer: Transfer) -> float | None:
    """The next moment at which a `Tick` may change something; None when only other events can."""
    match transfer.state:
        case State.QUEUED | State.OPENING | State.CLOSED:
            moments: list[float | None] = []
        case State.ENDED:
            moments = [transfer.republish_at, give_up_at(transfer)]
        case State.REQUESTING | State.SENDING | State.WAITING | State.CHECKING:
            moments = [next_stale(transfer)]
            if transfer.awaiting_grant:
                moments += [transfer.republish_at, give_up_at(transfer)]
            if transfer.state is State.WAITING and transfer.barred is None:
                moments += [next_retry(transfer), transfer.request_after or None]
        case _:
            assert_never(transfer.state)
    return min((moment for moment in moments if moment is not None), default=None)
