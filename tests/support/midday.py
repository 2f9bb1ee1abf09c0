"""A time zone in which no day ends while a test runs.

Rule: for tests of real programs whose days follow the real clock; any other test gives its clock.
"""

from datetime import UTC, datetime
from typing import Final

_NOON: Final = 12


def zone_at_midday() -> str:
    """The IANA name of a zone in which it is between noon and one o'clock now."""
    ahead = _NOON - datetime.now(UTC).hour
    # The names count against the sun: Etc/GMT-2 is two hours ahead of UTC.
    return f"Etc/GMT{-ahead:+d}"
