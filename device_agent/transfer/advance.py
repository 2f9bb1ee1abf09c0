"""The work that is due in a state: end, request URLs, digest ahead, repeat a response; and the next part to start.

Rule: pure functions from a transfer to a transfer and effects. `advance` is level-triggered: it looks at the state
alone. A window is bounded in bytes, so that what was digested is still in the page cache when it is sent.
"""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from device_agent.backoff import exponential
from device_agent.transfer.events import DigestParts, Effect, Keep, PublishResponse, StopParts
from device_agent.transfer.model import Grant, PartRequest, State, Transfer, number_response
from device_agent.transfer.part_set import PartSet
from device_agent.transfer.records import Ending
from device_agent.transfer.replay import progress_record
from device_agent.transfer.responses import latest_response
from schemas.messages import MAX_WANTED_PARTS
from schemas.names import UNKNOWN_OWNER
from schemas.parts import MIB, PartPlan
from schemas.values import ERRORS, DigestName, ErrorCode, Follow, ResponseStatus

Step = tuple[Transfer, tuple[Effect, ...]]

BEFORE_OPEN: Final = frozenset({State.QUEUED, State.OPENING})

WINDOW_SIZE: Final = 64 * MIB
WINDOW_PARTS: Final = MAX_WANTED_PARTS

SHORTEST_LIFE: Final = 10.0
"""Seconds that a URL must have left when a part of unknown duration is started on it."""

MAX_UNACKNOWLEDGED: Final = 2_000
"""Etags that one message can carry with room to spare."""

MAX_RENEWALS: Final = 20
"""Times that URLs may expire, with no part stored in between, before `url_expired`."""

_MARGIN: Final = 1.5
_LARGEST_SHARE: Final = 0.8
"""Of a URL's whole life: a part that takes longer than that is started on a new URL all the same."""

_REQUEST_AGAIN: Final = (10.0, 120.0)
_ENDING_AGAIN: Final = (10.0, 3600.0)
"""Seconds before an unanswered response is published again: the first time, and at most."""

_NO_OWNER_PATIENCE: Final = 3600
_LONGEST_PATIENCE: Final = 30 * 86_400
"""Seconds that `give_up_after` may reach on this device: the longest deadline of an upload."""
_RECHECK_PARTS: Final = 16


def advance(transfer: Transfer, now: float) -> Step:
    """Do what is due: end when every part is stored, request URLs when it is time, and set the resulting state."""
    transfer = drop_stale(transfer, now)
    if transfer.request_after <= now:
        transfer = replace(transfer, request_after=0.0, hold=None)
    if transfer.complete:
        return _finish(transfer, now)
    if transfer.renewals > MAX_RENEWALS:
        return fail(transfer, now, ErrorCode.URL_EXPIRED, "the granted URLs run out before a part is sent")
    effects: tuple[Effect, ...] = ()
    if _should_request(transfer, now):
        transfer, effects = prepare_request(replace(transfer, request=PartRequest(next_window(transfer))), now)
    elif _may_digest_ahead(transfer):
        transfer, effects = _digest(transfer, next_window(transfer))
    if transfer.ending is not None:
        return transfer, effects
    return replace(transfer, state=_state_of(transfer, now)), effects


def _state_of(transfer: Transfer, now: float) -> State:
    if transfer.in_flight or pick_part(transfer, now) is not None:
        return State.SENDING
    if not transfer.startable and (transfer.preparing_request or transfer.awaiting_grant):
        return State.REQUESTING
    return State.WAITING


def _finish(transfer: Transfer, now: float) -> Step:
    """End with success, after a check that all stored parts belong to one content of the file.

    A source that may have changed is digested once more, and not again if it keeps changing. A part whose two digests
    agree did not change between them. All these spans include the moment when the last part was first digested, so at
    that moment the whole file had the content that is stored. What happens to the file later does not matter.
    """
    effects: tuple[Effect, ...] = ()
    if transfer.doubtful and not transfer.unchecked:
        transfer = replace(transfer, doubtful=False, unchecked=PartSet.of(transfer.digests))
        effects = rechecks_due(transfer)
    if transfer.unchecked:
        return replace(transfer, state=State.CHECKING, request=None, republish_at=None), effects
    return end(transfer, now, Ending(ResponseStatus.SUCCESS))


# The end of an attempt.


def fail(transfer: Transfer, now: float, code: ErrorCode, text: str) -> Step:
    """End with an error; its status is the code's (`schemas.values.ERRORS`)."""
    return end(transfer, now, Ending(ERRORS[code].travels_as, code, text))


