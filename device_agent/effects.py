"""Runs effects that may take long on thread pools, and reports each result to the inbox.

Rule: used by the agent's loop only. Effects may be derived again at any time, so one that is running is not started
twice.
"""

import functools
import threading
import time
from collections.abc import Callable
from typing import Final, assert_never

from msgspec.structs import replace

from device_agent.inbox import EffectDone, EventQueue
from device_agent.transfer.events import Digested, DigestParts, MeasureSource, OpenSource, PutPart, Rechecked
from device_agent.transfer.model import State
from device_agent.transfer.records import Order
from device_agent.uploads import CloseSource, DiscardCopy, Run
from device_agent.workers.part_io import IoEvent, PartIO, Post, SourceSession
from device_agent.workers.pool import ThreadPool

PUT: Final = "put"
UNANSWERED_EVERY: Final = 1.0
"""Seconds between two looks for threads that a file system does not answer, while there is work."""

_MAX_LOST_QUERIES: Final = 8
_STOP_TIMEOUT: Final = 3.0
_READERS: Final = 2

IoEffect = MeasureSource | OpenSource | DigestParts | PutPart | DiscardCopy | CloseSource


class EffectRunner:
    """The thread pools: for sending, opening and digesting (two threads), queries, selections, `after`, and the rest.

    The rest may wait: compressed copies, and digests of parts that are stored.
    """

    def __init__(
        self,
        part_io: PartIO,
        inbox: EventQueue,
        *,
        senders: int,
        make_pool: Callable[[str, int], ThreadPool] = ThreadPool,
    ) -> None:
        self._part_io = part_io
        self._inbox = inbox
        self._senders = make_pool("send", senders)
        self._reader = make_pool("read", _READERS)
        self._background = make_pool("background", 1)
        self._queries = make_pool("query", 1)
        self._walks = make_pool("select", 1)
        self._after = make_pool("after", 1)
        self._pools = (self._senders, self._reader, self._background, self._queries, self._walks, self._after)
        self._unanswered: set[object] = set()
        self._running: set[tuple[int, str]] = set()

    def start(self) -> None:
        """Start the threads."""
        for pool in self._pools:
            pool.start()

    def stop(self) -> None:
        """Cut the connections of PUTs in flight, and end the threads; waits a few seconds at most."""
        self._part_io.uploader.close()
        for pool in self._pools:
            pool.stop()
        until = time.monotonic() + _STOP_TIMEOUT
        for pool in self._pools:
            pool.join(until)

    def perform(self, run: Run, effect: IoEffect) -> None:
        """Start one effect of an upload."""
        match effect:
            case MeasureSource(order=order):
                if run.transfer.state is State.QUEUED:
                    self._start(run, "measure", self._reader, lambda post: self._part_io.measure(order, post))
            case OpenSource():
                # An effect derived for a new connection may arrive after the opening that was running has ended.
                if run.transfer.state is State.OPENING:
                    self._open(run, effect)
            case DigestParts():
                self._digest(run, effect)
            case PutPart():
                self._put(run, effect)
            case DiscardCopy(order=order):
                self._discard_copy(order)
            case CloseSource(session=session):
                self._reader.submit(session.close, session)
            case _:
                assert_never(effect)

    def finished(self, done: EffectDone) -> None:
        """The event of an effect has arrived: the same effect may start again."""
        self._running.discard((id(done.session), done.kind))

    @property
    def takes_queries(self) -> bool:
        """Whether a further query would not only take one more thread that no file system answers."""
        return self._queries.lost < _MAX_LOST_QUERIES

    def run_query(self, call: Callable[[], None], unanswered: Callable[[], None]) -> None:
        """Run a query about the device; `unanswered` is called, maybe again, when a file system does not answer it."""
        self._queries.submit(call, unanswered)

    def run_walk(self, call: Callable[[], None], unanswered: Callable[[], None]) -> None:
        """Make a selection, after those before it; `unanswered` as for a query."""
        _submit(self._walks, call, unanswered)

    def run_after(self, call: Callable[[], None], unanswered: Callable[[], None]) -> None:
        """Work on a file after its upload; `unanswered` as for a query."""
        _submit(self._after, call, unanswered)

    @property
    def busy(self) -> bool:
        """Whether any work runs or waits."""
        return any(pool.busy for pool in self._pools)

    @property
    def lost_senders(self) -> int:
        """Senders that wait for a file system and were replaced."""
        return self._senders.lost

    def replace_stuck(self, now: float) -> dict[SourceSession, float]:
        """Replace the threads that a file system does not answer; since when, on the clock of `now`, by source."""
        present = time.monotonic()
        stuck: dict[object, float] = {}
        for pool in self._pools:
            for owner, since in pool.replace_stuck(present).items():
                stuck[owner] = min(now - (present - since), stuck.get(owner, now))
        for owner in stuck.keys() - self._unanswered:
            if callable(owner):
                owner()
        self._unanswered = set(stuck)
        return {owner: since for owner, since in stuck.items() if isinstance(owner, SourceSession)}

    def sweep_copies(self, orders: list[Order]) -> None:
        """Remove copies that belong to none of these orders."""
        self._part_io.copies.sweep(orders)

    def _open(self, run: Run, effect: OpenSource) -> None:
        """Open the source; a file that must be compressed first runs in the background, and delays no other."""
        session, order = run.session, effect.order
        pool = self._reader if order.options.compression == "none" else self._background
        self._start(run, "open", pool, lambda post: self._part_io.open(order, session, post))

    def _digest(self, run: Run, effect: DigestParts) -> None:
        """Digest parts; a recheck waits in the background behind other work."""
        if effect.recheck:
            self._start(run, "recheck", self._background, self._digesting(run, effect))
        else:
            shares = split_digests(effect, _READERS)
            self._start(run, "digest", self._reader, *(self._digesting(run, share) for share in shares))

    def _digesting(self, run: Run, effect: DigestParts) -> Callable[[Post], None]:
        session = run.session
        return lambda post: self._part_io.digest(effect, session, post)

    def _put(self, run: Run, effect: PutPart) -> None:
        session = run.session
        clock, inbox, size, url = self._part_io.clock, self._inbox, effect.part.size, effect.url.url
        session.running += 1

        def call() -> None:
            began, sent = clock(), 0

            def count(size: int) -> None:
                nonlocal sent
                sent += size

            def post(event: IoEvent) -> None:
                inbox.put(EffectDone(run, session, event, PUT, size, clock() - began, url, sent))

            self._part_io.put(effect, session, post, count)

        self._senders.submit(call, session)

    def _discard_copy(self, order: Order) -> None:
        self._background.submit(lambda: self._part_io.copies.discard(order))

    def _start(self, run: Run, kind: str, pool: ThreadPool, *shares: Callable[[Post], None]) -> None:
        session, inbox = run.session, self._inbox
        if (id(session), kind) in self._running:
            return
        self._running.add((id(session), kind))
        session.running += 1
        join = DigestJoin(len(shares), lambda event: inbox.put(EffectDone(run, session, event, kind)))
        for share in shares:
            pool.submit(functools.partial(share, join.post), session)


