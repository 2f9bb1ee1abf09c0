"""The findings of a control plane about itself, for `GET /health/details`: those of `backhaul doctor`.

Rule: it uses the connections and the last probe of the running server, and stores nothing in the bucket but what the
check of its access needs, at most once in `KEPT` seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from control_plane.services.diagnosis import database as database_findings
from control_plane.services.diagnosis.broker import CHECK_BROKER
from control_plane.services.diagnosis.findings import Finding, looked
from control_plane.services.diagnosis.store import CHECK_STORE, StoreDoctor
from control_plane.services.errors import ServiceError
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.diagnosis import DatabaseFacts
from control_plane.services.ports.messenger import Messenger
from schemas.codec import MAX_MESSAGE_SIZE

KEPT: Final = 600.0
"""Seconds for which the findings about the bucket are used again."""


class ServerDiagnosis:
    """What is wrong now. `facts` reads those of the open database, `keys` finds what is to be done about keys."""

    def __init__(
        self,
        *,
        database: Database,
        facts: Callable[[], Awaitable[DatabaseFacts]],
        messenger: Messenger,
        probe: ObjectStoreProbe,
        store: StoreDoctor,
        clock: Clock,
        keys: Callable[[], list[Finding]] = list,
    ) -> None:
        self._keys = keys
        self._database = database
        self._facts = facts
        self._messenger = messenger
        self._probe = probe
        self._store = store
        self._clock = clock
        self._bucket: tuple[float, list[Finding]] | None = None
        self._asking = asyncio.Lock()

    async def findings(self) -> list[Finding]:
        """All findings, in the order in which to repair them; never raises for a neighbour that is away."""
        return [
            *await looked("database", self._about_database, database_findings.CHECK_DATABASE),
            *self._keys(),
            *self._about_broker(),
            *await self._about_store(),
        ]

    async def _about_database(self) -> Sequence[Finding]:
        await self._database.check()
        return database_findings.judged(await self._facts())

    def _about_broker(self) -> list[Finding]:
        if (problem := self._messenger.problem) is not None:
            return [Finding("broker", fine=False, text=problem, remedy=CHECK_BROKER)]
        size = self._messenger.max_message_size
        connected = Finding("broker", fine=True, text="connected, and it answers")
        if size < MAX_MESSAGE_SIZE:
            text = f"it takes {size} bytes a message, and a command may have {MAX_MESSAGE_SIZE}"
            remedy = "raise this limit in the broker's configuration"
            return [connected, Finding("broker limits", fine=False, text=text, remedy=remedy)]
        return [connected]

    async def _about_store(self) -> list[Finding]:
        seen = self._probe.seen
        if seen is None or self._probe.failure is not None:
            text = self._probe.failure or "not probed yet"
            return [Finding("object store", fine=False, text=text, remedy=CHECK_STORE)]
        return [*self._store.judged(seen), *await self._about_bucket()]

    async def _about_bucket(self) -> list[Finding]:
        async with self._asking:
            now = self._clock.monotonic()
            if self._bucket is None or now - self._bucket[0] >= KEPT:
                try:
                    found = await self._store.beside()
                except ServiceError as error:
                    return [Finding("bucket access", fine=False, text=str(error))]
                self._bucket = (now, found)
            return self._bucket[1]
