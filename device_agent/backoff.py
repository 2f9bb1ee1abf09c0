"""How long to wait before the next try, so that a fleet does not come back as one.

Rule: full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"); chance is injected, time is not read.
"""

import random
from collections.abc import Callable
from typing import Final

FIRST: Final = 1.0
LONGEST: Final = 60.0
_MOST_DOUBLINGS: Final = 16


class Backoff:
    """Seconds between tries: any value up to 1, then up to 2, 4, … 60."""

    def __init__(
        self, *, first: float = FIRST, longest: float = LONGEST, chance: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._chance = chance
        self._tries = 0

    def next(self, *, stable: bool = False, permanent: bool = False) -> float:
        """How long to wait now.

        `stable`: the last try had worked for a while, so this one is the first again. `hopeless`: only somebody's hand
        can mend it, so wait at least half of the longest time.
        """
        if stable:
            self._tries = 0
        span = min(self._longest, self._first * 2**self._tries)
        self._tries = min(self._tries + 1, _MOST_DOUBLINGS)
        return self._longest / 2 * (1 + self._chance()) if permanent else span * self._chance()
