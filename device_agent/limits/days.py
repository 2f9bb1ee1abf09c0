"""Days and months of the device's own calendar, as ordinals (`datetime.date.toordinal`).

Rule: pure. A clock that was never set has no day.
"""

from datetime import UTC, date, datetime, tzinfo
from typing import Final

from device_agent.system_info import EARLIEST

_MADE: Final = datetime.fromtimestamp(EARLIEST, UTC).toordinal()
_LAST: Final = date.max.toordinal()


def zone_of(name: str | None) -> tzinfo | None:
    """The zone with this IANA name; None where the system does not know it: the system's own zone counts then."""
    if name is None:
        return None
    # A device without a budget needs no zones.
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def day_of(wall: float, zone: tzinfo | None) -> int | None:
    """The day at this moment (s since the epoch); None for a clock that was never set."""
    try:
        day = datetime.fromtimestamp(wall, zone).toordinal()
    except (OverflowError, ValueError, OSError):
        return None
    return day if day >= _MADE else None


def minute_of(wall: float, zone: tzinfo | None) -> int | None:
    """Minutes after midnight at this moment; None for a clock that was never set."""
    if day_of(wall, zone) is None:
        return None
    moment = datetime.fromtimestamp(wall, zone)
    return 60 * moment.hour + moment.minute


def month_of(day: int) -> int:
    """The first day of its month.

    >>> date.fromordinal(month_of(date(2026, 11, 27).toordinal()))
    datetime.date(2026, 11, 1)
    """
    return date.fromordinal(day).replace(day=1).toordinal()


def month_after(day: int) -> int:
    """The first day of the next month.

    >>> date.fromordinal(month_after(date(2026, 12, 27).toordinal()))
    datetime.date(2027, 1, 1)
    """
    return month_of(min(month_of(day) + 31, _LAST))


def beginning_of(day: int, zone: tzinfo | None) -> datetime:
    """The first moment of a day, with its offset from UTC: days with a change of the clocks have 23 or 25 hours."""
    beginning = datetime.fromordinal(min(day, _LAST))
    return beginning.astimezone() if zone is None else beginning.replace(tzinfo=zone)
