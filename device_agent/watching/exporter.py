"""Where the metrics go: a file for node_exporter's textfile collector, and a port of this machine.

Rule: nothing here can stop an upload: each place has its own thread, and what it cannot do is logged once. The
port is on loopback, and answers every request with the same text.
"""

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from device_agent.watching.figures import Figures, text_of

FILE_EVERY: Final = 60.0
"""Seconds between two texts for the file: a memory card lives longer."""

PORT_EVERY: Final = 15.0
"""Seconds between two texts for the port."""

_READABLE: Final = 0o644
"""Another program, as another user, reads the file."""

_REQUEST: Final = 8_192
_PATIENCE: Final = 5.0
_PAUSE: Final = 1.0
_BACKLOG: Final = 4
_HEAD: Final = (
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
    "Content-Length: {size}\r\nConnection: close\r\n\r\n"
)

log = logging.getLogger(__name__)


class Exporter:
    """Shows figures in a file, at a port, or nowhere. `every` is the seconds between two calls of `show`."""

    def __init__(self, path: Path | None = None, port: int | None = None) -> None:
        self._path = path
        self._port = port
        self._text = b""
        self._new = threading.Condition()
        self._failed = False
        self.every = PORT_EVERY if port is not None else FILE_EVERY
        self.port: int | None = None
        """The port that listens; None without one."""

    @property
    def enabled(self) -> bool:
        """Whether anything is shown."""
        return self._path is not None or self._port is not None

    def start(self) -> None:
        """Start the threads; a port that is taken is logged, and the agent works without it."""
        if self._path is not None:
            threading.Thread(target=self._write_file, name="metrics-file", daemon=True).start()
        if self._port is not None:
            try:
                listening = socket.create_server(("127.0.0.1", self._port), backlog=_BACKLOG)
            except OSError as error:
                log.error("METRICS_PORT=%d: %s; the agent works without it", self._port, error.strerror)  # noqa: TRY400
                return
            self.port = listening.getsockname()[1]
            threading.Thread(target=self._serve, args=(listening,), name="metrics-port", daemon=True).start()

    def show(self, figures: Figures) -> None:
        """Replace what is shown; returns at once."""
        with self._new:
            self._text = text_of(figures).encode()
            self._new.notify_all()

    def _write_file(self) -> None:
        path = self._path
        if path is None:
            return
        written = b""
        while True:
            with self._new:
                self._new.wait_for(lambda written=written: self._text != written)  # type: ignore[misc]
                text = self._text
            written = text
            try:
                _replace(path, text)
            except OSError as error:
                if not self._failed:
                    log.error("METRICS_FILE=%s cannot be written: %s", path, error.strerror)  # noqa: TRY400
                self._failed = True
            else:
                self._failed = False

    def _serve(self, listening: socket.socket) -> None:
        while True:
            # A connection that ends at once is no fault of this program, nor is a lack of descriptors for good.
            try:
                connection, _ = listening.accept()
            except OSError:
                # It fails at once: without a pause this thread would take a core.
                time.sleep(_PAUSE)
                continue
            with suppress(OSError), connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE)
        connection.recv(_REQUEST)
        text = self._text
        connection.sendall(_HEAD.format(size=len(text)).encode() + text)


def _replace(path: Path, text: bytes) -> None:
    """Replace the file at once, so that no reader sees half of it. Not durable: after a crash it is written anew."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _READABLE)
    try:
        try:
            os.fchmod(descriptor, _READABLE)
            view = memoryview(text)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
