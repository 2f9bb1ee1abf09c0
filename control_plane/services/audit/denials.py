"""Denied requests, on their way to the audit.

Rule: a denial changes nothing, so its record needs no separate transaction: those of a second are written together. A
flood of them is bounded, in rate and in what it takes of the disk: `MOST` records a second, `BURST` at one time and
`A_DAY` in the long run, and one each minute that counts the others. Strangers use up nothing of known callers.
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
"""Denials in one second that have a record each: of known callers, and of strangers."""

BURST: Final = 5_000
A_DAY: Final = 10_000
"""Records of known callers, and as many of strangers: some 10 MB a day under a flood that never ends."""

COUNTED_EVERY: Final = 60.0
_DAY: Final = 86_400.0

KEPT: Final = 1_000
"""Records that wait while the database cannot be written."""


class _Allowance:
    """How many records may be written: `MOST` until `begin`, `BURST` at one time, and again `A_DAY`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._at = clock.monotonic()
        self._this_turn = 0

    def begin(self) -> None:
        """The next second."""
        self._this_turn = 0

    def take(self) -> bool:
        """Use one; False when none is left."""
        now = self._clock.monotonic()
        self._left = min(float(BURST), self._left + (now - self._at) * A_DAY / _DAY)
        self._at = now
        if self._left < 1 or self._this_turn >= MOST:
            return False
        self._left -= 1
        self._this_turn += 1
        return True


class Denials:
    """Takes denials without waiting, and writes them."""

    def __init__(self, database: Database, clock: Clock, log: EventLog) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._waiting: list[AuditEntry] = []
        self._more = 0
        self._counted_at = -COUNTED_EVERY
        self._known, self._strangers = _Allowance(clock), _Allowance(clock)

    def denied(self, caller: Principal | None, address: str | None, method: str, path: str, status: int) -> None:
        """Record that a request was denied; `caller` is None where nothing is known of it."""
        allowance = self._strangers if caller is None else self._known
        if len(self._waiting) >= KEPT or not allowance.take():
            self._more += 1
            return
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
        self._known.begin()
        self._strangers.begin()
        now = self._clock.monotonic()
        some, more = tuple(self._waiting), self._more if now - self._counted_at >= COUNTED_EVERY else 0
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
            self._counted_at = now if more else self._counted_at
        except ServiceError as error:
            self._log("audit.denials_wait", {"denials": len(some), "error": str(error)})
            self._waiting[:0] = some[: len(some) - bool(more)]
            self._more += more
