"""An event loop in a thread, for servers of tests that are called from another thread."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

PATIENCE: Final = 60.0
T = TypeVar("T")


class LoopThread:
    """Runs an event loop from `start` to `stop`. `call` runs a coroutine in it and returns the result."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; `TimeoutError` after `PATIENCE` seconds."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def soon(self, call: Callable[[], object]) -> None:
        """Call a function in the loop, and do not wait for it."""
        self._loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
