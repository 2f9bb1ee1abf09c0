"""File and HTTP work of a device in a history: it takes time, and the file may change meanwhile.

Rule: it has the shape of `device_agent.workers.part_io.PartIO`; the agent's own table interprets the answer of a PUT.
"""

from typing import TYPE_CHECKING, Final, cast

from device_agent.errors import PutFailed, PutFailure
from device_agent.files.source import BLOCK_SIZE
from device_agent.storage.put_results import PutResult, stored_etag
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
from device_agent.workers.part_io import CountBytes, Post, SourceSession
from device_agent.workers.pool import ThreadPool
from schemas.parts import Part
from schemas.values import DigestName, ErrorCode
from tests.simulation.bucket import Bucket
from tests.simulation.contents import Content, clip, join, md5_base64, size_of
from tests.simulation.files import Files, OpenFile
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agent.files.source import Source

TIMEOUT: Final = 60.0
REFUSED: Final = PutResult(403, body=b"<Error><Code>AccessDenied</Code></Error>")
TURNED_AWAY: Final = (
    PutResult(500),
    PutResult(503, retry_after="3"),
    REFUSED,
    # A portal, and a proxy.
    PutResult(302),
    PutResult(404, body=b"<html>"),
    PutResult(407),
)


class Hired(ThreadPool):
    """A pool that runs each call at once; the calls themselves take virtual time."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name, 0)
        assert count

    def submit(self, call: "Callable[[], None]", owner: object = None) -> None:
        """Begin."""
        call()


class _NoCopies:
    def sweep(self, orders: list[Order]) -> None:
        """There are no copies."""

    def discard(self, order: Order) -> None:
        """Nothing to discard."""


class SimPartIO:
    """The file and HTTP work of one process; `dead` once the process is."""

    def __init__(self, world: World, files: Files, bucket: Bucket, clock: "Callable[[], float]") -> None:
        self.dead = False
        self.copies = _NoCopies()
        self.clock = clock
        self.on_put: Callable[[str, int], None] = lambda _place, _number: None
        self.on_stored: Callable[[str, int], None] = lambda _place, _number: None
        self._world = world
        self._files = files
        self._bucket = bucket

    def measure(self, order: Order, post: Post) -> None:
        """Look how large a source is."""
        self._later(0.01, lambda: post(Measured(now=self.clock(), size=self._files.size(order.file_path))))

    def open(self, order: Order, session: SourceSession, post: Post) -> None:
        """Open the source."""
        self._later(0.01, self._open, order, session, post)

    def _open(self, order: Order, session: SourceSession, post: Post) -> None:
        source = self._files.open(order.file_path)
        if source is None:
            post(OpenRefused(now=self.clock(), code=ErrorCode.FILE_NOT_FOUND, text="no such file"))
            return
        session.source = cast("Source", source)
        if session.stopped.is_set():
            source.close()
        size = source.fingerprint.size
        whole = Part(1, 0, size)
        digest = self._digest_of(whole, order.digest, session) if size <= BLOCK_SIZE and not order.pregranted else None
        racy = self._files.is_racy(source.path, source.fingerprint)
        post(Opened(now=self.clock(), fingerprint=source.fingerprint, racy=racy, digest=digest))

    def digest(self, task: DigestParts, session: SourceSession, post: Post) -> None:
        """Digest parts: half of them now, half in a while."""
        half = len(task.parts) // 2
        digests = {part.number: self._digest_of(part, task.digest, session) for part in task.parts[:half]}

        def rest() -> None:
            digests.update({part.number: self._digest_of(part, task.digest, session) for part in task.parts[half:]})
            event = Rechecked if task.recheck else Digested
            if None in digests.values() and not session.stopped.is_set():
                post(Faulted(now=self.clock(), code=ErrorCode.SOURCE_CHANGED, text="became shorter"))
            else:
                post(event(now=self.clock(), digests=digests))

        self._later(0.05 * len(task.parts), rest)

    def _digest_of(self, part: Part, name: DigestName, session: SourceSession) -> str | None:
        source = cast("OpenFile | None", session.source)
        if source is None or session.stopped.is_set() or source.closed or name is DigestName.NONE:
            return None
        content = clip(source.inode.content, part.offset, part.size)
        return md5_base64(content) if size_of(content) == part.size else None

    def put(self, task: PutPart, session: SourceSession, post: Post, on_sent: CountBytes) -> None:
        """Send a part: its first half is read now, its second when that has left."""
        source, part = cast("OpenFile | None", session.source), task.part
        if source is None or session.stopped.is_set():
            self._fail(task, session, post, PutFailed(PutFailure.STOPPED, "stopped"))
            return
        place = self._bucket.signed[task.url.url].place
        self.on_put(place, part.number)
        self._world.note("device", f"put part {part.number} of {place}")
        session.sent[part.number] = 0
        on_sent(part.size)
        half = part.size // 2
        first = clip(source.inode.content, part.offset, half)
        self._world.later(self._world.between(0.1, self._world.pace), self._send_rest, task, session, post, first)

    def _send_rest(self, task: PutPart, session: SourceSession, post: Post, first: Content) -> None:
        source, part = cast("OpenFile", session.source), task.part
        session.sent.pop(part.number, None)
        half = part.size // 2
        body = join([first, clip(source.inode.content, part.offset + half, part.size - half)])
        if self.dead or session.stopped.is_set():
            if self._world.fails("late", 5.0) and size_of(body) == part.size:
                self._bucket.put(task.url.url, body)
            if not self.dead:
                self._fail(task, session, post, PutFailed(PutFailure.STOPPED, "stopped"))
        elif size_of(body) < part.size:
            self._fail(task, session, post, PutFailed(PutFailure.SOURCE_CHANGED, "became shorter"))
        else:
            answer, delay = self._answer(task.url.url, body)
            self._later(delay, self._answered, task, session, post, answer)

    def _answer(self, url: str, body: Content) -> tuple[PutResult | None, float]:
        """The answer, None for none, and the seconds until it comes."""
        world = self._world
        if world.now() < self._bucket.outage_until:
            return PutResult(503, retry_after="7", body=b"<Error><Code>SlowDown</Code></Error>"), 0.1
        if world.fails("late"):
            world.later(world.between(0.0, 30.0), self._bucket.put, url, body)
            return None, 0.1
        if world.fails("s3"):
            return world.chance.choice([(None, TIMEOUT), *((answer, 0.1) for answer in TURNED_AWAY)])
        answer = self._bucket.put(url, body)
        if world.fails("s3"):
            return world.chance.choice([(None, TIMEOUT), (None, 0.1), (PutResult(200), 0.1), (REFUSED, 0.1)])
        return answer, 0.05

    def _answered(self, task: PutPart, session: SourceSession, post: Post, answer: PutResult | None) -> None:
        number = task.part.number
        if answer is None:
            self._fail(task, session, post, PutFailed(PutFailure.TRY_AGAIN, "the connection broke"))
            return
        try:
            etag = stored_etag(answer)
        except PutFailed as failed:
            self._fail(task, session, post, failed)
            return
        self.on_stored(self._bucket.signed[task.url.url].place, number)
        post(PartStored(now=self.clock(), number=number, etag=etag, seen=self._look(session)))

    def _fail(self, task: PutPart, session: SourceSession, post: Post, failed: PutFailed) -> None:
        self._world.note("device", f"part {task.part.number}: {failed.kind}, {failed.text}")
        post(
            PartFailed(
                now=self.clock(),
                number=task.part.number,
                kind=failed.kind,
                text=failed.text,
                seen=self._look(session),
                retry_after=failed.retry_after,
                jitter=self._world.chance.random(),
            )
        )

    def _look(self, session: SourceSession) -> Seen:
        source = cast("OpenFile | None", session.source)
        if source is None or source.closed:
            return Seen()
        there = self._files.inodes.get(source.path)
        now = self._files.fingerprint(source.inode)
        return Seen(now, linked=there is source.inode, gone=there is None)

    def _later(self, delay: float, call: "Callable[..., object]", *arguments: object) -> None:
        """Call it after `delay` seconds, if the process still runs."""
        self._world.later(delay, lambda: None if self.dead else call(*arguments))
