"""The machine's clocks, behind the port `Clock`."""

import time


class SystemClock:
    """What the operating system says."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
