"""When a schedule ticks: from a cron expression in a time zone, or every so many seconds.

Rule: pure, and without memory: the tick after an instant depends on the cadence and the instant alone, so that a
restart, a second replica and a preview find the same ticks. Instants are seconds since the epoch.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Struct

from control_plane.domain.errors import BadText

SHORTEST: Final = 60.0
"""Seconds between two ticks, at least."""

LONGEST: Final = 366 * 86_400.0
"""Seconds of `every`, at most."""

_CRON: Final = re.compile(r"[0-9A-Za-z*,/#-]+(?: +[0-9A-Za-z*,/#-]+){4}", re.ASCII)
_MOST_TEXT: Final = 200
_NAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_SECOND: Final = timedelta(seconds=1)
_UNREADABLE: Final = (CronSimError, AssertionError, TypeError, ValueError)
"""What cronsim raises for one expression or another that is none."""


class Cadence(Struct, frozen=True, kw_only=True):
    """When a schedule ticks: `cron` in `zone`, or `every` so many seconds, counted from 1970-01-01T00:00Z."""

    cron: str | None = None
    every: float | None = None
    zone: str = "UTC"


class Tick(Struct, frozen=True):
    """One nominal instant `at` with its local time (ISO 8601), and what a change of the clocks does to it."""

    at: float
    local: str
    note: str | None


def read_zone(name: str) -> str:
    """An IANA name of a time zone that this machine knows; `BadText`."""
    if _ZONE.fullmatch(name) is None or _zone(name) is None:
        message = f"is {name[:64]!r}: no such time zone is known; write an IANA name such as Europe/Berlin"
        raise BadText(message)
    return name


def read_cron(text: str) -> str:
    """A cron expression of five fields that fires at least once in the next fifty years; `BadText`."""
    expression = _NAMES.get(text.strip().lower(), text.strip())
    if len(text) > _MOST_TEXT or _CRON.fullmatch(expression) is None:
        message = f"is {text[:64]!r}: a cron expression has five fields: minute, hour, day of month, month, day of week"
        raise BadText(message)
    try:
        _first(expression)
    except StopIteration:
        message = f"is {text!r}, which never fires: no date in the next fifty years matches it"
        raise BadText(message) from None
    except _UNREADABLE as error:
        if _matches_in_another_month(expression):
            message = f"is {text!r}, which never fires: no month of it has such a day"
        else:
            message = f"is {text!r}, which cannot be read: {str(error).lower() or 'not a cron expression'}"
        raise BadText(message) from error
    return expression


def read_every(seconds: float) -> float:
    """An interval in whole seconds, from a minute to 366 days; `BadText`."""
    if not SHORTEST <= seconds <= LONGEST or seconds != int(seconds):
        message = "must be whole seconds, from 1m to 366d"
        raise BadText(message)
    return seconds


def next_tick(cadence: Cadence, after: float) -> float | None:
    """The first tick later than `after`; None when there is none before the end of the calendar."""
    if cadence.every is not None:
        return (after // cadence.every + 1) * cadence.every
    if cadence.cron is None:
        return None
    try:
        start = datetime.fromtimestamp(after, zone_of(cadence.zone))
        for at in CronSim(cadence.cron, start):
            # An expression of fixed times is followed on the wall clock: within the hour that comes twice its next
            # time may be the first of the two, which has passed; and several times of a gap become one tick.
            if (found := at.timestamp()) > after:
                return found
    except (OverflowError, ValueError, OSError):
        pass
    return None


def ticks(cadence: Cadence, after: float) -> Iterator[float]:
    """Every tick later than `after`, in their order."""
    found = next_tick(cadence, after)
    while found is not None:
        yield found
        found = next_tick(cadence, found)


def described(cadence: Cadence, at: float) -> Tick:
    """A tick as a person reads it."""
    local = datetime.fromtimestamp(at, zone_of(cadence.zone))
    return Tick(
        at, local.isoformat(timespec="seconds"), None if cadence.cron is None else _note(cadence.cron, at, local)
    )


def zone_of(name: str) -> ZoneInfo:
    """The zone of a name that `read_zone` accepted; UTC when this machine no longer knows it."""
    return _zone(name) or ZoneInfo("UTC")


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        return None


def _note(cron: str, at: float, local: datetime) -> str | None:
    """What a change of the clocks does to this tick; None on every other day."""
    before = datetime.fromtimestamp(at - 1, local.tzinfo)
    wall = local.replace(tzinfo=None, fold=0)
    if (local.utcoffset() or timedelta()) > (before.utcoffset() or timedelta()) and not _fires_at(cron, wall):
        missing = next(CronSim(cron, before.replace(tzinfo=None, fold=0)))
        return f"{missing:%H:%M} does not exist on this day: the tick is at {wall:%H:%M}, right after the gap"
    if local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset():
        if _is_fixed(cron):
            return f"{wall:%H:%M} comes twice on this day: the tick is at the first one only"
        return f"{wall:%H:%M} comes twice on this day: this is the {'second' if local.fold else 'first'} one"
    return None


def _fires_at(cron: str, wall: datetime) -> bool:
    return next(CronSim(cron, wall - _SECOND)) == wall


def _is_fixed(cron: str) -> bool:
    """Whether cronsim follows the wall clock: an expression without `*` in minutes and hours."""
    minutes, hours, *_ = cron.split()
    return not (minutes.startswith("*") or hours.startswith("*"))


@lru_cache(maxsize=256)
def _first(expression: str) -> datetime:
    return next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))


def _matches_in_another_month(expression: str) -> bool:
    minutes, hours, days, _, weekdays = expression.split()
    try:
        _first(f"{minutes} {hours} {days} * {weekdays}")
    except (StopIteration, *_UNREADABLE):
        return False
    return True
