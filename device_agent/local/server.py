"""Answers on Unix sockets: one connection, one document as JSON. One shows the agent, the other takes decisions.

Rule: of each socket one thread answers one connection after the other, the loop has at most one question of it at a
time, and a folder that takes no socket is logged once. Only the agent's user and root may connect.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from device_agent.inbox import ConsentDecided, StatusAsked
from device_agent.local.socket_path import DECISIONS, NAME, address_of

ANSWER_PATIENCE: Final = 5.0
"""Seconds that the loop has for an answer; it waits where the disk does. After that the connection is closed."""

_SEND_PATIENCE: Final = 1.0
_PAUSE: Final = 1.0
_BACKLOG: Final = 16
_LONGEST_DECISION: Final = 16 * 1024
_PRIVATE: Final = 0o600

log = logging.getLogger(__name__)


class LocalServer:
    """Listens in the first of `folders` that takes a socket; `ask` puts a question before the loop."""

    name = NAME

    def __init__(self, folders: Sequence[Path], ask: Callable[[Any], None]) -> None:
        self._folders = folders
        self._ask = ask
        self._listening: socket.socket | None = None
        self._closed = threading.Event()
        self._answered = threading.Event()
        self._answered.set()
        self._latest: object = None
        self.path: Path | None = None
        """The socket; None without one."""

    def __enter__(self) -> Self:
        problems: list[str] = []
        for folder in self._folders:
            try:
                self._listening = _listen(folder / self.name)
            except OSError as error:
                problems.append(f"{folder}: {error.strerror or error}")
            else:
                self.path = folder / self.name
                threading.Thread(target=self._serve, args=(self._listening,), name="local", daemon=True).start()
                return self
        log.warning("no socket %s for a person (%s); the agent works without it", self.name, "; ".join(problems))
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._listening is not None and self.path is not None:
            with suppress(OSError):
                self.path.unlink()
            with suppress(OSError):
                # A close alone leaves the thread in accept(2).
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()

    def _serve(self, listening: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                # After the end, or for lack of descriptors: without a pause this thread would take a core.
                self._closed.wait(_PAUSE)
                continue
            with suppress(OSError), connection:
                connection.settimeout(_SEND_PATIENCE)
                self._reply(connection)

    def _reply(self, connection: socket.socket) -> None:
        question = self._question(connection)
        if self._answered.is_set():
            self._answered.clear()
            self._ask(question)
        elif isinstance(question, ConsentDecided):
            return  # The loop still has the decision before: its answer is not the answer to this one.
        if self._answered.wait(ANSWER_PATIENCE):
            connection.sendall(msgspec.json.encode(self._latest))

    def _question(self, connection: socket.socket) -> StatusAsked | ConsentDecided:  # noqa: ARG002 (for DecisionServer)
        # While the loop has a question of this kind, it gets no second one: the answer is for both.
        return StatusAsked(self._take)

    def _take(self, document: object) -> None:
        self._latest = document
        self._answered.set()


class DecisionServer(LocalServer):
    """The same, where each connection first sends one line with a person's decision (`Decision`)."""

    name = DECISIONS

    def _question(self, connection: socket.socket) -> ConsentDecided:
        with connection.makefile("rb") as lines:
            return ConsentDecided(lines.readline(_LONGEST_DECISION), self._take)


def _listen(path: Path) -> socket.socket:
    """A listening socket at this path; one that a killed agent left is replaced at once."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Before bind(2), which makes the file with this mode.
        os.fchmod(listening.fileno(), _PRIVATE)
        with suppress(FileNotFoundError):
            fresh.unlink()
        with address_of(fresh) as address:
            listening.bind(address)
        listening.listen(_BACKLOG)
        fresh.replace(path)
    except OSError:
        listening.close()
        with suppress(OSError):
            fresh.unlink()
        raise
    return listening
