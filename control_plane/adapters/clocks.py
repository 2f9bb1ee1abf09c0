"""The machine's clocks, behind the port `Clock`."""

import time


class SystemClock:
    """The clocks of the operating system."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
