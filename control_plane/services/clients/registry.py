"""Registers clients from their presence, in batches.

Rule: a client that became reachable has its parked duties made due in the same transaction, so none can be missed.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from control_plane.domain.clients import Client, Verdict, apply_presence
from control_plane.services.errors import DatabaseUnavailable, ServiceError
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from schemas.messages import Presence

MAX_BATCH: Final = 1_000
MAX_WAITING: Final = 50_000
PAUSE: Final = 0.05
"""Seconds to gather beats for one commit; a birth is not kept waiting longer than that."""


class ClientRegistry:
    """Takes presence messages and commits what they say of the clients."""

    def __init__(self, store: Database, clock: Clock, log: EventLog) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._waiting: asyncio.Queue[tuple[Presence, float]] = asyncio.Queue(MAX_WAITING)
        self._reachable: Callable[[], None] = lambda: None

    def wakes(self, reachable: Callable[[], None]) -> None:
        """Name who is told when duties became due; called once, by the composition root."""
        self._reachable = reachable

    def hear(self, presence: Presence) -> None:
        """Take one message. Never waits: what does not fit is dropped, for the next beat says it again."""
        try:
            self._waiting.put_nowait((presence, self._clock.now()))
        except asyncio.QueueFull:
            self._log("presence.shed", {"client_id": presence.client_id})

    async def run(self) -> None:
        """Commit batches until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            await asyncio.sleep(PAUSE)
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self._commit(batch)

    async def _commit(self, batch: list[tuple[Presence, float]]) -> None:
        try:
            verdicts, woken = await self._store.write(lambda records: self._apply(records, batch))
        except ServiceError as error:
            self._log("presence.failed", {"messages": len(batch), "error": str(error)})
            if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):
                for one in batch:
                    await self._commit([one])
            return
        for presence, verdict in verdicts:
            # A beat of each client every thirty seconds is no news.
            if verdict is not Verdict.BEAT:
                self._log("presence", _facts(presence, verdict))
        if woken:
            self._reachable()

    @staticmethod
    def _apply(records: Records, batch: list[tuple[Presence, float]]) -> tuple[list[tuple[Presence, Verdict]], int]:
        before = records.clients.among({presence.client_id for presence, _ in batch})
        after: dict[str, Client] = dict(before)
        verdicts: list[tuple[Presence, Verdict]] = []
        woken = 0
        for presence, at in batch:
            known = after.get(presence.client_id)
            client, verdict = apply_presence(known, presence, at)
            if client is not None and client is not known:
                after[presence.client_id] = client
            verdicts.append((presence, verdict))
        changed = [client for client_id, client in after.items() if before.get(client_id) is not client]
        records.clients.save(changed)
        for client in changed:
            # Every beat, not only the first after a silence: what is parked may be parked since a moment ago, by
            # somebody who did not see this one yet, or since two devices shared an id, which mere time ends.
            if client.dispatchable(client.seen_at):
                woken += records.outbox.wake(client.client_id, client.seen_at)
        return verdicts, woken


def _facts(presence: Presence, verdict: Verdict) -> dict[str, str | int]:
    """What was decided, and by which pair: so a late will that was believed shows in the log."""
    return {
        "client_id": presence.client_id,
        "install_id": presence.install_id,
        "epoch": presence.epoch,
        "sequence": presence.sequence,
        "verdict": verdict,
    }
