"""Which devices a job or a schedule would make pass their own caps, and on which day.

Rule: pure. It is a forecast from what devices reported and from what they sent before; the gate decides at each grant.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from math import floor
from statistics import fmean
from typing import Final

from msgspec import Struct

from control_plane.domain.gate.devices import caps_of, is_over, used_at
from schemas.values import BudgetUse, DeviceBudget

NAMED: Final = 10
"""Devices that are named for each day."""


class Crossing(Struct, frozen=True):
    """So many devices would pass their cap of a `period` (as in `DeviceBudget`) on `date`, by the zone of the job."""

    date: str
    period: str
    clients: int
    first: tuple[str, ...]


class Forecast(Struct, frozen=True):
    """What is expected of the devices with caps: `limited` of them, `bytes` in all until the caps are reset.

    `by_history` of them are judged by what they sent before, `by_limit` by the `max_bytes` of the job; of `unknown`
    nothing is expected.
    """

    limited: int
    by_history: int
    by_limit: int
    unknown: int
    bytes: int
    crossings: tuple[Crossing, ...]


def forecast(
    budgets: Mapping[str, DeviceBudget],
    sent: Mapping[str, float],
    most: int | None,
    ticks: Sequence[float],
    now: float,
    zone: tzinfo,
) -> Forecast:
    """The forecast for devices with caps that send at each of `ticks` (s since the epoch, in order).

    `sent` are the mean bytes that each device sent for such a job before; a device without a past is expected to send
    as much as the others, or else `most`, the `max_bytes` of the job, which bounds all.
    """
    others = fmean(sent.values()) if sent else None
    found: dict[tuple[str, str], list[str]] = {}
    total = by_history = by_limit = 0
    for client_id, budget in sorted(budgets.items()):
        expected = sent.get(client_id, others)
        by_history += expected is not None
        by_limit += expected is None and most is not None
        each = min((one for one in (expected, most) if one is not None), default=0.0)
        passed = [(at, name) for name, use in caps_of(budget).items() if (at := _passed_at(use, each, ticks, now))]
        total += round(each * _ticks_until_reset(caps_of(budget).values(), ticks, now))
        if passed:
            at, name = min(passed)
            found.setdefault((datetime.fromtimestamp(at, zone).date().isoformat(), name), []).append(client_id)
    crossings = tuple(
        Crossing(date, period, len(names), tuple(names[:NAMED])) for (date, period), names in sorted(found.items())
    )
    unknown = len(budgets) - by_history - by_limit
    return Forecast(len(budgets), by_history, by_limit, unknown, total, crossings)


def _passed_at(use: BudgetUse, each: float, ticks: Sequence[float], now: float) -> float | None:
    """The first tick with more bytes than fit into what is left of the cap until its reset."""
    left = use.cap - used_at(use, now)
    fit = max(0, floor(left / each)) if each else len(ticks)
    return ticks[fit] if fit < _before_reset(use, ticks, now) else None


def _before_reset(use: BudgetUse, ticks: Sequence[float], now: float) -> int:
    """How many ticks the period that runs has left; of one whose end is not known, the first tick."""
    if use.resets_at is None or is_over(use, now):
        return min(1, len(ticks))
    return bisect_left(ticks, use.resets_at.timestamp())


def _ticks_until_reset(uses: Iterable[BudgetUse], ticks: Sequence[float], now: float) -> int:
    return max((_before_reset(use, ticks, now) for use in uses), default=0)
