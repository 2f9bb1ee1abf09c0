"""What the object store was seen to enforce, found out at start and again every hour.

Rule: nothing is signed for, or proven on, a store that was not probed or whose clock is another: until then uploads
wait, and say why.
"""

import asyncio
from typing import Final

from control_plane.services.errors import ObjectStoreDown, ServiceError
from control_plane.services.policy import MAX_SKEW
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import ObjectStore, ObjectStoreCapabilities
from schemas.values import DigestName

AGAIN: Final = 3_600.0
SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0


class ObjectStoreProbe:
    """Sees to it that the bucket is there, and remembers what the probe saw."""

    def __init__(self, objects: ObjectStore, log: EventLog) -> None:
        self._objects = objects
        self._log = log
        self._seen: ObjectStoreCapabilities | None = None
        self.complaint: str | None = "the object store was not probed yet"

    @property
    def seen(self) -> ObjectStoreCapabilities | None:
        """What the last good probe saw; None before it."""
        return self._seen

    @property
    def capabilities(self) -> ObjectStoreCapabilities:
        """What may be relied on now: nothing before the first good probe."""
        return self._seen or ObjectStoreCapabilities()

    def digest_for(self, wanted: DigestName) -> DigestName:
        """What binds a new upload's URLs: as the settings want, but SHA-256 and CRC-32 only where they are enforced.

        Content-MD5 is part of S3 since its first day, and a store that ignores it is not harmed by it.
        """
        anywhere = wanted in {DigestName.MD5, DigestName.NONE}
        return wanted if anywhere or wanted in self.capabilities.part_digests else DigestName.MD5

    def require(self) -> ObjectStoreCapabilities:
        """What was seen; `ObjectStoreDown` before the first good probe."""
        if self._seen is None:
            message = self.complaint or "the object store was not probed yet"
            raise ObjectStoreDown(message)
        return self._seen

    async def probe(self) -> ObjectStoreCapabilities:
        """Make the bucket if it is missing, and probe; `ObjectStoreDown`, `ObjectStoreRefused`."""
        await self._objects.ensure_bucket()
        seen = await self._objects.probe()
        if seen.clock_skew is not None and abs(seen.clock_skew) > MAX_SKEW:
            self._seen = None
            message = (
                f"the store's clock and this machine's are {seen.clock_skew:+.0f} s apart: set this machine's clock"
            )
            raise ObjectStoreDown(message)
        self._seen, self.complaint = seen, None
        return seen

    async def run(self) -> None:
        """Probe until it works, then every hour, until cancelled."""
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