def end(transfer: Transfer, now: float, ending: Ending) -> Step:
    """Publish the final response, once; a second end repeats the first."""
    if transfer.ending is not None:
        return republish(transfer, now)
    grants = transfer.grants if may_resume(ending) else {}
    transfer = replace(
        transfer,
        state=State.ENDED,
        ending=ending,
        opened=None,
        barred=None,
        request=None,
        unchecked=PartSet(),
        in_flight=PartSet(),
        digesting=(),
        ahead={},
        grants=grants,
    )
    transfer, effects = _publish_next(transfer, now)
    return transfer, (StopParts(), *effects)


def may_resume(ending: Ending) -> bool:
    """Whether the owner may resume this attempt after such an end."""
    return ending.code is not None and ERRORS[ending.code].follow is Follow.SAME_ATTEMPT


def give_up_at(transfer: Transfer) -> float | None:
    """When an owner that does not answer counts as gone; None while nothing is unanswered."""
    if transfer.unanswered_since is None:
        return None
    patience = min(transfer.order.options.give_up_after, _LONGEST_PATIENCE)
    if transfer.ending is not None and transfer.order.owner == UNKNOWN_OWNER:
        patience = min(patience, _NO_OWNER_PATIENCE)
    return transfer.unanswered_since + patience


# Responses.


def republish(transfer: Transfer, now: float) -> Step:
    """Publish the latest response again, unchanged; nothing before the first one."""
    return replace(transfer, published_at=now), latest_effects(transfer)


def latest_effects(transfer: Transfer) -> tuple[Effect, ...]:
    """The latest response as an effect; none before the first one."""
    response = latest_response(transfer)
    return () if response is None else (PublishResponse(response),)


def schedule_republish(transfer: Transfer, now: float, jitter: float) -> Transfer:
    """Publish the latest response again after a pause that doubles each time."""
    first, longest = _REQUEST_AGAIN if transfer.ending is None else _ENDING_AGAIN
    pause = exponential(transfer.repeats, first, longest)
    return replace(transfer, published_at=now, republish_at=now + pause * (0.5 + jitter))


def _publish_next(transfer: Transfer, now: float) -> Step:
    """Number and publish the response of this state; its sequence is durable first."""
    transfer = number_response(transfer, transfer.sequence + 1)
    transfer = replace(transfer, repeats=0, unanswered_since=now, published_at=now)
    transfer = schedule_republish(transfer, now, 0.5)
    return transfer, (Keep(progress_record(transfer)), *latest_effects(transfer))


# Requests for URLs.


def next_window(transfer: Transfer) -> tuple[int, ...]:
    """The parts of the next request: 64 MiB of them, at least one and at most 100; none when none is missing."""
    plan = transfer.plan
    window: list[int] = []
    size = 0
    for number in _missing(transfer):
        size += plan.part(number).size
        if window and (size > WINDOW_SIZE or len(window) == WINDOW_PARTS):
            break
        window.append(number)
    return tuple(window)


def prepare_request(transfer: Transfer, now: float) -> Step:
    """Publish the pending request, once every part of it is digested."""
    if transfer.request is None:
        return transfer, ()
    numbers = transfer.request.numbers
    if transfer.order.digest is not DigestName.NONE and not transfer.ahead.keys() >= set(numbers):
        return _digest(transfer, numbers)
    ready = {number: digest for number, digest in transfer.ahead.items() if number in numbers}
    later = {number: digest for number, digest in transfer.ahead.items() if number not in numbers}
    return _send_request(replace(transfer, offered={**transfer.offered, **ready}, ahead=later), now)


def _send_request(transfer: Transfer, now: float) -> Step:
    """Publish the prepared request, without the parts that were granted or stored meanwhile."""
    known = transfer.done | PartSet.of(transfer.grants)
    numbers = tuple(number for number in transfer.request.numbers if number not in known) if transfer.request else ()
    if not numbers:
        return replace(transfer, request=None), ()
    if len(transfer.kept) > MAX_UNACKNOWLEDGED:
        text = f"the owner has acknowledged none of {len(transfer.kept)} etags"
        return fail(transfer, now, ErrorCode.BAD_REQUEST, text)
    transfer = replace(transfer, request=PartRequest(numbers, transfer.sequence + 1))
    return _publish_next(transfer, now)


