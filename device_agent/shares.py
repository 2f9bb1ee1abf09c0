"""One task of digests, shared among several readers: a digest keeps one processor busy, and most devices have more.

Rule: the answer is one event, posted by whoever ends last; what is wrong with one share is wrong with the task.
"""

import threading
from collections.abc import Callable

from msgspec.structs import replace

from device_agent.transfer_events import Digested, DigestParts, Rechecked
from device_agent.work import JobEvent


def shares_of(task: DigestParts, count: int) -> list[DigestParts]:
    """The task in up to `count` shares; neighbours go to different ones, so that the file is read in order."""
    return [replace(task, parts=task.parts[first::count]) for first in range(max(1, min(count, len(task.parts))))]


class Gathered:
    """What became of each of `count` shares, until all are there. `post` may be called from any thread."""

    def __init__(self, count: int, post: Callable[[JobEvent], None]) -> None:
        self._count = count
        self._post = post
        self._lock = threading.Lock()
        self._events: list[JobEvent] = []

    def post(self, event: JobEvent) -> None:
        """Take the event of one share; the last one has the event of the whole task posted."""
        with self._lock:
            self._events.append(event)
            if len(self._events) < self._count:
                return
        self._post(_whole(self._events))


def _whole(events: list[JobEvent]) -> JobEvent:
    digests: dict[int, str | None] = {}
    for event in events:
        if not isinstance(event, Digested | Rechecked):
            return event
        digests.update(event.digests)
    last = events[-1]
    return replace(last, digests=digests) if isinstance(last, Digested | Rechecked) else last
