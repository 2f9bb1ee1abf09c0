"""An event loop whose clock jumps to the next timer: hours pass in milliseconds.

Rule: nothing sleeps or reads a real clock, and equal programs run in equal order.
"""

import asyncio
from typing import Any

_RESOLUTION = 1e-6
"""Seconds; greater than the rounding error of sums of floats."""


class NothingLeft(Exception):
    """Every task waits, and no timer is left."""


class _Jump:
    """Takes the place of the selector that waits for sockets."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Advance the clock by the time that a real loop would wait."""
        if timeout is None:
            raise NothingLeft
        if timeout > 0:
            self._loop.now += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs tasks and timers in virtual time; `now` is in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._clock_resolution = _RESOLUTION
        self._selector = _Jump(self)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        """No socket ever has an event."""

    def _write_to_self(self) -> None:
        """No other thread wakes the loop."""
