"""A few threads and one queue of calls.

Rule: a call that raises is logged, and its thread continues.
"""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger(__name__)


class ThreadPool:
    """A few threads and one queue of calls."""

    def __init__(self, name: str, count: int) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        names = [f"{name}-{number}" for number in range(1, count + 1)]
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], None]) -> None:
        """Run a call on the next free thread."""
        self._calls.put(call)

    def stop(self) -> None:
        """End the threads after the queued calls."""
        for _ in self._threads:
            self._calls.put(None)

    def join(self, until: float) -> None:
        """Wait for their end, but not beyond `until` on the monotonic clock."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                log.exception("a call failed")
