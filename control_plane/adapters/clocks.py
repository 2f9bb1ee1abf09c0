"""The machine's clocks, behind the port `Clock`.

Rule: the monotonic clock runs while the machine sleeps, where the system has such a clock: a sleep is no step.
"""

import time
from typing import Final

_MONOTONIC: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The clocks of the operating system."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(_MONOTONIC)
