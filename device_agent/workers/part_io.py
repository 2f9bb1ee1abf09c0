"""The file and network work of one upload: open, digest, send.

Rule: runs on worker threads. Each call reads the source and the network and posts exactly one event; it reads no state
of the loop. Every failure becomes an event too, so no upload waits for an event that never arrives.
"""

import contextlib
import logging
import random
import threading
from collections.abc import Callable

from msgspec import Struct, field

from device_agent.errors import FileRefused, PutFailed, PutFailure
from device_agent.files.copies import Copies
from device_agent.files.source import BLOCK_SIZE, Source
from device_agent.sealing.source import SealedSource
from device_agent.storage.uploader import Uploader, kind_of
from device_agent.system_info import boot_clock
from device_agent.transfer.events import (
    Digested,
    DigestParts,
    Faulted,
    Measured,
    Opened,
    OpenRefused,
    PartFailed,
    PartStored,
    PutPart,
    Rechecked,
    Seen,
)
from device_agent.transfer.records import Order
from schemas.parts import Part
from schemas.values import DigestName, ErrorCode

IoEvent = Measured | Opened | OpenRefused | Digested | Rechecked | PartStored | PartFailed | Faulted
Post = Callable[[IoEvent], None]
CountBytes = Callable[[int], None]

log = logging.getLogger(__name__)


class SourceSession(Struct, eq=False):
    """One opening of one source, shared by all work on it; `path` is the path in its order."""

    path: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)
    source: Source | SealedSource | None = None
    sent: dict[int, int] = field(default_factory=dict)
    """Bytes that have left, for each part in flight; each key is written by one thread only."""
    rate: int | None = None
    """Bytes per second of all its parts together; set by the agent's loop, also while parts are in flight."""
    running: int = 0
    """Running effects; counted by the agent's loop."""
    unanswered_since: float | None = None
    """Since when a file system has not answered a call for this source; set by the agent's loop, on its clock."""

    def close(self) -> None:
        """Close the source, after the last running read; for a worker, since a file system may not answer."""
        if self.source is not None:
            self.source.close()


