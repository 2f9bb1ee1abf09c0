"""Live streams of committed changes: one reader of the change log for all streams of this process.

Rule: while a stream is open, one loop reads the log twice a second, so commits of other replicas are seen like those of
this one. A change is encoded once for all streams. A stream that does not keep up is cut, and never waited for.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from control_plane.domain.changes import NumberedChange
from control_plane.domain.clients import Client
from control_plane.domain.uploads.model import Upload, UploadKey
from control_plane.services.errors import ServiceError, TooManyStreams
from control_plane.services.events.filters import PROGRESS, ChangeFilter, ChangePage, read_page
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog

POLL: Final = 0.5
"""Seconds between two reads of the log: it delays a change by no more, and bounds what many streams cost."""

PROGRESS_EVERY: Final = 1.0
KEEP_ALIVE: Final = 15.0
"""Seconds between two comments to every stream: proxies close connections that are silent for longer."""

MAX_STREAMS: Final = 1_024
MAX_NAMED: Final = 1_000
"""Uploads, of which the progress is read for all streams together."""

MAX_BUFFER: Final = 512 * 1024
"""Bytes that may wait for one stream; more than a page of the log needs."""

PAGE: Final = 500
_CATCHING_UP: Final = 4
"""Streams that read old changes at the same time: after a restart every stream comes back at once."""


@dataclass(frozen=True, slots=True)
class Encoders:
    """The bytes that a stream sends."""

    change: Callable[[NumberedChange], bytes]
    progress: Callable[[Upload], bytes]
    start: Callable[[int], bytes]
    """The beginning of a stream whose next change has a higher number than this one."""
    resync: Callable[[int], bytes]
    """Changes are missing; the next one has a higher number than this one."""
    keep_alive: bytes
    framed: Callable[[bytes], bytes]
    """These bytes as `Stream.write` takes them."""


class Stream:
    """One open stream, for one caller that sends what `next` returns. `on_cut` is called when it does not keep up.

    While the caller waits in `next`, bytes go to `write` instead, if it has one: a task that wakes for each of a
    thousand streams costs more than the writes. `write` returns how many bytes are not sent yet.
    """

    def __init__(self, streams: "EventStreams", where: ChangeFilter, after: int, first: bytes) -> None:
        self.where = where
        self.after = after
        """The number of a change up to which nothing is missing."""
        self.live = False
        """Whether the loop feeds it; before, it reads old changes itself."""
        self.ended = False
        self.cut = False
        self.on_cut: Callable[[], None] | None = None
        self.write: Callable[[bytes], int] | None = None
        self._streams = streams
        self._waiting = deque([first])
        self._size = len(first)
        self._wake: asyncio.Future[None] | None = None

    async def next(self) -> bytes | None:
        """The next bytes to send; None when the stream has ended. `DatabaseUnavailable` while it reads old changes."""
        while not self._waiting:
            if self.ended:
                return None
            if not self.live:
                self.put(await self._streams.catch_up(self))
                continue
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        found = self._waiting.popleft() if len(self._waiting) == 1 else b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        return found

    def put(self, data: bytes, framed: bytes = b"") -> None:
        """Send or queue bytes, of which `framed` is the form for `write`; when too many wait, the stream is cut."""
        if self.ended or not data:
            return
        if framed and self.write is not None and not self._waiting and self._wake is not None and not self._wake.done():
            if self.write(framed) > MAX_BUFFER:
                self._cut()
            return
        self._size += len(data)
        self._waiting.append(data)
        if self._size > MAX_BUFFER:
            self._cut()
        else:
            self._rouse()

    def _cut(self) -> None:
        self.cut = True
        self._waiting.clear()
        self.end()
        if self.on_cut is not None:
            self.on_cut()

    def end(self) -> None:
        """End the stream, once what waits is sent; repeats do nothing."""
        self.ended = True
        self._streams.forget(self)
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class EventStreams:
    """The open streams, and the loop that feeds them."""

    def __init__(self, database: Database, clock: Clock, log: EventLog, encoders: Encoders) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._encoders = encoders
        self._open: set[Stream] = set()
        self._live: dict[ChangeFilter, set[Stream]] = {}
        self._position = 0
        """The number of the last change that the loop has read; of no meaning while no stream is live."""
        self._sent: dict[ChangeFilter, dict[UploadKey, bytes]] = {}
        """The last progress that streams with this filter got."""
        self._any_live = asyncio.Event()
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)
        self._failing = False

    async def open(self, where: ChangeFilter, last: int | None = None) -> Stream:
        """A stream of the changes after the number `last` (0: all that are kept), or without it from now on.

        The caller ends it with `Stream.end`. `TooManyStreams`, `DatabaseUnavailable`.
        """
        oldest, newest = await self._database.read(lambda records: records.changes.span())
        if len(self._open) >= MAX_STREAMS:
            message = f"{MAX_STREAMS:,} streams are open"
            raise TooManyStreams(message)
        # Those of streams that still read old changes too: after a restart all of them come at once.
        if len(self._names_of({where, *(one.where for one in self._open)})) > MAX_NAMED:
            message = f"the open streams name {MAX_NAMED:,} uploads"
            raise TooManyStreams(message)
        after = newest if last is None else last
        first = self._encoders.start(after)
        if last and (last > newest or last + 1 < oldest):
            # A number that the log has not reached is of another database, or of a backup's future.
            after = newest
            first = self._encoders.resync(newest)
            self._log("stream.resync", {"last_event_id": last, "oldest": oldest, "newest": newest})
        stream = Stream(self, where, after, first)
        self._open.add(stream)
        return stream

    def forget(self, stream: Stream) -> None:
        """Feed a stream no longer."""
        self._open.discard(stream)
        others = self._live.get(stream.where)
        if others is not None:
            others.discard(stream)
            if not others:
                del self._live[stream.where]
                self._sent.pop(stream.where, None)
        if not self._live:
            self._any_live.clear()
        if stream.cut:
            self._log("stream.cut", {"after": stream.after})

    async def catch_up(self, stream: Stream) -> bytes:
        """A page of old changes for one stream. At the end of the log the stream becomes live."""
        async with self._catching_up:
            page = await self._database.read(lambda records: read_page(records, stream.after, PAGE, [stream.where]))
        # No await from here on: the loop must not read on between the last look at its position and the joining.
        if page.changes:
            stream.after = page.changes[-1].number
        if len(page.changes) < PAGE and not stream.ended:
            if not self._live:
                self._position = stream.after
            if stream.after >= self._position:
                self._live.setdefault(stream.where, set()).add(stream)
                stream.live = True
                self._any_live.set()
        return b"".join(self._encoders.change(one) for one in page.wanted(stream.where))

    async def run(self) -> None:
        """Feed the live streams until cancelled."""
        next_comment = next_progress = self._clock.monotonic()
        while True:
            await self._any_live.wait()
            now = self._clock.monotonic()
            if now >= next_comment:
                next_comment = now + KEEP_ALIVE
                self._put_all(self._encoders.keep_alive)
            try:
                await self.feed()
                if now >= next_progress:
                    next_progress = now + PROGRESS_EVERY
                    await self.feed_progress()
                self._failing = False
            except ServiceError as error:
                if not self._failing:
                    self._log("streams.failed", {"error": str(error)})
                self._failing = True
            await asyncio.sleep(POLL)

    async def feed(self) -> None:
        """Give every live stream the changes since the last time."""
        while self._live:
            position, filters = self._position, list(self._live)
            page = await self._database.read(partial(read_page, after=position, limit=PAGE, filters=filters))
            if not page.changes or position != self._position:
                # No stream was live for a moment, and the next one began at another place.
                return
            if not self._live.keys() <= set(filters):
                # A new filter may need labels that were not read.
                continue
            self._position = page.changes[-1].number
            self._give(page)
            if len(page.changes) < PAGE:
                return

    def _give(self, page: ChangePage) -> None:
        encoded: dict[int, bytes] = {}

        def of(changes: Iterable[NumberedChange]) -> bytes:
            for one in changes:
                if one.number not in encoded:
                    encoded[one.number] = self._encoders.change(one)
            return b"".join(encoded[one.number] for one in changes)

        for where, streams in list(self._live.items()):
            wanted = page.wanted(where)
            if not wanted:
                continue
            data = of(wanted)
            framed = self._encoders.framed(data)
            for stream in list(streams):
                # One that read ahead of the loop before it became live has some of them.
                ahead = stream.after >= page.changes[0].number
                if ahead:
                    stream.put(of([one for one in wanted if one.number > stream.after]))
                else:
                    stream.put(data, framed)

    def _put_all(self, data: bytes) -> None:
        framed = self._encoders.framed(data)
        for streams in list(self._live.values()):
            for stream in list(streams):
                stream.put(data, framed)

    async def feed_progress(self) -> None:
        """Give the progress of named uploads to the streams whose filter names them, where it changed."""
        named = self._names_of(self._live)
        if not named:
            return

        bound = any(where.reach is not None for where in self._live)

        def work(records: Records) -> tuple[list[Upload], Mapping[str, Client]]:
            found = [upload for upload_id in sorted(named) for upload in records.uploads.by_id(upload_id)]
            return found, records.clients.among({one.client_id for one in found}) if bound else {}

        uploads, clients = await self._database.read(work)
        labels = {client_id: client.effective_labels for client_id, client in clients.items()}
        encoded = [(upload, self._encoders.progress(upload)) for upload in uploads]
        for where, streams in list(self._live.items()):
            names = self._names(where)
            sent = self._sent.setdefault(where, {})
            for upload, data in encoded:
                wanted = upload.upload_id in names and (not where.clients or upload.client_id in where.clients)
                if wanted and where.reaches(upload.client_id, labels) and sent.get(upload.key) != data:
                    sent[upload.key] = data
                    for stream in list(streams):
                        stream.put(data)

    @classmethod
    def _names_of(cls, filters: Iterable[ChangeFilter]) -> frozenset[str]:
        return frozenset[str]().union(*map(cls._names, filters))

    @staticmethod
    def _names(where: ChangeFilter) -> frozenset[str]:
        return where.uploads if where.wants(PROGRESS) else frozenset()
