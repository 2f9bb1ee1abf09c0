"""Which parts to ask for, when to ask, and which part to begin: the arithmetic of grants.

Rule: pure. A window is bounded in bytes, so that what was digested is still in the page cache when it is sent.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from device_agent.part_set import PartSet
from device_agent.transfer_state import Grant, Transfer
from schemas.parts import MIB, PartPlan
from schemas.values import DigestName

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


def should_ask(transfer: Transfer, now: float) -> bool:
    """Whether to ask: nothing is unanswered, and half of the last grant is sent or nothing is left to begin."""
    if now < transfer.ask_after or transfer.preparing or transfer.asking:
        return False
    last = transfer.last_granted
    half_sent = 2 * len(last & transfer.done) >= len(last)
    return (half_sent or not transfer.startable) and next(_missing(transfer), None) is not None


def may_look_ahead(transfer: Transfer) -> bool:
    """Whether to digest what will be asked for next while what was granted is sent."""
    busy = transfer.digesting or transfer.preparing or transfer.asking
    return not busy and transfer.order.digest is not DigestName.NONE


def pick_part(transfer: Transfer, now: float) -> int | None:
    """The lowest granted part that may be begun now."""
    if now < transfer.hold_until:
        return None
    return next((number for number in transfer.startable if _is_calm(transfer, number, now)), None)


def next_calm(transfer: Transfer) -> float | None:
    """When the first granted part may be begun; None without one."""
    calms = [_calm_at(transfer, number) for number in transfer.startable]
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
        if grant.expires_at is not None and number not in transfer.flying
    ]
    return min(ends, default=None)


def life_needed(grant: Grant, size: int, rate: float | None) -> float:
    """Seconds that a URL must have left for a part of `size` bytes to be begun on it."""
    needed = SHORTEST_LIFE if not rate else max(SHORTEST_LIFE, _MARGIN * size / rate)
    return needed if grant.lifetime is None else min(needed, _LARGEST_SHARE * grant.lifetime)


def _missing(transfer: Transfer) -> Iterator[int]:
    """Parts that are neither stored nor granted, ascending."""
    known = transfer.done | PartSet.of(transfer.grants) | transfer.flying
    for number in range(known.first_missing(), transfer.plan.total + 1):
        if number not in known:
            yield number


def _is_stale(plan: PartPlan, number: int, grant: Grant, now: float, rate: float | None) -> bool:
    if grant.expires_at is None:
        return False
    return now >= grant.expires_at - life_needed(grant, plan.part(number).size, rate)


def _is_calm(transfer: Transfer, number: int, now: float) -> bool:
    return now >= _calm_at(transfer, number)


def _calm_at(transfer: Transfer, number: int) -> float:
    trouble = transfer.trouble.get(number)
    return 0.0 if trouble is None else trouble.until
