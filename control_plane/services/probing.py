"""What the object store was seen to enforce, found out at start and again once a day.

Rule: nothing is proven on a store that was not probed; until then completions wait.
"""

import asyncio
from typing import Final

from control_plane.services.errors import ObjectStoreDown, ServiceError
from control_plane.services.ports import EventLog, ObjectStore, StoreCapabilities

AGAIN: Final = 86_400.0
SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0


class Probing:
    """Sees to it that the bucket is there, and remembers what the probe saw."""

    def __init__(self, objects: ObjectStore, log: EventLog) -> None:
        self._objects = objects
        self._log = log
        self._seen: StoreCapabilities | None = None
        self.complaint: str | None = "the object store was not probed yet"

    @property
    def seen(self) -> StoreCapabilities | None:
        """What the last good probe saw; None before it."""
        return self._seen

    @property
    def capabilities(self) -> StoreCapabilities:
        """What may be relied on now: nothing before the first good probe."""
        return self._seen or StoreCapabilities()

    def require(self) -> StoreCapabilities:
        """What was seen; `ObjectStoreDown` before the first good probe."""
        if self._seen is None:
            message = self.complaint or "the object store was not probed yet"
            raise ObjectStoreDown(message)
        return self._seen

    async def probe(self) -> StoreCapabilities:
        """Make the bucket if it is missing, and probe; `ObjectStoreDown`, `ObjectStoreRefused`."""
        await self._objects.ensure_bucket()
        self._seen = await self._objects.probe()
        self.complaint = None
        return self._seen

    async def run(self) -> None:
        """Probe until it works, then once a day, until cancelled."""
        wait = SHORTEST_WAIT
        while True:
            try:
                seen = await self.probe()
                self._log("store.probed", {"notes": list(seen.notes)})
                await asyncio.sleep(AGAIN)
                wait = SHORTEST_WAIT
            except ServiceError as error:
                self.complaint = str(error)
                self._log("store.failed", {"error": str(error)})
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
