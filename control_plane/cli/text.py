"""Numbers, instants and untrusted text, formatted for a person.

Rule: pure functions that take any value: what a device or another version reports is shown, and ends no command. Text
that comes from a device passes `visible` before it reaches a terminal.
"""

import re
from datetime import UTC, datetime
from typing import Final

MIB: Final = 1024 * 1024

_KIB: Final = 1024
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_LARGEST: Final = 2**64
_NS: Final = 1_000_000_000
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": _MINUTE, "h": _HOUR, "d": _DAY, "w": 7 * _DAY}


def visible(text: object) -> str:
    r"""`text` on one line without terminal control sequences.

    >>> print(visible("a\x1b[2J\nb"))
    a\x1b[2J\nb
    """
    # Category C holds control characters and the marks that reverse the reading direction.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def size(count: float | None) -> str:
    """Bytes in the unit that fits.

    >>> size(0), size(1536), size(104857600), size(None)
    ('0 B', '1.5 KiB', '100.0 MiB', '-')
    """
    if count is None:
        return "-"
    if abs(count) > _LARGEST:
        return visible(count)
    for unit in _UNITS:
        if count < _KIB or unit == _UNITS[-1]:
            break
        count /= _KIB
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def instant(value: str | None) -> datetime | None:
    """An RFC 3339 instant in UTC; None when there is none, or no calendar has it."""
    try:
        at = datetime.fromisoformat(value) if value else None
        return at and (at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def moment_of_ns(count: int | None) -> str:
    """The instant `count` ns after 1970, to the second, in UTC; the number itself where the calendar ends.

    >>> moment_of_ns(1761991200250000000), moment_of_ns(10**30)
    ('2025-11-01 10:00:00Z', '1000000000000000000000000000000')
    """
    if not count:
        return "-"
    try:
        return f"{datetime.fromtimestamp(count // _NS, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return visible(count)


def moment(value: str | None) -> str:
    """An instant to the second, in UTC.

    >>> moment("2025-11-01T11:05:00.25+01:00")
    '2025-11-01 10:05:00Z'
    """
    at = instant(value)
    return f"{at:%Y-%m-%d %H:%M:%SZ}" if at else visible(value or "-")


def ago(value: str | None, now: datetime) -> str:
    """How long before `now` an instant was.

    >>> ago("2025-11-01T10:05:00Z", datetime(2025, 11, 1, 10, 6, 30, tzinfo=UTC))
    '1 min ago'
    """
    at = instant(value)
    if at is None:
        return "never"
    passed = max(0.0, (now - at).total_seconds())
    for length, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if passed >= length:
            return f"{passed // length:.0f} {unit} ago"
    return f"{passed:.0f} s ago"


def duration(text: str) -> float | None:
    """Seconds in `90`, `15m`, `2h`, `7d`; None when it is no duration.

    >>> duration("90"), duration("1.5h"), duration("tomorrow")
    (90.0, 5400.0, None)
    """
    found = _DURATION.fullmatch(text.strip())
    return float(found[1]) * _SECONDS[found[2]] if found else None
