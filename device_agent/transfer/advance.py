"""The steps of one upload on the device: what its owner's words, its source and time make of it.

Rule: pure functions from a transfer and an event to a transfer and effects; `transfer.TRANSITIONS` says when each may
be called. `advance` is level-triggered: it looks at the state alone and does whatever is due.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from device_agent.transfer.events import (
    DigestParts,
    Effect,
    Held,
    Keep,
    PublishResponse,
    PutPart,
    StopParts,
    Tick,
    WorkerFree,
    WriteTombstone,
)
from device_agent.transfer.model import NO_OWNER, Grant, PartRequest, State, Transfer, number_response
from device_agent.transfer.part_set import PartSet
from device_agent.transfer.records import Ending
from device_agent.transfer.replay import progress_record
from device_agent.transfer.responses import latest_response
from schemas.parts import MIB, PartPlan
from schemas.values import ERRORS, DigestName, ErrorCode, Follow, Outcome, ResponseStatus

WINDOW_SIZE: Final = 64 * MIB
WINDOW_PARTS: Final = 100

SHORTEST_LIFE: Final = 10.0
"""Seconds that a URL must have left when a part of unknown duration is begun on it."""

_MARGIN: Final = 1.5
_LARGEST_SHARE: Final = 0.8
"""Of a URL's whole life: a part that takes longer than that is begun on a fresh URL all the same."""


def next_window(transfer: Transfer) -> tuple[int, ...]:
    """The parts to ask for next: 64 MiB of them, at least one and at most 100; none when none is missing."""
    plan = transfer.plan
    window: list[int] = []
    size = 0
    for number in _missing(transfer):
        size += plan.part(number).size
        if window and (size > WINDOW_SIZE or len(window) == WINDOW_PARTS):
            break
        window.append(number)
    return tuple(window)


def should_request(transfer: Transfer, now: float) -> bool:
    """Whether to ask: nothing is unanswered, and half of the last grant is sent or nothing is left to begin."""
    if now < transfer.request_after or transfer.preparing_request or transfer.awaiting_grant:
        return False
    last = transfer.last_granted
    half_sent = 2 * len(last & transfer.done) >= len(last)
    return (half_sent or not transfer.startable) and next(_missing(transfer), None) is not None


def may_digest_ahead(transfer: Transfer) -> bool:
    """Whether to digest what will be asked for next while what was granted is sent."""
    busy = transfer.digesting or transfer.preparing_request or transfer.awaiting_grant
    return not busy and transfer.order.digest is not DigestName.NONE


def pick_part(transfer: Transfer, now: float) -> int | None:
    """The lowest granted part that may be begun now."""
    if now < transfer.hold_until:
        return None
    return next((number for number in transfer.startable if _may_retry(transfer, number, now)), None)


def next_retry(transfer: Transfer) -> float | None:
    """When the first granted part may be begun; None without one."""
    calms = [_retry_at(transfer, number) for number in transfer.startable]
    return max(min(calms), transfer.hold_until) if calms else None


def drop_stale(transfer: Transfer, now: float, rate: float | None = None) -> Transfer:
    """Forget URLs with too little life left for their part: a refused PUT has sent its body in vain."""
    if not any(grant.expires_at is not None for grant in transfer.grants.values()):
        return transfer
    plan = transfer.plan
    stale = {number for number in transfer.startable if _is_stale(plan, number, transfer.grants[number], now, rate)}
    if not stale:
        return transfer
    grants = {number: grant for number, grant in transfer.grants.items() if number not in stale}
    return replace(transfer, grants=grants, renewals=transfer.renewals + 1)


def next_stale(transfer: Transfer) -> float | None:
    """When the first URL runs out of use; None when none does."""
    ends = [
        grant.expires_at - life_needed(grant, 0, None)
        for number, grant in transfer.grants.items()
        if grant.expires_at is not None and number not in transfer.in_flight
    ]
    return min(ends, default=None)


def life_needed(grant: Grant, size: int, rate: float | None) -> float:
    """Seconds that a URL must have left for a part of `size` bytes to be begun on it."""
    needed = SHORTEST_LIFE if not rate else max(SHORTEST_LIFE, _MARGIN * size / rate)
    return needed if grant.lifetime is None else min(needed, _LARGEST_SHARE * grant.lifetime)


def _missing(transfer: Transfer) -> Iterator[int]:
    """Parts that are neither stored nor granted, ascending."""
    known = transfer.done | PartSet.of(transfer.grants) | transfer.in_flight
    for number in range(known.first_missing(), transfer.plan.total + 1):
        if number not in known:
            yield number


def _is_stale(plan: PartPlan, number: int, grant: Grant, now: float, rate: float | None) -> bool:
    if grant.expires_at is None:
        return False
    return now >= grant.expires_at - life_needed(grant, plan.part(number).size, rate)


def _may_retry(transfer: Transfer, number: int, now: float) -> bool:
    return now >= _retry_at(transfer, number)


def _retry_at(transfer: Transfer, number: int) -> float:
    retries = transfer.retries.get(number)
    return 0.0 if retries is None else retries.until


Step = tuple[Transfer, tuple[Effect, ...]]

