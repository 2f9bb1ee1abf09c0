"""Parts that were read or written lately, so that an upload of 10,000 parts is not read again for every answer.

Rule: an entry is found by the stamp that stands in the upload's row, and a stamp is drawn anew, at random, whenever a
part changes. So an entry is right for whoever sees its stamp: after a rollback, beside another process that writes, or
when an id is used again. Nothing ever has to be invalidated.
"""

import secrets
import threading
from collections import OrderedDict
from typing import Final

from control_plane.adapters.store.rows import Parts

NO_PARTS: Final = 0
"""The stamp of an upload without parts."""

_CAPACITY: Final = 100_000
"""Parts in all: about 30 MiB."""


def new_stamp(parts: Parts) -> int:
    """A stamp that nobody has: 62 random bits, which every database holds."""
    return secrets.randbits(62) + 1 if parts else NO_PARTS


class PartsCache:
    """The least recently used go first. Used from several threads."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[int, Parts] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, stamp: int) -> Parts | None:
        """The parts of this stamp, if they are still here."""
        if stamp == NO_PARTS:
            return {}
        with self._lock:
            parts = self._entries.get(stamp)
            if parts is not None:
                self._entries.move_to_end(stamp)
            return parts

    def put(self, stamp: int, parts: Parts) -> None:
        """Keep the parts of this stamp."""
        with self._lock:
            if stamp == NO_PARTS or stamp in self._entries or len(parts) > self._capacity:
                return
            self._entries[stamp] = parts
            self._size += len(parts)
            while self._size > self._capacity:
                _, oldest = self._entries.popitem(last=False)
                self._size -= len(oldest)
