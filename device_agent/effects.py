"""Performing what an upload asks for: each effect that may take long becomes a job of a worker.

Rule: used by the agent's loop only. Effects are derived again whenever in doubt, so one that is under way is not begun
twice.
"""

import functools
import threading
import time
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from device_agent.inbox import EffectDone, EventQueue
from device_agent.transfer.events import Digested, DigestParts, OpenSource, PutPart, Rechecked
from device_agent.transfer.records import Order
from device_agent.uploads import Run
from device_agent.workers.part_io import IoEvent, PartIO, Post
from device_agent.workers.pool import ThreadPool


def split_digests(task: DigestParts, count: int) -> list[DigestParts]:
    """The task in up to `count` shares; neighbours go to different ones, so that the file is read in order."""
    return [replace(task, parts=task.parts[first::count]) for first in range(max(1, min(count, len(task.parts))))]


class DigestJoin:
    """What became of each of `count` shares, until all are there. `post` may be called from any thread."""

    def __init__(self, count: int, post: Callable[[IoEvent], None]) -> None:
        self._count = count
        self._post = post
        self._lock = threading.Lock()
        self._events: list[IoEvent] = []

    def post(self, event: IoEvent) -> None:
        """Take the event of one share; the last one has the event of the whole task posted."""
        with self._lock:
            self._events.append(event)
            if len(self._events) < self._count:
                return
        self._post(_whole(self._events))


def _whole(events: list[IoEvent]) -> IoEvent:
    digests: dict[int, str | None] = {}
    for event in events:
        if not isinstance(event, Digested | Rechecked):
            return event
        digests.update(event.digests)
    last = events[-1]
    return replace(last, digests=digests) if isinstance(last, Digested | Rechecked) else last


PUT: Final = "put"
_PATIENCE: Final = 3.0
_READERS: Final = 2


class EffectRunner:
    """The workers: some that send, two that open and digest for them, one for what may wait."""

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
        self._under_way: set[tuple[int, str]] = set()

    def start(self) -> None:
        """Begin to work."""
        for workers in (self._senders, self._reader, self._background):
            workers.start()

    def stop(self) -> None:
        """Cut what is under way, and end the workers; waits a few seconds at most."""
        self._part_io.uploader.close()
        pools = (self._senders, self._reader, self._background)
        for workers in pools:
            workers.stop()
        until = time.monotonic() + _PATIENCE
        for workers in pools:
            workers.join(until)

    def open(self, run: Run, effect: OpenSource) -> None:
        """Open the source; one that has to be compressed first takes its time, and keeps no other waiting."""
        session, order = run.session, effect.order
        workers = self._reader if order.options.compression == "none" else self._background
        self._start(run, "open", workers, lambda post: self._part_io.open(order, session, post))

    def digest(self, run: Run, effect: DigestParts) -> None:
        """Digest parts; what is only compared waits behind what is asked for."""
        if effect.recheck:
            self._start(run, "recheck", self._background, self._digesting(run, effect))
        else:
            shares = split_digests(effect, _READERS)
            self._start(run, "digest", self._reader, *(self._digesting(run, share) for share in shares))

    def _digesting(self, run: Run, task: DigestParts) -> Callable[[Post], None]:
        session = run.session
        return lambda post: self._part_io.digest(task, session, post)

    def put(self, run: Run, effect: PutPart) -> None:
        """Send a part."""
        session, rate = run.session, run.transfer.order.options.max_bytes_per_second
        clock, inbox, size, url = self._part_io.clock, self._inbox, effect.part.size, effect.url.url
        session.running += 1

        def call() -> None:
            began = clock()

            def post(event: IoEvent) -> None:
                inbox.put(EffectDone(run, session, event, PUT, size, clock() - began, url))

            self._part_io.put(effect, session, post, max_bytes_per_second=rate)

        self._senders.submit(call)

    def run_query(self, call: Callable[[], None]) -> None:
        """Answer a question about the device."""
        self._background.submit(call)

    def discard_copy(self, order: Order) -> None:
        """An upload is over: what it compressed is of no use any more."""
        if order.options.compression != "none":
            self._background.submit(lambda: self._part_io.copies.discard(order))

    def sweep_copies(self, orders: list[Order]) -> None:
        """Remove compressed copies that belong to none of these."""
        self._part_io.copies.sweep(orders)

    def ended(self, done: EffectDone) -> None:
        """A job has posted its event."""
        self._under_way.discard((id(done.session), done.kind))

    def _start(self, run: Run, kind: str, workers: ThreadPool, *shares: Callable[[Post], None]) -> None:
        session, inbox = run.session, self._inbox
        if (id(session), kind) in self._under_way:
            return
        self._under_way.add((id(session), kind))
        session.running += 1
        gathered = DigestJoin(len(shares), lambda event: inbox.put(EffectDone(run, session, event, kind)))
        for share in shares:
            workers.submit(functools.partial(share, gathered.post))
