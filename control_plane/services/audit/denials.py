"""Denied requests, on their way to the audit.

Rule: a denial changes nothing, so its record needs no separate transaction: those of a second are written together. A
flood of them is bounded: `MOST` records a second, and one that counts the others.
"""

import asyncio
from typing import Final

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act, AuditEntry, Outcome
from control_plane.services.errors import ServiceError
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog

EVERY: Final = 1.0
MOST: Final = 20
"""Denials in one second that have a record each."""

KEPT: Final = 1_000
"""Records that wait while the database cannot be written."""


class Denials:
    """Takes denials without waiting, and writes them."""

    def __init__(self, database: Database, clock: Clock, log: EventLog) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._waiting: list[AuditEntry] = []
        self._this_turn = 0
        self._more = 0

    def denied(self, caller: Principal | None, address: str | None, method: str, path: str, status: int) -> None:
        """Record that a request was denied; `caller` is None where nothing is known of it."""
        if self._this_turn >= MOST or len(self._waiting) >= KEPT:
            self._more += 1
            return
        self._this_turn += 1
        entry = AuditEntry(
            at=self._clock.now(),
            act=Act.REQUEST,
            subject="" if caller is None else caller.subject,
            token_id=None if caller is None else caller.token_id,
            address=address,
            reason=None if caller is None else caller.reason,
            detail={"method": method, "path": path, "status": status},
            outcome=Outcome.DENIED,
        )
        self._waiting.append(entry)

    async def run(self) -> None:
        """Write until cancelled; what waits then is written first."""
        try:
            while True:
                await self.flush()
                await asyncio.sleep(EVERY)
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; it stays when the database cannot be written."""
        self._this_turn = 0
        some, more = tuple(self._waiting), self._more
        if not some and not more:
            return
        if more:
            facts = {"more": more}
            some += (
                AuditEntry(at=self._clock.now(), act=Act.REQUEST, subject="", detail=facts, outcome=Outcome.DENIED),
            )

        def work(records: Records) -> None:
            for entry in some:
                records.audit.add(entry)

        # Out of the list first, and to its end: the last flush of a task that ends meanwhile must not write them again.
        del self._waiting[: len(some) - bool(more)]
        self._more -= more
        try:
            await asyncio.shield(self._database.write(work))
        except ServiceError as error:
            self._log("audit.denials_wait", {"denials": len(some), "error": str(error)})
            self._waiting[:0] = some[: len(some) - bool(more)]
            self._more += more
