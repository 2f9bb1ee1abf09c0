"""Calls into the file system of a user's file: which threads are inside one, and since when.

Rule: an open, a read, a stat or a listing on a mount that does not answer (NFS, FUSE) cannot be interrupted. So each is
made inside `FILE_CALL`, on a thread that can be replaced; none is made by the agent's loop.
"""

import threading
import time
from typing import Final

_entered: Final[dict[int, float]] = {}


class _FileCall:
    """A context without state of its own; not to be entered twice by one thread."""

    def __enter__(self) -> None:
        _entered[threading.get_ident()] = time.monotonic()

    def __exit__(self, *_: object) -> None:
        _entered.pop(threading.get_ident(), None)


FILE_CALL: Final = _FileCall()


def entered_at(thread: int) -> float | None:
    """When the thread with this identifier entered its present call, on the monotonic clock; None outside of one."""
    return _entered.get(thread)
