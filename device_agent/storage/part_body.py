"""The body of one PUT: the bytes of a part, from the file to a connected socket.

Rule: exactly the bytes of the part, moved by the kernel or in blocks of one reused buffer. Between two sends it looks
whether it is stopped, whether the store speaks already, and whether anything moved lately; it knows nothing of HTTP.
"""

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from device_agent.errors import PutFailed, PutFailure
from device_agent.files.source import Source
from device_agent.storage.throttle import Throttle
from schemas.parts import Part

SLICE: Final = 0.5
"""Seconds between two looks at `stopped` while nothing moves."""

PIECE: Final = 1024 * 1024
"""The most bytes between two looks at `stopped` while everything moves."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How one PUT is held back and watched; times in seconds."""

    stopped: Callable[[], bool]
    on_bytes: Callable[[int], None]
    limits: tuple[Throttle, ...]
    idle_timeout: float

    def require_running(self) -> None:
        """`PutFailed` with `stopped` when somebody wants it to end."""
        if self.stopped():
            raise PutFailed(PutFailure.STOPPED, "stopped")


class PartBody:
    """One part on its way; `sent` counts the bytes that the system took."""

    def __init__(self, source: Source, piece: Part, pace: Pace) -> None:
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
        """Whether all of it went."""
        return self.sent == self.size

    def send(
        self, to: socket.socket, buffer: memoryview, answered: Callable[[], bool], *, direct: bool = False
    ) -> None:
        """Send all of it, or less when `answered` says that the store did not wait for the end.

        With `direct` the kernel moves the bytes, where it can; what is to be encrypted has to pass through `buffer`.
        `OSError` when the connection breaks; `PutFailed` with `stopped`, `source_changed`, or `try_again` when the
        store takes nothing for the idle timeout.
        """
        to.settimeout(SLICE)
        self._moved_at = time.monotonic()
        self._direct = direct
        self._block = buffer[:0]
        most = min((limit.piece for limit in self.pace.limits), default=PIECE)
        while not self.whole:
            piece = min(most, self.size - self.sent)
            self._wait_for_turn(piece)
            if not self._send_piece(to, piece, buffer, answered):
                return

    def await_answer(self, on: socket.socket) -> None:
        """Return when the store speaks or hangs up; fails as `send` does."""
        self._moved_at = time.monotonic()
        while not readable(on, SLICE):
            self.pace.require_running()
            self._require_moving("answered nothing")

    def take_back(self) -> None:
        """Nothing of it counts; `send` begins at the beginning again."""
        if self.sent:
            self.pace.on_bytes(-self.sent)
        self.sent = 0

    def _wait_for_turn(self, size: int) -> None:
        for limit in self.pace.limits:
            limit.take(size)
        if self.pace.limits:
            # What we waited for our own throttle is not the store's silence.
            self._moved_at = time.monotonic()

    def _send_piece(self, to: socket.socket, size: int, buffer: memoryview, answered: Callable[[], bool]) -> bool:
        while size:
            self.pace.require_running()
            if answered():
                return False
            # Not sendall: its timeout is one for all of the data, and a slow link is no reason to give up.
            try:
                count = self._move(to, size) if self._direct else self._copy(to, size, buffer)
            except TimeoutError:
                self._require_moving("took nothing")
                continue
            size -= count
            self.sent += count
            if count:
                self._moved_at = time.monotonic()
                self.pace.on_bytes(count)
        return True

    def _move(self, to: socket.socket, size: int) -> int:
        """Have the kernel send up to `size` bytes; 0 where it cannot, and from then on they are copied."""
        try:
            count = self._source.send_to(to.fileno(), self._piece.offset + self.sent, size)
        except BlockingIOError as error:
            if not _ready(to, select.POLLOUT, SLICE):
                raise TimeoutError from error
            return 0
        except ConnectionError:
            raise
        except OSError:
            # A file system that cannot do it, or a disk that fails: reading tells which (sendfile(2)).
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
            raise PutFailed(PutFailure.TRY_AGAIN, f"the store {what} for {self.pace.idle_timeout:g} s")


def readable(sock: socket.socket, timeout: float) -> bool:
    """Whether bytes, or the end of the stream, can be read within `timeout` seconds."""
    return _ready(sock, select.POLLIN, timeout)


def _ready(sock: socket.socket, what: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(sock, what)
    return bool(poll.poll(timeout * 1000))
