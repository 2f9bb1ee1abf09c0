"""A few threads and one queue of calls.

Rule: a call that raises is logged, and its thread continues. A thread that a file system does not answer is replaced,
so it delays no other call; it ends when its call returns.
"""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from device_agent.files.file_call import entered_at

PATIENCE: Final = 10.0
"""Seconds in one call of a file system after which it counts as not answering."""

MAX_LOST: Final = 16
"""Threads of one pool that are replaced at most; the memory of each is small, but a hung mount may take any number."""

log = logging.getLogger(__name__)


class _Worker:
    """One thread; `owner` is that of the present call, and `lost` is set when another thread has its place."""

    def __init__(self, run: Callable[["_Worker"], None], name: str) -> None:
        self.owner: object = None
        self.busy = False
        self.lost = False
        self.thread = threading.Thread(target=run, args=(self,), name=name, daemon=True)

    def since(self) -> float | None:
        """When it entered its present call of a file system, if it is in one."""
        return None if self.thread.ident is None else entered_at(self.thread.ident)


class ThreadPool:
    """A few threads and one queue of calls."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Callable[[], None], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._workers = [self._new_worker() for _ in range(count)]

    def start(self) -> None:
        """Start the threads."""
        for worker in self._workers:
            worker.thread.start()

    def submit(self, call: Callable[[], None], owner: object = None) -> None:
        """Run a call on the next free thread; `replace_stuck` names its `owner` while it gets no answer."""
        self._calls.put((call, owner))

    @property
    def busy(self) -> bool:
        """Whether a call runs or waits."""
        return not self._calls.empty() or any(worker.busy for worker in self._workers)

    @property
    def lost(self) -> int:
        """Threads that wait for a file system and were replaced."""
        return sum(worker.lost for worker in self._workers)

    def replace_stuck(self, now: float) -> dict[object, float]:
        """Replace the threads that a file system does not answer; since when, on the monotonic clock, by owner."""
        stuck: dict[object, float] = {}
        with self._lock:
            for worker in tuple(self._workers):
                since = worker.since()
                if since is None or now - since < PATIENCE:
                    continue
                stuck[worker.owner] = min(since, stuck.get(worker.owner, since))
                if not worker.lost and self.lost < MAX_LOST:
                    worker.lost = True
                    fresh = self._new_worker()
                    self._workers.append(fresh)
                    fresh.thread.start()
                    log.warning("a file system has not answered %s for %.0f s", worker.thread.name, now - since)
        return stuck

    def stop(self) -> None:
        """End the threads after the queued calls."""
        for _ in self._workers:
            self._calls.put(None)

    def join(self, until: float) -> None:
        """Wait for their end, but not beyond `until` on the monotonic clock, nor for a thread that is lost."""
        for worker in tuple(self._workers):
            if worker.thread.is_alive() and not worker.lost:
                worker.thread.join(max(0.0, until - time.monotonic()))

    def _new_worker(self) -> _Worker:
        self._started += 1
        return _Worker(self._run, f"{self._name}-{self._started}")

    def _run(self, worker: _Worker) -> None:
        while (item := self._calls.get()) is not None:
            call, worker.owner = item
            worker.busy = True
            try:
                call()
            except Exception:
                log.exception("a call failed")
            worker.busy, worker.owner = False, None
            with self._lock:
                if worker.lost:
                    self._workers.remove(worker)
                    return
