"""The control planes that share this database: each one signs a row while it runs.

Rule: for people only. No decision depends on a row: a replica that cannot write one works all the same.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from control_plane.domain.access import Principal
from control_plane.services.errors import ServiceError
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.overview import Replica

EVERY: Final = 30.0
GONE_AFTER: Final = 100.0
"""Seconds without a sign after which a replica is not shown."""

_PRUNED_AFTER: Final = 86_400.0
_BYTES: Final = 6


class ReplicaList:
    """Signs this process's row, and reads those of all."""

    def __init__(self, database: Database, clock: Clock, version: str) -> None:
        self._database = database
        self._clock = clock
        now = clock.now()
        self.own = Replica(secrets.token_hex(_BYTES), socket.gethostname(), version, now, now)

    async def run(self) -> None:
        """Sign until cancelled; the row goes with the process."""
        try:
            while True:
                await self.sign()
                await asyncio.sleep(EVERY)
        finally:
            await self._quietly(lambda records: records.overview.remove_replica(self.own.replica_id))

    async def sign(self) -> None:
        """Write this process's row, and delete those of a day ago."""
        now = self._clock.now()
        self.own = replace(self.own, seen_at=now)

        def work(records: Records) -> None:
            records.overview.put_replica(self.own)
            records.overview.prune_replicas(now - _PRUNED_AFTER)

        await self._quietly(work)

    async def seen(self, _principal: Principal) -> list[Replica]:
        """Those that signed lately, the longest running first. `DatabaseUnavailable`."""
        since = self._clock.now() - GONE_AFTER
        found = await self._database.read(lambda records: records.overview.replicas(since))
        return sorted(found, key=lambda one: (one.started_at, one.replica_id))

    async def _quietly(self, work: Callable[[Records], None]) -> None:
        try:
            await self._database.write(work)
        except ServiceError:
            # The database cannot be used now: other loops report it, and the next turn signs again.
            return
