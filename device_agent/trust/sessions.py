"""The sessions for which signed commands are accepted, and the commands that were received in each.

Rule: a session is 16 random bytes drawn before CONNECT, in memory only. The present one is accepted, and the one
announced before it for an hour. What was received in an accepted session is remembered as long as the session: a
command has its effect once.
"""

import secrets
import threading
from collections.abc import Callable
from typing import Final

from schemas.signing.canonical import to_text

SESSION_SIZE: Final = 16
PREVIOUS_FOR: Final = 3600.0
"""Seconds for which the session before the present one is accepted, time in suspend included."""

MAX_RECEIVED: Final = 16_384
"""Commands of one session; then the next session begins, without a new connection."""


class _Session:
    def __init__(self) -> None:
        self.name = to_text(secrets.token_bytes(SESSION_SIZE))
        self.announced = False
        self.received: set[bytes] = set()


class Sessions:
    """The present session and the one before. `clock` is CLOCK_BOOTTIME, in seconds.

    `draw` is called by the connection's thread, everything else by the agent's loop.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._present = _Session()
        self._previous: _Session | None = None
        self._previous_until = 0.0

    @property
    def present(self) -> str:
        """The session that a command must name now."""
        return self._present.name

    def draw(self) -> None:
        """Begin a session, before CONNECT. One that no presence has announced is forgotten: no command names it."""
        with self._lock:
            if self._present.announced:
                self._previous, self._previous_until = self._present, self._clock() + PREVIOUS_FOR
            self._present = _Session()

    def announced(self) -> str:
        """The present session, which is published now."""
        with self._lock:
            self._present.announced = True
            return self._present.name

    def accepts(self, name: str | None) -> bool:
        """Whether commands of this session are obeyed."""
        with self._lock:
            return self._find(name) is not None

    def received(self, name: str | None, digest: bytes) -> bool:
        """Whether the command with this digest was received in this session before."""
        with self._lock:
            found = self._find(name)
            return found is not None and digest in found.received

    def receive(self, name: str | None, digest: bytes) -> bool:
        """Remember a command of an accepted session; True when that one is full, and the next has to be drawn."""
        with self._lock:
            found = self._find(name)
            if found is not None:
                found.received.add(digest)
            return found is self._present and len(self._present.received) >= MAX_RECEIVED

    def _find(self, name: str | None) -> _Session | None:
        if name == self._present.name:
            return self._present
        previous = self._previous
        if previous is None or name != previous.name or self._clock() >= self._previous_until:
            return None
        return previous