def split_digests(effect: DigestParts, count: int) -> list[DigestParts]:
    """Up to `count` effects with parts in turn: one thread digests on one processor, and most devices have more."""
    return [replace(effect, parts=effect.parts[first::count]) for first in range(max(1, min(count, len(effect.parts))))]


class DigestJoin:
    """Joins the events of `count` shares into one. `post` may be called from any thread."""

    def __init__(self, count: int, post: Callable[[IoEvent], None]) -> None:
        self._count = count
        self._post = post
        self._lock = threading.Lock()
        self._events: list[IoEvent] = []

    def post(self, event: IoEvent) -> None:
        """Take the event of one share; the last one posts the joined event, which is a fault if one share has one."""
        with self._lock:
            self._events.append(event)
            if len(self._events) < self._count:
                return
        self._post(_joined(self._events))


def _submit(pool: ThreadPool, call: Callable[[], None], unanswered: Callable[[], None]) -> None:
    """Run a call, unless it would only take one more thread that no file system answers."""
    if pool.lost < _MAX_LOST_QUERIES:
        pool.submit(call, unanswered)
    else:
        unanswered()


def _joined(events: list[IoEvent]) -> IoEvent:
    digests: dict[int, str | None] = {}
    contents: dict[int, str] = {}
    for event in events:
        if not isinstance(event, Digested | Rechecked):
            return event
        digests.update(event.digests)
        if isinstance(event, Digested):
            contents.update(event.contents)
    last = events[-1]
    if isinstance(last, Digested):
        return replace(last, digests=digests, contents=contents)
    return replace(last, digests=digests) if isinstance(last, Rechecked) else last