class PartIO(Struct, frozen=True):
    """The work, and what it needs of the device."""

    uploader: Uploader
    copies: Copies
    clock: Callable[[], float] = boot_clock

    def measure(self, order: Order, post: Post) -> None:
        """Look how large a source is; the event is `Measured`. What cannot be opened is small: its end is near."""
        try:
            size = self.copies.measure(order)
        except FileRefused:
            size = 0
        except Exception:
            log.exception("a file could not be measured")
            size = 0
        post(Measured(now=self.clock(), size=size))

    def open(self, order: Order, session: SourceSession, post: Post) -> None:
        """Open a source, or the copy that is sent in its place; the event is `Opened` or `OpenRefused`."""
        try:
            source = self.copies.open(order, session.stopped.is_set)
            if order.digest is DigestName.NONE or order.pregranted:
                source.wait_until_not_racy(session.stopped.wait)
            digest = _digest_if_small(source, order)
            sent = source if order.seal is None else SealedSource(source, order.seal)
        except FileRefused as refused:
            post(OpenRefused(now=self.clock(), code=refused.code, text=refused.text))
        except Exception as error:
            log.exception("a file could not be opened")
            post(OpenRefused(now=self.clock(), code=ErrorCode.INTERNAL, text=_text_of(error)))
        else:
            session.source = sent
            if session.stopped.is_set():
                sent.close()
            post(Opened(now=self.clock(), fingerprint=sent.fingerprint, racy=sent.racy, digest=digest))

    def digest(self, effect: DigestParts, session: SourceSession, post: Post) -> None:
        """Digest parts; the event is `Digested`, or `Rechecked` for a recheck, or `Faulted` with the reason."""
        contents: dict[int, str] = {}
        try:
            digests = {part.number: self._digest_of(part, effect, session, contents) for part in effect.parts}
        except FileRefused as refused:
            post(Faulted(now=self.clock(), code=refused.code, text=refused.text))
        except Exception as error:
            log.exception("parts could not be digested")
            post(Faulted(now=self.clock(), code=ErrorCode.INTERNAL, text=_text_of(error)))
        else:
            now = self.clock()
            recheck = Rechecked(now=now, digests=digests)
            post(recheck if effect.recheck else Digested(now=now, digests=digests, contents=contents))

    def put(self, effect: PutPart, session: SourceSession, post: Post, on_sent: CountBytes) -> None:
        """Send a part; the event is `PartStored` or `PartFailed`. `on_sent` is called with the bytes that leave."""
        number = effect.part.number
        session.sent[number] = 0

        def count(size: int) -> None:
            session.sent[number] += size
            if size > 0:
                on_sent(size)

        try:
            event = self._put(effect, session, count)
        except Exception as error:
            log.exception("part %d could not be sent", number)
            event = self._failed(number, PutFailed(PutFailure.TRY_AGAIN, _text_of(error)), session)
        session.sent.pop(number, None)
        post(event)

    def _put(self, effect: PutPart, session: SourceSession, count: Callable[[int], None]) -> PartStored | PartFailed:
        number, source = effect.part.number, session.source
        if source is None or session.stopped.is_set():
            return self._failed(number, PutFailed(PutFailure.STOPPED, "stopped"), session)
        try:
            sent = source.part(effect.part, effect.content or "") if isinstance(source, SealedSource) else source
            etag = self.uploader.put(
                effect.url,
                sent,
                effect.part,
                stopped=session.stopped.is_set,
                on_bytes=count,
                rate=lambda: session.rate,
            )
            seen = self._look(source)
        except PutFailed as failed:
            return self._failed(number, failed, session)
        except FileRefused as refused:
            return self._failed(number, PutFailed(kind_of(refused), refused.text), session)
        if isinstance(source, SealedSource):
            source.forget(effect.part)
        return PartStored(now=self.clock(), number=number, etag=etag, seen=seen)

    def _failed(self, number: int, failed: PutFailed, session: SourceSession) -> PartFailed:
        seen = Seen()
        with contextlib.suppress(FileRefused):
            seen = Seen() if session.source is None else self._look(session.source)
        return PartFailed(
            now=self.clock(),
            number=number,
            kind=failed.kind,
            text=failed.text,
            seen=seen,
            retry_after=failed.retry_after,
            jitter=random.random(),  # noqa: S311 (spreads load; guards nothing)
        )

    def _look(self, source: Source | SealedSource) -> Seen:
        """The present state of the source; `FileRefused` when the system cannot read it."""
        try:
            linked = source.linked()
            gone = not linked and source.gone()
            return Seen(source.now(), linked=linked, gone=gone, ends=source.ends_at(source.size))
        except FileRefused as refused:
            if refused.code is not ErrorCode.SOURCE_CHANGED:
                raise
            # It was closed meanwhile, because this upload was stopped.
            return Seen()

    def _digest_of(
        self, part: Part, effect: DigestParts, session: SourceSession, contents: dict[int, str]
    ) -> str | None:
        source = session.source
        if source is None or session.stopped.is_set():
            return None
        try:
            if effect.recheck or not isinstance(source, SealedSource):
                return source.digest(part.offset, part.size, effect.digest)
            digest, contents[part.number] = source.digest_part(part, effect.digest)
            return digest
        except FileRefused:
            if session.stopped.is_set():
                return None
            raise


def _digest_if_small(source: Source, order: Order) -> str | None:
    """The digest of a small file: reading it takes less time than two more thread switches."""
    size = source.fingerprint.size
    # Where it cannot be read, the later `digest` reports why.
    with contextlib.suppress(Exception):
        small = size <= BLOCK_SIZE and not order.pregranted and order.seal is None
        return source.digest(0, size, order.digest) if small else None
    return None


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
