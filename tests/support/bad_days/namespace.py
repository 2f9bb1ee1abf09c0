"""The network namespace of one process, with listeners of the test inside, and a name server.

Rule: a thread enters the namespace to open a socket, and ends; the socket stays in the namespace, the test does not.
"""

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import pytest

from tests.support.networks import IP

_NETWORK: Final = 0x40000000
"""CLONE_NEWNET of setns(2)."""

_FAILURE: Final = 2
"""SERVFAIL (RFC 1035, section 4.1.1)."""

_IPV4: Final = 1


class Namespace:
    """The network in which the process `pid` is."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    @staticmethod
    def command(resolver: Path) -> tuple[str, ...]:
        """What is put before a command line: no network at all, and `resolver` as its `/etc/resolv.conf`.

        The test is skipped where this cannot be done.
        """
        words = Namespace._command(resolver)
        if IP is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
            pytest.skip("no network namespace can be made here")
        return words

    @staticmethod
    def _command(resolver: Path) -> tuple[str, ...]:
        script = 'mount --bind "$0" "$(realpath /etc/resolv.conf)" && exec "$@"'
        return (shutil.which("unshare") or "/usr/bin/unshare", "--net", "--mount", "sh", "-c", script, str(resolver))

    def up(self) -> None:
        """Bring its loopback up."""
        assert IP is not None
        subprocess.run(["nsenter", "-n", "-t", str(self._pid), IP, "link", "set", "lo", "up"], check=True)

    def listener(self, port: int) -> Callable[[], socket.socket]:
        """A function that opens a TCP listener at this port of its loopback."""
        return lambda: self.inside(lambda: socket.create_server(("127.0.0.1", port)))

    def inside(self, make: Callable[[], socket.socket]) -> socket.socket:
        """The socket that `make` opens in this network."""
        made: list[socket.socket] = []

        def enter() -> None:
            descriptor = os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(descriptor)
            made.append(make())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return made[0]


def _udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 53))
    return made


class NameServer:
    """Knows one name, at 127.0.0.1; until `works` it answers every question with a failure."""

    def __init__(self, network: Namespace, name: str) -> None:
        self.works = False
        self.failed = 0
        """Questions that were answered with a failure."""
        self._name = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
        self._socket = network.inside(_udp)
        self._thread = threading.Thread(target=self._answer, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        with suppress(OSError):
            while question := self._socket.recvfrom(4096):
                data, asker = question
                if not asker:
                    return
                self._socket.sendto(self._reply(data), asker)

    def _reply(self, data: bytes) -> bytes:
        end = data.index(b"\0", 12) + 5
        asked, kind = data[12:end], struct.unpack(">H", data[end - 4 : end - 2])[0]
        if not self.works:
            self.failed += 1
            return data[:2] + struct.pack(">HHHHH", 0x8180 | _FAILURE, 1, 0, 0, 0) + asked
        known = kind == _IPV4 and asked.startswith(self._name)
        answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton("127.0.0.1") if known else b""
        return data[:2] + struct.pack(">HHHHH", 0x8180, 1, int(known), 0, 0) + asked + answer
