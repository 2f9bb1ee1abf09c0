"""What the object store enforces, found out by a probe at the start and every hour.

Rule: until a probe succeeds, and while the object store's clock differs, no URL is signed and no upload is proven:
uploads wait, with that reason.
"""

import asyncio
from typing import Final

from control_plane.services.backoff import full_jitter
from control_plane.services.errors import ObjectStoreDown, ServiceError
from control_plane.services.policy import MAX_SKEW
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import ObjectStore, ObjectStoreCapabilities
from schemas.values import DigestName

AGAIN: Final = 3_600.0
SHORTEST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0
_NOT_PROBED: Final = "the object store was not probed yet"


class ObjectStoreProbe:
    """Makes sure that the bucket exists, and keeps the result of the last probe.

    `failure` is why the last probe failed, as a sentence; None when it succeeded.
    """

    def __init__(self, object_store: ObjectStore, log: EventLog) -> None:
        self._object_store = object_store
        self._log = log
        self._seen: ObjectStoreCapabilities | None = None
        self.failure: str | None = _NOT_PROBED

    @property
    def seen(self) -> ObjectStoreCapabilities | None:
        """The result of the last good probe; None before it."""
        return self._seen

    @property
    def capabilities(self) -> ObjectStoreCapabilities:
        """What the object store is known to do now: nothing before the first good probe."""
        return self._seen or ObjectStoreCapabilities()

    def digest_for(self, wanted: DigestName | None) -> DigestName:
        """The digest that binds a new upload's URLs; `wanted` is None for the best."""
        return self.capabilities.digest_for(wanted)

    def require(self) -> ObjectStoreCapabilities:
        """The result of the last good probe; `ObjectStoreDown` before it."""
        if self._seen is None:
            raise ObjectStoreDown(self.failure or _NOT_PROBED)
        return self._seen

    async def probe(self) -> ObjectStoreCapabilities:
        """Create the bucket if it is missing, and probe; `ObjectStoreDown`, `ObjectStoreRefused`."""
        await self._object_store.ensure_bucket()
        seen = await self._object_store.probe()
        if seen.clock_skew is not None and abs(seen.clock_skew) > MAX_SKEW:
            self._seen = None
            message = (
                f"the store's clock and this machine's are {seen.clock_skew:+.0f} s apart: set this machine's clock"
            )
            raise ObjectStoreDown(message)
        self._seen, self.failure = seen, None
        return seen

    async def run(self) -> None:
        """Probe until it succeeds, then every hour, until cancelled."""
        failures = 0
        while True:
            try:
                seen = await self.probe()
                self._log("store.probed", {"notes": list(seen.notes)})
                await asyncio.sleep(AGAIN)
                failures = 0
            except ServiceError as error:
                self.failure = str(error)
                self._log("store.failed", {"error": str(error)})
                await asyncio.sleep(full_jitter(failures, longest=LONGEST_WAIT, at_least=SHORTEST_WAIT))
                failures += 1
