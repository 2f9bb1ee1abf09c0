"""The socket that a service manager listens at, for a program that reports by sd_notify(3).

Rule: a real datagram socket, with a file or without one; what arrives is kept line by line.
"""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

PATIENCE: Final = 60.0


class NotifySocket:
    """It listens at `address`: a path, or a name behind `@` that has no file."""

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.address[1:]}" if self.address.startswith("@") else self.address)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def until(self, happened: Callable[[list[str]], object]) -> None:
        """Wait until the lines fulfil a condition."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: happened(self.lines), PATIENCE), self.lines

    def until_line(self, line: str) -> None:
        """Wait for one line."""
        self.until(lambda lines: line in lines)

    def count(self, line: str) -> int:
        """How often a line has arrived."""
        with self._arrived:
            return self.lines.count(line)

    def _read(self) -> None:
        while data := self._socket.recv(65_536):
            with self._arrived:
                self.lines += data.decode().split("\n")
                self._arrived.notify_all()
