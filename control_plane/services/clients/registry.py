"""Registers clients from their presence, in batches.

Rule: when a client becomes reachable, its parked outbox entries become due in the same transaction, so none is missed.
A beat that changes nothing else is kept in memory, and written now and then.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from control_plane.domain.changes import Change, ClientConnected, ClientDisconnected
from control_plane.domain.clients import Client, Verdict, apply_presence
from control_plane.domain.gate.devices import eases, settled
from control_plane.services.clients.beats import Beats, worth_writing
from control_plane.services.errors import DatabaseUnavailable, ServiceError
from control_plane.services.fair_queue import FairQueue
from control_plane.services.jobs.runner import JobRunner
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.trust.sessions import ClientSessions
from schemas.messages import Presence

MAX_BATCH: Final = 1_000
MAX_WAITING: Final = 50_000
MAX_OF_ONE: Final = 64
PAUSE: Final = 0.05
"""Seconds for which presence messages are gathered for one commit; it delays a birth by no more than that."""


class _Arrived(NamedTuple):
    """A presence, when it arrived, and for how long (s) the broker had stored it."""

    presence: Presence
    at: float
    age: float


@dataclass(slots=True)
class _Outcome:
    """What one transaction came to."""

    verdicts: list[tuple[Presence, Verdict]] = field(default_factory=list)
    changed: list[Client] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    woken: int = 0
    executions: int = 0
    """How many executions became due."""
    joined: list[str] = field(default_factory=list)
    """Clients that may belong to other continuous jobs than before."""


class ClientRegistry:
    """Takes presence messages and commits the clients' state. `on_woken` is called when outbox entries became due.

    `jobs` runs the jobs that a client may have executions of, or may join; None where there are none.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: EventLog,
        *,
        beats: Beats,
        on_woken: Callable[[], None],
        jobs: JobRunner | None = None,
        sessions: ClientSessions | None = None,
    ) -> None:
        self._jobs = jobs
        self._sessions = sessions
        self._database = database
        self._beats = beats
        self._clock = clock
        self._log = log
        self._on_woken = on_woken
        self._waiting: FairQueue[_Arrived] = FairQueue(most=MAX_WAITING, most_of_one=MAX_OF_ONE)

    def receive(self, presence: Presence, *, age: float = 0.0) -> None:
        """Take one message, which the broker had stored for `age` seconds.

        Never waits: when the queue is full it is dropped, and the next beat replaces it.
        """
        if self._sessions is not None:
            self._sessions.hear(presence)
        if not self._waiting.offer(presence.client_id, _Arrived(presence, self._clock.now(), age)):
            self._log("presence.shed", {"client_id": presence.client_id})

    async def run(self) -> None:
        """Commit batches until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            await asyncio.sleep(PAUSE)
            while len(batch) < MAX_BATCH and self._waiting:
                batch.append(self._waiting.get_nowait())
            await self._commit(batch)

    async def _commit(self, batch: list[_Arrived]) -> None:
        try:
            outcome = await self._database.write(lambda records: self._apply(records, batch))
        except ServiceError as error:
            self._log("presence.failed", {"messages": len(batch), "error": str(error)})
            if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):
                for one in batch:
                    await self._commit([one])
            return
        for client in outcome.changed:
            self._beats.note(client)
            if self._sessions is not None:
                self._sessions.note(client)
        for presence, verdict in outcome.verdicts:
            # Each client sends a beat every thirty seconds: only other verdicts are logged.
            if verdict is not Verdict.BEAT:
                self._log("presence", _facts(presence, verdict))
        if outcome.woken:
            self._on_woken()
        if self._jobs is not None:
            if outcome.executions:
                self._jobs.poke()
            if outcome.joined:
                self._jobs.on_clients(outcome.joined)

    def _apply(self, records: Records, batch: list[_Arrived]) -> _Outcome:
        now = batch[-1].at
        rows = records.clients.among({one.presence.client_id for one in batch})
        known = {client_id: self._beats.latest(row) for client_id, row in rows.items()}
        after: dict[str, Client] = dict(known)
        outcome = _Outcome()
        for presence, at, age in batch:
            before = after.get(presence.client_id)
            client, verdict = apply_presence(before, presence, at, age=age)
            if client is not None and client is not before:
                after[presence.client_id] = client
            outcome.verdicts.append((presence, verdict))
            if verdict is Verdict.BIRTH and client is not None and client.connected(at):
                outcome.changes.append(ClientConnected(at=at, client_id=client.client_id))
            elif verdict is Verdict.OFFLINE and before is not None and before.online:
                outcome.changes.append(ClientDisconnected(at=at, client_id=before.client_id))
        outcome.changed = [client for client_id, client in after.items() if known.get(client_id) is not client]
        records.clients.save([one for one in outcome.changed if worth_writing(rows.get(one.client_id), one)])
        reachable = [client.client_id for client in outcome.changed if client.dispatchable(now)]
        for one in outcome.changed:
            _settle(records, rows.get(one.client_id), one, now)
        eased = [one.client_id for one in outcome.changed if _may_send_more(rows.get(one.client_id), one)]
        if self._jobs is not None:
            outcome.executions = records.jobs.executions.wake(reachable, now)
            outcome.executions += records.jobs.executions.wake_held(eased, now)
            outcome.joined = [one.client_id for one in outcome.changed if _may_join(rows.get(one.client_id), one)]
        for client_id in reachable:
            # At every beat, not only at the first after a silence: another transaction may have parked an entry a
            # moment ago, before it could read this beat; and a conflict of two devices ends by time alone.
            outcome.woken += records.outbox.wake(client_id, now)
        for client_id in eased:
            outcome.woken += records.outbox.release_device(client_id, now)
        if outcome.changes:
            records.changes.append(outcome.changes)
        return outcome


def _settle(records: Records, row: Client | None, client: Client, now: float) -> None:
    """What a device reports as sent leaves its ledger."""
    if client.budget is not None and row is not None and row.budget != client.budget:
        ledger = records.gate.ledger(client.client_id)
        if ledger.outstanding:
            records.gate.put_ledger(client.client_id, settled(client.budget, ledger, now))


def _may_send_more(row: Client | None, client: Client) -> bool:
    return row is not None and eases(row.budget, client.budget)


def _may_join(row: Client | None, client: Client) -> bool:
    return row is None or row.effective_labels != client.effective_labels or not row.registered_at


def _facts(presence: Presence, verdict: Verdict) -> dict[str, str | int]:
    """The verdict, and the epoch and sequence that led to it: the log shows a late will that was accepted."""
    return {
        "client_id": presence.client_id,
        "install_id": presence.install_id,
        "epoch": presence.epoch,
        "sequence": presence.sequence,
        "verdict": verdict,
    }
