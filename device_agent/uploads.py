"""Every upload that the device works on: whose turn it is, which part is sent next, who has to be woken when.

Rule: used by the agent's loop only. Decisions about one upload are `device_agent.transfer`'s; this module decides
between uploads, and passes effects on to whoever performs them.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from device_agent.state.journal import Journal
from device_agent.storage.host_backoff import HostBackoff
from device_agent.transfer.events import (
    Admitted,
    Count,
    DigestParts,
    Effect,
    Event,
    Faulted,
    HostPaused,
    Keep,
    OpenSource,
    PutPart,
    StopParts,
    Tick,
    WorkerFree,
    WriteTombstone,
)
from device_agent.transfer.machine import apply, begin, next_url, ready, restored, wake_at
from device_agent.transfer.model import State, Transfer
from device_agent.transfer.records import Order, PartKept, Tombstone
from device_agent.workers.part_io import SourceSession
from schemas.values import ErrorCode, Outcome, PresignedPart

MAX_ADMITTED: Final = 4
"""Uploads with an open file that make their way at the same time."""

MAX_ACTIVE: Final = 256
MAX_ENDED: Final = 4_096

_REQUEST_PATIENCE: Final = 5.0
"""Seconds after which an upload whose owner does not answer no longer keeps others waiting."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Run:
    """One upload in work. `number` is its order of arrival."""

    number: int
    transfer: Transfer
    session: SourceSession = field(default_factory=SourceSession)
    wake_at: float | None = None
    fresh: bool = True
    """Not durable yet."""

    @property
    def upload_id(self) -> str:
        """The upload's name."""
        return self.transfer.order.upload_id

    @property
    def ended(self) -> bool:
        """Whether only the owner's last word is missing."""
        return self.transfer.state is State.ENDED

    @property
    def rank(self) -> tuple[int, int]:
        """Its place in any queue: high priority first, then first come."""
        return -self.transfer.order.options.priority, self.number


