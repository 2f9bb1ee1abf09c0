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

from device_agent.inbox import JobDone, Mailbox
from device_agent.transfer.events import Digested, DigestParts, OpenSource, PutPart, Rechecked
from device_agent.transfer.records import Order
from device_agent.uploads import Run
from device_agent.workers.part_io import Hands, JobEvent, Post
from device_agent.workers.pool import Workers


def shares_of(task: DigestParts, count: int) -> list[DigestParts]:
    """The task in up to `count` shares; neighbours go to different ones, so that the file is read in order."""
    return [replace(task, parts=task.parts[first::count]) for first in range(max(1, min(count, len(task.parts))))]


class Gathered:
    """What became of each of `count` shares, until all are there. `post` may be called from any thread."""

    def __init__(self, count: int, post: Callable[[JobEvent], None]) -> None:
        self._count = count
        self._post = post
        self._lock = threading.Lock()
        self._events: list[JobEvent] = []

    def post(self, event: JobEvent) -> None:
        """Take the event of one share; the last one has the event of the whole task posted."""
        with self._lock:
            self._events.append(event)
            if len(self._events) < self._count:
                return
        self._post(_whole(self._events))


def _whole(events: list[JobEvent]) -> JobEvent:
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


class Jobs:
    """The workers: some that send, two that open and digest for them, one for what may wait."""

    def __init__(
        self, hands: Hands, mailbox: Mailbox, *, senders: int, hire: Callable[[str, int], Workers] = Workers
    ) -> None:
        self._hands = hands
        self._mailbox = mailbox
        self._senders = hire("send", senders)
        self._reader = hire("read", _READERS)
        self._background = hire("background", 1)
        self._under_way: set[tuple[int, str]] = set()

    def start(self) -> None:
        """Begin to work."""
        for workers in (self._senders, self._reader, self._background):
            workers.start()

    def stop(self) -> None:
        """Cut what is under way, and end the workers; waits a few seconds at most."""
        self._hands.uploader.close()
        everybody = (self._senders, self._reader, self._background)
        for workers in everybody:
            workers.dismiss()
        until = time.monotonic() + _PATIENCE
        for workers in everybody:
            workers.join(until)

    def open(self, run: Run, effect: OpenSource) -> None:
        """Open the source; one that has to be compressed first takes its time, and keeps no other waiting."""
        life, order = run.life, effect.order
        workers = self._reader if order.options.compression == "none" else self._background
        self._start(run, "open", workers, lambda post: self._hands.open(order, life, post))

    def digest(self, run: Run, effect: DigestParts) -> None:
        """Digest parts; what is only compared waits behind what is asked for."""
        if effect.recheck:
            self._start(run, "recheck", self._background, self._digesting(run, effect))
        else:
            shares = shares_of(effect, _READERS)
            self._start(run, "digest", self._reader, *(self._digesting(run, share) for share in shares))

    def _digesting(self, run: Run, task: DigestParts) -> Callable[[Post], None]:
        life = run.life
        return lambda post: self._hands.digest(task, life, post)

    def put(self, run: Run, effect: PutPart) -> None:
        """Send a part."""
        life, rate = run.life, run.transfer.order.options.max_bytes_per_second
        clock, mailbox, size, url = self._hands.clock, self._mailbox, effect.part.size, effect.url.url
        life.jobs += 1

        def job() -> None:
            began = clock()

            def post(event: JobEvent) -> None:
                mailbox.put(JobDone(run, life, event, PUT, size, clock() - began, url))

            self._hands.put(effect, life, post, max_bytes_per_second=rate)

        self._senders.submit(job)

    def inquire(self, job: Callable[[], None]) -> None:
        """Answer a question about the device."""
        self._background.submit(job)

    def discard_copy(self, order: Order) -> None:
        """An upload is over: what it compressed is of no use any more."""
        if order.options.compression != "none":
            self._background.submit(lambda: self._hands.spool.discard(order))

    def sweep_copies(self, orders: list[Order]) -> None:
        """Remove compressed copies that belong to none of these."""
        self._hands.spool.sweep(orders)

    def ended(self, done: JobDone) -> None:
        """A job has posted its event."""
        self._under_way.discard((id(done.life), done.kind))

    def _start(self, run: Run, kind: str, workers: Workers, *shares: Callable[[Post], None]) -> None:
        life, mailbox = run.life, self._mailbox
        if (id(life), kind) in self._under_way:
            return
        self._under_way.add((id(life), kind))
        life.jobs += 1
        gathered = Gathered(len(shares), lambda event: mailbox.put(JobDone(run, life, event, kind)))
        for share in shares:
            workers.submit(functools.partial(share, gathered.post))
