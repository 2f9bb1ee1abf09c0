"""The rate limit of the agent: one token bucket, shared by all senders.

Rule: a sender calls `take` before it sends, and sleeps outside the lock for as long as its bytes take; senders continue
in the order of their calls, so no worker starves.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

SMOOTH: Final = 64 * 1024
"""The most bytes to take at once: a larger piece would leave as a burst."""

_SHARES: Final = 8
_SMALLEST: Final = 1024


class Throttle:
    """At most `bytes_per_second` on average, and at most an eighth of a second's bytes at once."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if bytes_per_second < 1:
            text = f"a throttle of {bytes_per_second} bytes a second would never send"
            raise ValueError(text)
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def change(self, bytes_per_second: int) -> None:
        """Use another rate for every later `take`."""
        self._rate = bytes_per_second

    @property
    def piece(self) -> int:
        """Bytes to send between two calls of `take`: few at a low rate, so that no sender sleeps for long."""
        return min(SMOOTH, max(_SMALLEST, self._rate // _SHARES))

    def take(self, size: int) -> None:
        """Return when `size` more bytes may be sent; unused time counts for one piece at most."""
        with self._lock:
            now = self._clock()
            begin = max(self._free_at, now - self.piece / self._rate)
            self._free_at = begin + size / self._rate
            wait = begin - now
        if wait > 0:
            self._sleep(wait)