class Uploads:
    """The table of uploads. Effects pile up in `effects` until the journal holds what they rely on."""

    def __init__(
        self,
        journal: Journal,
        transfers: Iterable[Transfer],
        *,
        workers: int,
        now: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.effects: list[tuple[Run, Effect]] = []
        self.finished_orders: list[Order] = []
        """Attempts that are over or replaced, for whoever keeps files for them."""
        self.counters: Counter[str] = Counter()
        self.rate: float | None = None
        """Bytes per second that one part was lately seen to reach."""
        self.host_backoff = HostBackoff()
        self._journal = journal
        self._wall = wall
        self._workers = workers
        self._sending = 0
        self.parts_unsaved = False
        """Whether a part is stored of which the journal does not know."""
        self._arrivals = 0
        self._runs: dict[str, Run] = {}
        for transfer in transfers:
            run = self._add(restored(transfer, now))
            run.fresh = False

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._runs.values()))

    def get(self, upload_id: str) -> Run | None:
        """The upload in work under this name."""
        return self._runs.get(upload_id)

    @property
    def full(self) -> bool:
        """Whether no further upload is taken."""
        return sum(not run.ended for run in self._runs.values()) >= MAX_ACTIVE

    def begin(
        self,
        order: Order,
        *,
        acknowledges: int,
        urls: tuple[PresignedPart, ...] = (),
        lifetime: float | None = None,
        now: float,
    ) -> Run:
        """Take a new attempt; an older one of the same upload is stopped and replaced."""
        old = self._runs.pop(order.upload_id, None)
        if old is not None:
            old.session.end()
            self.finished_orders.append(old.transfer.order)
        transfer, effects = begin(order, acknowledges=acknowledges, urls=urls, now=now, lifetime=lifetime)
        run = self._add(transfer)
        self._collect(run, effects)
        return run

    def handle(self, run: Run, event: Event) -> None:
        """Let something happen to one upload."""
        try:
            run.transfer, effects = apply(run.transfer, event)
        except Exception as bug:
            # One upload that meets a bug of ours must not take the others with it.
            self.counters["faults"] += 1
            log.exception("upload %s cannot go on", run.upload_id)
            fault = Faulted(now=event.now, code=ErrorCode.INTERNAL, text=f"{type(bug).__name__}: {bug}")
            run.transfer, effects = apply(run.transfer, fault)
        run.wake_at = wake_at(run.transfer)
        self._collect(run, effects)
        if run.transfer.state is State.CLOSED:
            self._runs.pop(run.upload_id, None)
            self.finished_orders.append(run.transfer.order)

    def take_early(self) -> list[tuple[Run, Effect]]:
        """What relies on nothing that the journal has yet to hold: reading a source, and most parts to be sent.

        A part is sent again after a crash if it was in flight, and no other: it waits for those that are stored.
        """
        early = [pair for pair in self.effects if self._is_early(*pair)]
        self.effects = [pair for pair in self.effects if not self._is_early(*pair)]
        return early

    def _is_early(self, run: Run, effect: Effect) -> bool:
        if isinstance(effect, PutPart):
            # Pre-granted parts are sent in the turn in which the source was opened, which has to be kept.
            return not (self.parts_unsaved or run.fresh or run.transfer.order.pregranted)
        return _only_reads(effect)

    def take_effects(self) -> list[tuple[Run, Effect]]:
        """What is to be done, now that the journal holds everything: from here on nothing is fresh."""
        for run in self.fresh():
            run.fresh = False
        self.parts_unsaved = False
        effects, self.effects = self.effects, []
        return effects

    def fresh(self) -> list[Run]:
        """Uploads that the journal does not hold yet."""
        return [run for run in self._runs.values() if run.fresh]

    def discard(self, run: Run) -> None:
        """Drop an upload that could not be made durable, as if its command had never come."""
        self._journal.discard_pending(run.upload_id)
        self._runs.pop(run.upload_id, None)
        # Its parts are begun by nobody, so no job gives their senders back.
        self._sending -= sum(owner is run and isinstance(effect, PutPart) for owner, effect in self.effects)
        self.effects = [(owner, effect) for owner, effect in self.effects if owner is not run]
        run.session.end()

    def effect_done(self, session: SourceSession, *, sends: bool) -> None:
        """A job of an upload has posted its event; `sends` if it kept a sender busy."""
        session.running -= 1
        self._sending -= sends

    def write_tombstone(self, upload_id: str, outcome: str) -> None:
        """Keep nothing of an upload but how it ended."""
        self._journal.append(Tombstone(upload_id, outcome, int(self._wall())))

    def tick(self, now: float, jitter: float) -> None:
        """Wake every upload whose time has come."""
        for run in self:
            if run.wake_at is not None and now >= run.wake_at:
                self.handle(run, Tick(now=now, jitter=jitter))

    def next_wake(self) -> float | None:
        """When `tick` is next of use."""
        return min((run.wake_at for run in self._runs.values() if run.wake_at is not None), default=None)

    def schedule(self, now: float) -> None:
        """Open what may be opened, and give every idle sender a part."""
        self._drop_oldest_ended()
        self._admit(now)
        while self._sending < self._workers:
            run = min((run for run in self._runs.values() if ready(run.transfer, now)), key=self._turn, default=None)
            if run is None:
                return
            until = self.host_backoff.until(next_url(run.transfer, now) or "")
            self.handle(run, HostPaused(now=now, until=until) if until > now else WorkerFree(now=now, rate=self.rate))

    def _turn(self, run: Run) -> tuple[int, int, int]:
        priority, number = run.rank
        return priority, len(run.transfer.in_flight), number

    def _admit(self, now: float) -> None:
        working = sum(self._holds_a_slot(run, now) for run in self._runs.values())
        queued = [run for run in self._runs.values() if run.transfer.state is State.QUEUED and not run.session.running]
        for run in sorted(queued, key=lambda run: run.rank)[: max(0, MAX_ADMITTED - working)]:
            run.session = SourceSession()
            self.handle(run, Admitted(now=now))

    def _holds_a_slot(self, run: Run, now: float) -> bool:
        state = run.transfer.state
        if state is State.REQUESTING and run.transfer.awaiting_grant:
            return now - run.transfer.published_at < _REQUEST_PATIENCE
        return state not in {State.QUEUED, State.ENDED, State.CLOSED}

    def _drop_oldest_ended(self) -> None:
        """Of very many that nobody closes, the oldest become tombstones."""
        ended = [run for run in self._runs.values() if run.ended]
        for run in ended[: max(0, len(ended) - MAX_ENDED)]:
            self.write_tombstone(run.upload_id, Outcome.UNKNOWN)
            self.finished_orders.append(run.transfer.order)
            del self._runs[run.upload_id]

    def _add(self, transfer: Transfer) -> Run:
        self._arrivals += 1
        run = Run(self._arrivals, transfer, wake_at=wake_at(transfer))
        self._runs[run.upload_id] = run
        return run

    def _collect(self, run: Run, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Keep(record=record):
                    self._journal.append(record)
                    self.parts_unsaved |= isinstance(record, PartKept)
                case WriteTombstone(outcome=outcome):
                    self.write_tombstone(run.upload_id, outcome)
                case StopParts():
                    run.session.end()
                case Count(what=what):
                    self.counters[what] += 1
                case _:
                    self._sending += isinstance(effect, PutPart)
                    self.effects.append((run, effect))


def _only_reads(effect: Effect) -> bool:
    """To open a source that is to be compressed makes a copy, which must be some durable command's."""
    if isinstance(effect, OpenSource):
        return effect.order.options.compression == "none"
    return isinstance(effect, DigestParts)
