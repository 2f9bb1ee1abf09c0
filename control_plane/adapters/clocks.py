"""The machine's clocks, behind the port `Clock`."""

import time


class SystemClock:
    """What the operating system says."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()
