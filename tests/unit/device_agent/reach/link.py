"""A socket's stand-in that hands out scripted bytes.

Rule: a piece of the script is one `recv`; None is a moment in which nothing is there, or nothing can be sent.
"""

from collections import deque
from collections.abc import Iterable


class ScriptedLink:
    """Reads `script`, then its end; `accepts` limits the bytes of each `send`, and None refuses one."""

    def __init__(self, script: Iterable[bytes | None] = (), accepts: Iterable[int | None] = ()) -> None:
        self.sent = bytearray()
        self.closed = False
        self._script = deque(script)
        self._accepts = deque(accepts)

    def recv(self, size: int) -> bytes:
        if not self._script:
            return b""
        piece = self._script.popleft()
        if piece is None:
            raise BlockingIOError
        if rest := piece[size:]:
            self._script.appendleft(rest)
        return piece[:size]

    def send(self, data: bytes) -> int:
        limit = self._accepts.popleft() if self._accepts else len(data)
        if limit is None:
            raise BlockingIOError
        self.sent += data[:limit]
        return min(limit, len(data))

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def settimeout(self, timeout: float) -> None:
        assert timeout > 0

    def close(self) -> None:
        self.closed = True
