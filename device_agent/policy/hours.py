"""The hours of a day in which parts are sent: `22:00-06:00`.

Rule: pure. A span may pass midnight; its end is outside of it.
"""

import re
from typing import Final

from schemas.errors import SchemaError

Span = tuple[int, int]
"""Minutes after midnight: from, and until."""

_SPAN: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_DAY: Final = 24 * 60


def span_of(text: str) -> Span:
    """A span of a day; `SchemaError` for another text.

    >>> span_of("22:00-06:30"), span_of("00:00-24:00")
    ((1320, 390), (0, 1440))
    """
    match = _SPAN.fullmatch(text)
    first, until = (60 * int(match[1]) + int(match[2]), 60 * int(match[3]) + int(match[4])) if match else (0, 0)
    if first == until or until > _DAY:
        message = f"hours: {text!r} must look like 22:00-06:00, in the zone of the device"
        raise SchemaError(message)
    return first, until


def shown(span: Span) -> str:
    """A span as it is written.

    >>> shown((1320, 390))
    '22:00-06:30'
    """
    return "-".join(map(shown_minute, span))


def shown_minute(minute: int) -> str:
    """A time of day."""
    return f"{minute // 60:02}:{minute % 60:02}"


def is_inside(minute: int, spans: tuple[Span, ...]) -> bool:
    """Whether a minute of the day lies in one of the spans.

    >>> night = (span_of("22:00-06:00"),)
    >>> is_inside(23 * 60, night), is_inside(5 * 60 + 59, night), is_inside(6 * 60, night)
    (True, True, False)
    """
    return any(
        first <= minute < until if first < until else minute >= first or minute < until for first, until in spans
    )
