"""The threads that do what may take long: opening, digesting and sending.

Rule: a job reads the source and the network, and posts one event; it knows nothing of any state. Whatever goes wrong in
it becomes an event too, so no upload waits for a job that died.
"""

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

from device_agent.errors import FileRefused, PutFailed, PutFailure
from device_agent.files import BLOCK_SIZE, Roots, Source, open_source
from device_agent.records import Order
from device_agent.spool import Spool
from device_agent.transfer_events import (
    Digested,
    DigestParts,
    Faulted,
    Opened,
    OpenRefused,
    PartFailed,
    PartStored,
    PutPart,
    Rechecked,
    Seen,
)
from device_agent.uploader import Uploader
from schemas.parts import Part
from schemas.values import DigestName, ErrorCode

JobEvent = Opened | OpenRefused | Digested | Rechecked | PartStored | PartFailed | Faulted
Post = Callable[[JobEvent], None]

log = logging.getLogger(__name__)


def boot_clock() -> float:
    """Seconds since the device started, those in suspend included; it never goes back (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Workers:
    """A few threads and one queue of jobs."""

    def __init__(self, name: str, count: int) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        names = [f"{name}-{number}" for number in range(1, count + 1)]
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job done by the next thread that is free."""
        self._jobs.put(job)

    def dismiss(self) -> None:
        """Have the threads end once they have done what is queued."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, until: float) -> None:
        """Wait for their end, but not beyond `until` on the monotonic clock."""
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                log.exception("a job failed")


@dataclass(slots=True)
class Life:
    """One opening of one source; what works on it, works on this and nothing else."""

    stopped: threading.Event = field(default_factory=threading.Event)
    source: Source | None = None
    sent: dict[int, int] = field(default_factory=dict)
    """Bytes of each part under way that have left; each key is written by one thread only."""
    jobs: int = 0
    """Jobs under way; counted by the agent's loop."""

    def end(self) -> None:
        """Stop everything and close the source; reads under way finish first."""
        self.stopped.set()
        if self.source is not None:
            self.source.close()


@dataclass(frozen=True, slots=True)
class Hands:
    """What jobs need of the device."""

    roots: Roots
    uploader: Uploader
    spool: Spool
    clock: Callable[[], float] = boot_clock

    def open(self, order: Order, life: Life, post: Post) -> None:
        """Open a source, or the compressed copy of it; the event is `Opened` or `OpenRefused`."""
        try:
            if order.options.compression == "gzip":
                source = self.spool.open(order, life.stopped.is_set)
            else:
                source = open_source(order.file_path, self.roots)
            digest = _digest_if_small(source, order)
        except FileRefused as refused:
            post(OpenRefused(now=self.clock(), code=refused.code, text=refused.text))
        except Exception as error:
            log.exception("a file could not be opened")
            post(OpenRefused(now=self.clock(), code=ErrorCode.INTERNAL, text=_said(error)))
        else:
            life.source = source
            if life.stopped.is_set():
                source.close()
            post(Opened(now=self.clock(), fingerprint=source.fingerprint, digest=digest))

    def digest(self, task: DigestParts, life: Life, post: Post) -> None:
        """Digest parts; the event is `Digested`, or `Rechecked` when the task says so, or `Faulted` with the reason."""
        try:
            digests = {part.number: self._digest_of(part, task.digest, life) for part in task.parts}
        except FileRefused as refused:
            post(Faulted(now=self.clock(), code=refused.code, text=refused.text))
        except Exception as error:
            log.exception("parts could not be digested")
            post(Faulted(now=self.clock(), code=ErrorCode.INTERNAL, text=_said(error)))
        else:
            event = Rechecked if task.recheck else Digested
            post(event(now=self.clock(), digests=digests))

    def put(self, task: PutPart, life: Life, post: Post, *, max_bytes_per_second: int | None) -> None:
        """Send a part; the event is `PartStored` or `PartFailed`."""
        number = task.part.number
        life.sent[number] = 0

        def count(size: int) -> None:
            life.sent[number] += size

        try:
            event = self._put(task, life, count, max_bytes_per_second)
        except Exception as error:
            log.exception("part %d could not be sent", number)
            event = self._failed(number, PutFailed(PutFailure.TRY_AGAIN, _said(error)), life)
        life.sent.pop(number, None)
        post(event)

    def _put(
        self, task: PutPart, life: Life, count: Callable[[int], None], rate: int | None
    ) -> PartStored | PartFailed:
        number, source = task.part.number, life.source
        if source is None or life.stopped.is_set():
            return self._failed(number, PutFailed(PutFailure.STOPPED, "stopped"), life)
        try:
            etag = self.uploader.put(
                task.url,
                source,
                task.part,
                stopped=life.stopped.is_set,
                on_bytes=count,
                max_bytes_per_second=rate,
            )
            seen = self._look(source)
        except PutFailed as failed:
            return self._failed(number, failed, life)
        except FileRefused as refused:
            return self._failed(number, PutFailed(PutFailure.SOURCE_UNREADABLE, refused.text), life)
        return PartStored(now=self.clock(), number=number, etag=etag, seen=seen)

    def _failed(self, number: int, failed: PutFailed, life: Life) -> PartFailed:
        seen = Seen()
        with contextlib.suppress(FileRefused):
            seen = Seen() if life.source is None else self._look(life.source)
        return PartFailed(
            now=self.clock(),
            number=number,
            kind=failed.kind,
            text=failed.text,
            seen=seen,
            retry_after=failed.retry_after,
            jitter=random.random(),  # noqa: S311 (spreads load; guards nothing)
        )

    def _look(self, source: Source) -> Seen:
        """What the source looks like now; `FileRefused` when the system cannot tell."""
        try:
            linked = source.linked()
            return Seen(source.now(), linked=linked, gone=not linked and not os.path.lexists(source.path))
        except FileRefused as refused:
            if refused.code is not ErrorCode.SOURCE_CHANGED:
                raise
            # Closed meanwhile: whoever closed it has stopped this upload.
            return Seen()

    def _digest_of(self, part: Part, name: DigestName, life: Life) -> str | None:
        if life.source is None or life.stopped.is_set():
            return None
        try:
            return life.source.digest(part.offset, part.size, name)
        except FileRefused:
            if life.stopped.is_set():
                return None
            raise


def _digest_if_small(source: Source, order: Order) -> str | None:
    """To wake another thread, which would wake the loop again, takes longer than to read a small file."""
    size = source.fingerprint.size
    # Where it cannot be read, whoever is asked to digest it says why.
    with contextlib.suppress(Exception):
        return source.digest(0, size, order.digest) if size <= BLOCK_SIZE and not order.pregranted else None
    return None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