def _should_request(transfer: Transfer, now: float) -> bool:
    """Whether to request: no request is open, and half of the last grant is sent or no granted part is left."""
    if transfer.barred or now < transfer.request_after or transfer.preparing_request or transfer.awaiting_grant:
        return False
    last = transfer.last_granted
    half_sent = 2 * len(last & transfer.done) >= len(last)
    return (half_sent or not transfer.startable) and next(_missing(transfer), None) is not None


def _may_digest_ahead(transfer: Transfer) -> bool:
    """Whether to digest the parts of the next request while granted parts are sent."""
    busy = transfer.barred or transfer.digesting or transfer.preparing_request or transfer.awaiting_grant
    return not busy and transfer.order.digest is not DigestName.NONE


def _missing(transfer: Transfer) -> Iterator[int]:
    """Parts that are neither stored nor granted, ascending."""
    known = transfer.done | PartSet.of(transfer.grants) | transfer.in_flight
    for number in range(known.first_missing(), transfer.plan.total + 1):
        if number not in known:
            yield number


# Digests.


def digests_due(transfer: Transfer) -> tuple[Effect, ...]:
    """The digests that the state waits for: of parts to be requested, and of parts stored before a reopening."""
    digests = (_digests(transfer),) if transfer.digesting else ()
    return (*digests, *rechecks_due(transfer))


def rechecks_due(transfer: Transfer) -> tuple[Effect, ...]:
    """Digest the next few unchecked parts again; only a few, so that a request does not wait for all of them."""
    if not transfer.unchecked:
        return ()
    plan, numbers = transfer.plan, list(transfer.unchecked)[:_RECHECK_PARTS]
    return (DigestParts(tuple(plan.part(number) for number in numbers), transfer.order.digest, recheck=True),)


def _digest(transfer: Transfer, numbers: tuple[int, ...]) -> Step:
    """Digest the parts that have no digest yet, unless others are being digested: their event leads here again."""
    missing = tuple(number for number in numbers if number not in transfer.ahead)
    if transfer.digesting or not missing:
        return transfer, ()
    transfer = replace(transfer, digesting=missing)
    return transfer, (_digests(transfer),)


def _digests(transfer: Transfer) -> DigestParts:
    plan = transfer.plan
    return DigestParts(tuple(plan.part(number) for number in transfer.digesting), transfer.order.digest)


# Which part to start, and on which URL.


def pick_part(transfer: Transfer, now: float) -> int | None:
    """The lowest granted part that may be started now."""
    if transfer.barred or now < transfer.paused_until:
        return None
    return next((number for number in transfer.startable if now >= _retry_at(transfer, number)), None)


def next_retry(transfer: Transfer) -> float | None:
    """When the first granted part may be started; None without one."""
    moments = [_retry_at(transfer, number) for number in transfer.startable]
    return max(min(moments), transfer.paused_until) if moments else None


def drop_stale(transfer: Transfer, now: float, rate: float | None = None) -> Transfer:
    """Drop URLs with too little life left for their part: a PUT that is refused has sent its body for nothing."""
    if not any(grant.expires_at is not None for grant in transfer.grants.values()):
        return transfer
    plan = transfer.plan
    stale = {number for number in transfer.startable if _is_stale(plan, number, transfer.grants[number], now, rate)}
    if not stale:
        return transfer
    grants = {number: grant for number, grant in transfer.grants.items() if number not in stale}
    return replace(transfer, grants=grants, renewals=transfer.renewals + (transfer.barred is None))


def next_stale(transfer: Transfer) -> float | None:
    """When the first URL becomes useless; None when none does."""
    ends = [
        grant.expires_at - life_needed(grant, 0, None)
        for number, grant in transfer.grants.items()
        if grant.expires_at is not None and number not in transfer.in_flight
    ]
    return min(ends, default=None)


def life_needed(grant: Grant, size: int, rate: float | None) -> float:
    """Seconds that a URL must have left for a part of `size` bytes to be started on it; `rate` in bytes per second."""
    needed = SHORTEST_LIFE if not rate else max(SHORTEST_LIFE, _MARGIN * size / rate)
    return needed if grant.lifetime is None else min(needed, _LARGEST_SHARE * grant.lifetime)


def _is_stale(plan: PartPlan, number: int, grant: Grant, now: float, rate: float | None) -> bool:
    if grant.expires_at is None:
        return False
    return now >= grant.expires_at - life_needed(grant, plan.part(number).size, rate)


def _retry_at(transfer: Transfer, number: int) -> float:
    retry = transfer.retries.get(number)
    return 0.0 if retry is None else retry.until
