"""Messages that could not be read or obeyed: every one is counted, and one a minute is told.

Rule: whoever may publish to this device may send rubbish as fast as the network carries it; a log on a memory card must
not pay for it.
"""

import logging
from collections import Counter
from typing import Final

from schemas.errors import SchemaError

PAUSE: Final = 60.0
"""Seconds between two lines about the same kind of message."""

_MAX_SHOWN: Final = 200

log = logging.getLogger(__name__)


class Complaints:
    """Counts in `counters`, under the name of what is wrong."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._quiet_until: dict[str, float] = {}

    def note(self, what: str, error: SchemaError, now: float) -> None:
        """One more of a kind; `now` is the time of a clock that never goes back."""
        self._counters[what] += 1
        if now < self._quiet_until.get(what, now):
            return
        self._quiet_until[what] = now + PAUSE
        log.warning("%s, %d so far, none told for %.0f s: %s", what, self._counters[what], PAUSE, _short(str(error)))


def _short(text: str) -> str:
    """The beginning of a text, parts of which the sender wrote, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}…"