BEFORE_OPEN: Final = frozenset({State.QUEUED, State.OPENING})

MAX_UNACKNOWLEDGED: Final = 2_000
"""Etags that one message can carry with room to spare."""

MAX_RENEWALS: Final = 20
"""Times that URLs may run out, with no part stored in between, before `url_expired`."""

_REQUEST_AGAIN: Final = (10.0, 120.0)
_ENDING_AGAIN: Final = (10.0, 3600.0)
"""Seconds before a response that nobody answered is said again: the first time, and at most."""

_NO_OWNER_PATIENCE: Final = 3600
_RECHECK_PARTS: Final = 16


def advance(transfer: Transfer, now: float) -> Step:
    """Do what is due: end when every part is stored, ask when it is time, and name the state that results."""
    transfer = drop_stale(transfer, now)
    if transfer.request_after <= now:
        transfer = replace(transfer, request_after=0.0)
    if transfer.complete:
        return _finish(transfer, now)
    if transfer.renewals > MAX_RENEWALS:
        return fail(transfer, now, ErrorCode.URL_EXPIRED, "the granted URLs run out before a part is sent")
    effects: tuple[Effect, ...] = ()
    if should_request(transfer, now):
        transfer, effects = prepare_request(replace(transfer, request=PartRequest(next_window(transfer))), now)
    elif may_digest_ahead(transfer):
        transfer, effects = _digest(transfer, next_window(transfer))
    if transfer.ending is not None:
        return transfer, effects
    return replace(transfer, state=_state_of(transfer, now)), effects


def prepare_request(transfer: Transfer, now: float) -> Step:
    """Ask the question at hand, once every part of it is digested."""
    if transfer.request is None:
        return transfer, ()
    numbers = transfer.request.numbers
    if transfer.order.digest is not DigestName.NONE and not transfer.ahead.keys() >= set(numbers):
        return _digest(transfer, numbers)
    ready = {number: digest for number, digest in transfer.ahead.items() if number in numbers}
    later = {number: digest for number, digest in transfer.ahead.items() if number not in numbers}
    return _send_request(replace(transfer, offered={**transfer.offered, **ready}, ahead=later), now)


def digests_due(transfer: Transfer) -> tuple[Effect, ...]:
    """The digests that the state waits for: of parts to be asked for, and of parts stored before a reopening."""
    effects: list[Effect] = []
    if transfer.digesting:
        effects.append(_digests(transfer))
    if transfer.unchecked:
        effects.append(recheck(transfer))
    return tuple(effects)


def cancel(transfer: Transfer, now: float) -> Step:
    """Stop; after another end that end is said again."""
    return end(transfer, now, Ending(ResponseStatus.CANCELLED))


def close(transfer: Transfer, outcome: str) -> Step:
    """The owner needs nothing more of this upload."""
    known = Outcome.read(outcome)
    return replace(transfer, state=State.CLOSED, opened=None), (StopParts(), WriteTombstone(known))


def fail(transfer: Transfer, now: float, code: ErrorCode, text: str) -> Step:
    """End with an error; how it travels is the code's (`schemas.values.ERRORS`)."""
    return end(transfer, now, Ending(ERRORS[code].travels_as, code, text))


def end(transfer: Transfer, now: float, ending: Ending) -> Step:
    """Say the final answer, once; a second end repeats the first."""
    if transfer.ending is not None:
        return republish(transfer, now)
    grants = transfer.grants if may_resume(ending) else {}
    transfer = replace(
        transfer,
        state=State.ENDED,
        ending=ending,
        opened=None,
        request=None,
        unchecked=PartSet(),
        in_flight=PartSet(),
        digesting=(),
        ahead={},
        grants=grants,
    )
    transfer, effects = _publish_next(transfer, now)
    return transfer, (StopParts(), *effects)


def start_part(transfer: Transfer, event: WorkerFree) -> Step:
    """Begin the next part whose URL will outlive it."""
    transfer = drop_stale(transfer, event.now, event.rate)
    number = pick_part(transfer, event.now)
    effects: tuple[Effect, ...] = ()
    if number is not None:
        transfer = replace(transfer, in_flight=transfer.in_flight | PartSet.of([number]))
        effects = (PutPart(transfer.grants[number].url, transfer.plan.part(number)),)
    transfer, more = advance(transfer, event.now)
    return transfer, effects + more


def hold(transfer: Transfer, event: Held) -> Step:
    """Begin no part before then."""
    return advance(replace(transfer, hold_until=max(transfer.hold_until, event.until)), event.now)


def tick(transfer: Transfer, event: Tick) -> Step:
    """Say again what nobody answered, give up an owner that is silent, and go on where a pause is over."""
    if transfer.state in BEFORE_OPEN:
        return transfer, ()
    gives_up = give_up_at(transfer)
    if gives_up is not None and event.now >= gives_up:
        if transfer.ending is not None:
            return close(transfer, _outcome_of(transfer.ending))
        return fail(transfer, event.now, ErrorCode.OWNER_SILENT, "the owner of the upload has not answered")
    again: tuple[Effect, ...] = ()
    if (
        transfer.republish_at is not None
        and event.now >= transfer.republish_at
        and (transfer.awaiting_grant or transfer.ending)
    ):
        transfer = _schedule_republish(replace(transfer, repeats=transfer.repeats + 1), event.now, event.jitter)
        again = _latest_effects(transfer)
    if transfer.ending is not None:
        return transfer, again
    transfer, effects = advance(transfer, event.now)
    return transfer, again + effects


