"""The pause before the next connection to the broker.

Rule: full jitter; the random numbers are injected, and no clock is read.
"""

import random
from collections.abc import Callable
from typing import Final

from device_agent.backoff import full_jitter

FIRST: Final = 1.0
LONGEST: Final = 60.0


class ReconnectBackoff:
    """Seconds between connections: any value up to 1, then up to 2, 4, … 60."""

    def __init__(
        self, *, first: float = FIRST, longest: float = LONGEST, chance: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._chance = chance
        self._tries = 0

    def next(self, *, stable: bool = False, permanent: bool = False) -> float:
        """Seconds to wait now.

        `stable`: the last connection worked for a while, so the count starts again. `permanent`: no retry helps until
        an operator changes something, so wait at least half of the longest time.
        """
        if stable:
            self._tries = 0
        tries, self._tries = self._tries, self._tries + 1
        chance = self._chance()
        if permanent:
            return self._longest / 2 * (1 + chance)
        return full_jitter(tries, self._first, self._longest, chance)
