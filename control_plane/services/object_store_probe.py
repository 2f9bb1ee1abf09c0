"""What the object store enforces, found out by a probe at the start and every hour.

Rule: until a probe succeeds no URL is signed and no upload is proven; while the object store's clock differs, or the
credentials are not accepted, no URL is signed. Uploads wait, with that reason.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from control_plane.services.backoff import full_jitter
from control_plane.services.errors import (
    ClocksDiffer,
    ObjectStoreDown,
    ObjectStoreForbids,
    ObjectStoreRefused,
    ObjectStoreUnusable,
    ServiceError,
)
from control_plane.services.policy import MAX_SKEW
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import ObjectStore, ObjectStoreCapabilities

AGAIN: Final = 3_600.0
SHORTEST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0
SOONEST: Final = 30.0
"""Seconds after a probe before `look_again` leads to another one."""

_SHORTEST_LIFE: Final = 1.0
_CLOCK_SET: Final = "this machine's clock was set; its time is compared with the object store's"
_NOT_PROBED: Final = "the object store was not probed yet"


class ObjectStoreProbe:
    """Makes sure that the bucket exists, and keeps the result of the last probe.

    `clock_steps` counts how often the machine's clock was set: after each time nothing is signed before another probe.
    `failure` is why the last probe failed, as a sentence; None when it succeeded.
    """

    def __init__(self, object_store: ObjectStore, log: EventLog, *, clock_steps: Callable[[], int] = lambda: 0) -> None:
        self._object_store = object_store
        self._log = log
        self._seen: ObjectStoreCapabilities | None = None
        self.failure: str | None = _NOT_PROBED
        self._refusal: type[ObjectStoreRefused] | None = None
        self._clock_steps = clock_steps
        self._steps_seen = self._steps_asked = 0
        self.clock_is_wrong = False
        """Whether the object store's clock was last seen to differ from this machine's."""
        self._asked = asyncio.Event()
        self._probed_at = float("-inf")
        self._on_good: Callable[[], None] = lambda: None

    def on_good(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each good probe."""
        self._on_good = listener

    def watch_clock(self) -> None:
        """Probe now if the machine's clock was set since the last call."""
        steps = self._clock_steps()
        if steps != self._steps_asked:
            self._steps_asked = steps
            self._asked.set()

    def look_again(self) -> None:
        """Probe soon, because a request was refused or not answered: the credentials or the object store may be gone.

        Without effect within `SOONEST` seconds of the last probe; while probes fail, they are repeated anyway.
        """
        if asyncio.get_running_loop().time() - self._probed_at >= SOONEST:
            self._asked.set()

    @property
    def seen(self) -> ObjectStoreCapabilities | None:
        """The result of the last good probe; None before it."""
        return self._seen

    @property
    def capabilities(self) -> ObjectStoreCapabilities:
        """What the object store is known to do now: nothing before the first good probe."""
        return self._seen or ObjectStoreCapabilities()

    def require(self) -> ObjectStoreCapabilities:
        """The result of the last good probe; `ObjectStoreDown` before it."""
        if self._seen is None:
            raise self._unusable()
        return self._seen

    def require_signing(self) -> None:
        """`ObjectStoreForbids` while the last probe found that the credentials are not accepted.

        `ObjectStoreDown` before the first good probe, while the clock is wrong, and after it was set until a probe
        compared it: a URL that is signed with a wrong date lives too long or too short.
        """
        if self._refusal is not None and issubclass(self._refusal, ObjectStoreForbids):
            raise ObjectStoreForbids(self.failure or _NOT_PROBED)
        if self._clock_steps() != self._steps_seen:
            raise ObjectStoreDown(_CLOCK_SET)
        if self._seen is None or self.clock_is_wrong:
            raise self._unusable()

    def _unusable(self) -> ObjectStoreDown:
        """Why the last probe failed: a refusal needs a change by an operator, and no retry."""
        kind = ObjectStoreDown if self._refusal is None else ObjectStoreUnusable
        return kind(self.failure or _NOT_PROBED)

    async def probe(self) -> ObjectStoreCapabilities:
        """Create the bucket if it is missing, and probe; `ObjectStoreDown`, `ObjectStoreRefused`."""
        self._probed_at = asyncio.get_running_loop().time()
        self._asked.clear()
        steps = self._clock_steps()
        try:
            seen = await self._probe()
        except ServiceError as error:
            self.failure, self._refusal = str(error), type(error) if isinstance(error, ObjectStoreRefused) else None
            # Any other failure shows nothing of the clock.
            self.clock_is_wrong = self.clock_is_wrong or isinstance(error, ClocksDiffer)
            raise
        self._seen, self.failure, self._refusal, self._steps_seen = seen, None, None, steps
        self._on_good()
        return seen

    async def _probe(self) -> ObjectStoreCapabilities:
        await self._object_store.ensure_bucket()
        seen = await self._object_store.probe()
        if seen.clock_skew is not None and abs(seen.clock_skew) > MAX_SKEW:
            raise ClocksDiffer(seen.clock_skew)
        self.clock_is_wrong = False
        if self._object_store.url_lifetime(_SHORTEST_LIFE) < _SHORTEST_LIFE:
            message = "the object store's credentials are at their end: give new ones"
            raise ObjectStoreForbids(message)
        return seen

    async def run(self) -> None:
        """Probe until it succeeds, then every hour, until cancelled."""
        failures = 0
        while True:
            try:
                seen = await self.probe()
                self._log("store.probed", {"notes": list(seen.notes)})
                await self._wait(AGAIN)
                failures = 0
            except ServiceError as error:
                self._log("store.failed", {"error": str(error)})
                await self._wait(full_jitter(failures, longest=LONGEST_WAIT, at_least=SHORTEST_WAIT))
                failures += 1

    async def _wait(self, seconds: float) -> None:
        """Until the time is over, or `look_again` is called."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return