def give_up_at(transfer: Transfer) -> float | None:
    """When an owner that does not answer is given up."""
    if transfer.unanswered_since is None:
        return None
    patience = transfer.order.options.give_up_after
    if transfer.ending is not None and transfer.order.owner == NO_OWNER:
        patience = min(patience, _NO_OWNER_PATIENCE)
    return transfer.unanswered_since + patience


def _state_of(transfer: Transfer, now: float) -> State:
    if transfer.in_flight or pick_part(transfer, now) is not None:
        return State.SENDING
    if not transfer.startable and (transfer.preparing_request or transfer.awaiting_grant):
        return State.REQUESTING
    return State.WAITING


def _finish(transfer: Transfer, now: float) -> Step:
    """End, once what is stored is known to be of one and the same file.

    A source that moved is read once more, and not again if it goes on moving: a part that is now what it was when it
    was sent was so all the time between, and these times have a moment in common, which is when the last was digested.
    """
    effects: tuple[Effect, ...] = ()
    if transfer.moved and not transfer.unchecked:
        transfer = replace(transfer, moved=False, unchecked=PartSet.of(transfer.digests))
        effects = (recheck(transfer),) if transfer.unchecked else ()
    if transfer.unchecked:
        return replace(transfer, state=State.CHECKING, request=None, republish_at=None), effects
    return end(transfer, now, Ending(ResponseStatus.SUCCESS))


def _send_request(transfer: Transfer, now: float) -> Step:
    """Say the prepared question, less what has been granted or stored meanwhile."""
    known = transfer.done | PartSet.of(transfer.grants)
    numbers = tuple(number for number in transfer.request.numbers if number not in known) if transfer.request else ()
    if not numbers:
        return replace(transfer, request=None), ()
    if len(transfer.kept) > MAX_UNACKNOWLEDGED:
        text = f"the owner has acknowledged none of {len(transfer.kept)} etags"
        return fail(transfer, now, ErrorCode.BAD_REQUEST, text)
    transfer = replace(transfer, request=PartRequest(numbers, transfer.sequence + 1))
    return _publish_next(transfer, now)


def _publish_next(transfer: Transfer, now: float) -> Step:
    """Number and say the response that the state calls for; its sequence is durable first."""
    transfer = number_response(transfer, transfer.sequence + 1)
    transfer = replace(transfer, repeats=0, unanswered_since=now, published_at=now)
    transfer = _schedule_republish(transfer, now, 0.5)
    return transfer, (Keep(progress_record(transfer)), *_latest_effects(transfer))


def republish(transfer: Transfer, now: float) -> Step:
    """The latest response once more, unchanged; nothing before there was one."""
    return replace(transfer, published_at=now), _latest_effects(transfer)


def _latest_effects(transfer: Transfer) -> tuple[Effect, ...]:
    response = latest_response(transfer)
    return () if response is None else (PublishResponse(response),)


def _schedule_republish(transfer: Transfer, now: float, jitter: float) -> Transfer:
    first, longest = _REQUEST_AGAIN if transfer.ending is None else _ENDING_AGAIN
    pause = min(longest, first * 2 ** min(transfer.repeats, 16))
    return replace(transfer, published_at=now, republish_at=now + pause * (0.5 + jitter))


def may_resume(ending: Ending) -> bool:
    """Whether the owner may have this attempt go on after such an end."""
    return ending.code is not None and ERRORS[ending.code].follow is Follow.SAME_ATTEMPT


def _digest(transfer: Transfer, numbers: tuple[int, ...]) -> Step:
    """Digest those parts that are not digested yet, unless others are being digested: their end leads here again."""
    missing = tuple(number for number in numbers if number not in transfer.ahead)
    if transfer.digesting or not missing:
        return transfer, ()
    transfer = replace(transfer, digesting=missing)
    return transfer, (_digests(transfer),)


def _digests(transfer: Transfer) -> DigestParts:
    plan = transfer.plan
    return DigestParts(tuple(plan.part(number) for number in transfer.digesting), transfer.order.digest)


def recheck(transfer: Transfer) -> DigestParts:
    """Digest the next few of the unchecked parts again: a few, so that a question need not wait for all."""
    plan, numbers = transfer.plan, list(transfer.unchecked)[:_RECHECK_PARTS]
    return DigestParts(tuple(plan.part(number) for number in numbers), transfer.order.digest, recheck=True)


def _outcome_of(ending: Ending) -> Outcome:
    return {
        ResponseStatus.SUCCESS: Outcome.COMPLETED,
        ResponseStatus.CANCELLED: Outcome.CANCELLED,
        ResponseStatus.REJECTED: Outcome.REJECTED,
    }.get(ending.status, Outcome.FAILED)
