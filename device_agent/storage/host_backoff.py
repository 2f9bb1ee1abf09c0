"""Stores that are left alone for a while, whichever upload they turned away.

Rule: used by the agent's loop only. A store that asks for a pause gets it from every upload, and one that fails again
and again is asked less and less often; what a pause means for an upload is `device_agent.transfer`'s.
"""

from typing import Final

from device_agent.errors import PutFailure
from device_agent.transfer.events import PartFailed, PartStored
from device_agent.workers.part_io import IoEvent

ENOUGH: Final = 8
"""Failures in a row, of any uploads, after which a store is left alone though it asked for nothing."""

LONGEST_PAUSE: Final = 60.0


class HostBackoff:
    """What is known of each store: its failures since it last took a part, and until when nothing is sent to it."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def until(self, url: str) -> float:
        """When the store of this URL may be sent to again; 0 when nothing is held against it."""
        return self._until.get(_store_of(url), 0.0)

    def record_result(self, url: str, event: IoEvent) -> None:
        """Learn from how a PUT to this URL ended."""
        store = _store_of(url)
        if isinstance(event, PartStored):
            self._failures.pop(store, None)
        elif isinstance(event, PartFailed) and event.kind is PutFailure.TRY_AGAIN:
            failures = self._failures[store] = self._failures.get(store, 0) + 1
            doublings = min(failures - ENOUGH, 16)
            pause = 0.0 if doublings < 0 else event.jitter * min(LONGEST_PAUSE, 2.0**doublings)
            self._until[store] = max(self.until(url), event.now + max(pause, event.retry_after or 0.0))


def _store_of(url: str) -> str:
    """The scheme and the host of a URL, as they are written.

    >>> _store_of("https://s3.example.com:9000/bucket/key?partNumber=1")
    'https://s3.example.com:9000'
    """
    return "/".join(url.partition("?")[0].split("/", 3)[:3])
