"""The body of one PUT: the bytes of a part, from the file to a connected socket.

Rule: exactly the bytes of the part, in blocks of one reused buffer. Between two sends it looks whether it is stopped,
whether the store speaks already, and whether anything moved lately; it knows nothing of HTTP.
"""

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from device_agent.errors import PutFailed, PutFailure
from device_agent.files import Source
from device_agent.throttle import Throttle
from schemas.parts import Part

SLICE: Final = 0.5
"""Seconds between two looks at `stopped` while nothing moves."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How one PUT is held back and watched; times in seconds."""

    stopped: Callable[[], bool]
    on_bytes: Callable[[int], None]
    limits: tuple[Throttle, ...]
    idle_timeout: float

    def require_going(self) -> None:
        """`PutFailed` with `stopped` when somebody wants it to end."""
        if self.stopped():
            raise PutFailed(PutFailure.STOPPED, "stopped")


class Body:
    """One part on its way; `sent` counts the bytes that the system took."""

    def __init__(self, source: Source, piece: Part, pace: Pace) -> None:
        self.sent = 0
        self.pace = pace
        self._source = source
        self._piece = piece
        self._moved_at = 0.0

    @property
    def size(self) -> int:
        """Bytes in the part."""
        return self._piece.size

    @property
    def whole(self) -> bool:
        """Whether all of it went."""
        return self.sent == self.size

    def send(self, to: socket.socket, buffer: memoryview, answered: Callable[[], bool]) -> None:
        """Send all of it, or less when `answered` says that the store did not wait for the end.

        `OSError` when the connection breaks; `PutFailed` with `stopped`, `source_changed`, or `try_again` when the
        store takes nothing for the idle timeout.
        """
        to.settimeout(SLICE)
        self._moved_at = time.monotonic()
        while not self.whole:
            block = self._fill(buffer)
            step = min((limit.piece for limit in self.pace.limits), default=len(block))
            for start in range(0, len(block), step):
                self._wait_for_turn(len(block[start : start + step]))
                if not self._send_all(to, block[start : start + step], answered):
                    return

    def await_answer(self, on: socket.socket) -> None:
        """Return when the store speaks or hangs up; fails as `send` does."""
        self._moved_at = time.monotonic()
        while not readable(on, SLICE):
            self.pace.require_going()
            self._require_moving("answered nothing")

    def take_back(self) -> None:
        """Nothing of it counts; `send` begins at the beginning again."""
        if self.sent:
            self.pace.on_bytes(-self.sent)
        self.sent = 0

    def _fill(self, buffer: memoryview) -> memoryview:
        block = buffer[: min(len(buffer), self.size - self.sent)]
        if self._source.read_into(block, self._piece.offset + self.sent) < len(block):
            raise PutFailed(PutFailure.SOURCE_CHANGED, f"{self._source.path!r} became shorter while it was sent")
        return block

    def _wait_for_turn(self, size: int) -> None:
        for limit in self.pace.limits:
            limit.take(size)
        if self.pace.limits:
            # What we waited for our own throttle is not the store's silence.
            self._moved_at = time.monotonic()

    def _send_all(self, to: socket.socket, data: memoryview, answered: Callable[[], bool]) -> bool:
        while data:
            self.pace.require_going()
            if answered():
                return False
            data = data[self._send_some(to, data) :]
        return True

    def _send_some(self, to: socket.socket, data: memoryview) -> int:
        # Not sendall: its timeout is one for all of the data, and a slow link is no reason to give up.
        try:
            count = to.send(data)
        except TimeoutError:
            self._require_moving("took nothing")
            return 0
        self._moved_at = time.monotonic()
        self.sent += count
        self.pace.on_bytes(count)
        return count

    def _require_moving(self, what: str) -> None:
        if time.monotonic() - self._moved_at >= self.pace.idle_timeout:
            raise PutFailed(PutFailure.TRY_AGAIN, f"the store {what} for {self.pace.idle_timeout:g} s")


def readable(sock: socket.socket, timeout: float) -> bool:
    """Whether bytes, or the end of the stream, can be read within `timeout` seconds."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
