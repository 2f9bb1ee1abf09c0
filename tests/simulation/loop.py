"""An event loop whose clock jumps to the next timer: hours pass in milliseconds.

Rule: nothing sleeps or reads a real clock, and equal programs run in equal order.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_RESOLUTION = 1e-6
"""Seconds; greater than the rounding error of sums of floats."""


class NothingLeft(Exception):
    """Every task waits, and no timer is left."""


class Fault(Exception):
    """The loop reported a fault without an exception."""


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

    def play(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` and return its result, then cancel every task and close the loop.

        The first exception that no task takes, or the one of `main`, is raised.
        """
        errors: list[BaseException] = []

        def done(_task: object) -> None:
            self.stop()

        def failed(_loop: object, facts: dict[str, Any]) -> None:
            errors.append(facts.get("exception") or Fault(facts["message"]))
            self.stop()

        self.set_exception_handler(failed)
        task = self.create_task(main)
        task.add_done_callback(done)
        try:
            self.run_forever()
        finally:
            task.remove_done_callback(done)
            error = errors[0] if errors else task.exception() if task.done() else None
            self._end()
        if error is not None:
            raise error
        return task.result()

    def _end(self) -> None:
        self.set_exception_handler(lambda _loop, _facts: None)
        tasks = asyncio.all_tasks(self)
        for one in tasks:
            one.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks))
        self.close()

    def _process_events(self, event_list: list[Any]) -> None:
        """No socket ever has an event."""

    def _write_to_self(self) -> None:
        """No other thread wakes the loop."""
