"""The body of one PUT: the bytes of a part, from the file to a connected socket.

Rule: exactly the bytes of the part, moved by the kernel or in blocks of one reused buffer. Between two sends it checks
whether it is stopped, whether an answer has arrived, and when bytes last moved; it contains no HTTP.
"""

import select
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from device_agent.errors import PutFailed, PutFailure
from device_agent.storage.throttle import Throttle
from schemas.parts import Part

SLICE: Final = 0.5
"""Seconds between two checks of `stopped` while nothing moves."""

PIECE: Final = 1024 * 1024
"""The most bytes between two checks of `stopped` while bytes move."""


class Readable(Protocol):
    """What a body is read from: a `Source`, or a part of a sealed one; each method as in `Source`."""

    @property
    def path(self) -> str:
        """The path, for texts."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`."""
        ...

    def send_to(self, descriptor: int, offset: int, size: int) -> int:
        """Make the kernel send bytes; `OSError` where it cannot."""
        ...


class Pace(Struct, frozen=True):
    """The limits of one PUT, which may change meanwhile, and how it is stopped and counted; times in seconds."""

    stopped: Callable[[], bool]
    on_bytes: Callable[[int], None]
    limits: Callable[[], tuple[Throttle, ...]]
    idle_timeout: float

    def require_running(self) -> None:
        """`PutFailed` with `stopped` once the PUT is stopped."""
        if self.stopped():
            raise PutFailed(PutFailure.STOPPED, "stopped")


class PartBody:
    """The bytes of one part; `sent` counts those that the system has accepted."""

    def __init__(self, source: Readable, piece: Part, pace: Pace) -> None:
        self.sent = 0
        self.pace = pace
        self._source = source
        self._piece = piece
        self._moved_at = 0.0
        self._direct = False
        self._block = memoryview(b"")

    @property
    def size(self) -> int:
        """Bytes in the part."""
        return self._piece.size

    @property
    def whole(self) -> bool:
        """Whether all bytes are sent."""
        return self.sent == self.size

    def send(
        self, to: socket.socket, buffer: memoryview, answered: Callable[[], bool], *, direct: bool = False
    ) -> None:
        """Send all bytes, or fewer when `answered` reports an answer before the end.

        With `direct` the kernel moves the bytes, where it can; bytes to be encrypted pass through `buffer`. `OSError`
        when the connection breaks; `PutFailed` with `stopped`, `source_changed`, or `try_again` when the object store
        accepts nothing for the idle timeout.
        """
        to.settimeout(SLICE)
        self._moved_at = time.monotonic()
        self._direct = direct
        self._block = buffer[:0]
        while not self.whole:
            limits = self.pace.limits()
            piece = min(PIECE, self.size - self.sent, *(limit.piece for limit in limits))
            self._wait_for_turn(limits, piece)
            if not self._send_piece(to, piece, buffer, answered):
                return

    def await_answer(self, on: socket.socket) -> None:
        """Return when an answer or the end of the stream can be read; fails as `send` does."""
        self._moved_at = time.monotonic()
        while not readable(on, SLICE):
            self.pace.require_running()
            self._require_moving("answered nothing")

    def take_back(self) -> None:
        """Count no byte as sent; `send` starts again at the first one."""
        if self.sent:
            self.pace.on_bytes(-self.sent)
        self.sent = 0

    def _wait_for_turn(self, limits: tuple[Throttle, ...], size: int) -> None:
        for limit in limits:
            limit.take(size)
        if limits:
            # Time spent in the throttle does not count as idle.
            self._moved_at = time.monotonic()

    def _send_piece(self, to: socket.socket, size: int, buffer: memoryview, answered: Callable[[], bool]) -> bool:
        while size:
            self.pace.require_running()
            if answered():
                return False
            # Not sendall: its timeout covers all of the data, and a slow link must not end the PUT.
            try:
                count = self._move(to, size) if self._direct else self._copy(to, size, buffer)
            except TimeoutError:
                self._require_moving("accepted nothing")
                continue
            size -= count
            self.sent += count
            if count:
                self._moved_at = time.monotonic()
                self.pace.on_bytes(count)
        return True

    def _move(self, to: socket.socket, size: int) -> int:
        """Make the kernel send up to `size` bytes; 0 where it cannot, and from then on they are copied."""
        try:
            count = self._source.send_to(to.fileno(), self._piece.offset + self.sent, size)
        except BlockingIOError as error:
            if not _ready(to, select.POLLOUT, SLICE):
                raise TimeoutError from error
            return 0
        except ConnectionError:
            raise
        except OSError:
            # The file system does not support it, or the disk fails: reading shows which (sendfile(2)).
            self._direct = False
            return 0
        if not count:
            raise self._shorter()
        return count

    def _copy(self, to: socket.socket, size: int, buffer: memoryview) -> int:
        if not self._block:
            self._block = buffer[: min(len(buffer), self.size - self.sent)]
            if self._source.read_into(self._block, self._piece.offset + self.sent) < len(self._block):
                raise self._shorter()
        count = to.send(self._block[:size])
        self._block = self._block[count:]
        return count

    def _shorter(self) -> PutFailed:
        return PutFailed(PutFailure.SOURCE_CHANGED, f"{self._source.path!r} became shorter while it was sent")

    def _require_moving(self, what: str) -> None:
        if time.monotonic() - self._moved_at >= self.pace.idle_timeout:
            raise PutFailed(PutFailure.TRY_AGAIN, f"the object store {what} for {self.pace.idle_timeout:g} s")


def readable(sock: socket.socket, timeout: float) -> bool:
    """Whether bytes, or the end of the stream, can be read within `timeout` seconds."""
    return _ready(sock, select.POLLIN, timeout)


def _ready(sock: socket.socket, what: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(sock, what)
    return bool(poll.poll(timeout * 1000))
