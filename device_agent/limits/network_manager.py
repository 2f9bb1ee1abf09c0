"""Reads from NetworkManager, over D-Bus, whether the present link is metered.

Rule: one connection, one question, and no dependency: the few messages of the D-Bus specification that this needs.
Nothing is started for it; where NetworkManager is not there, or does not answer at once, the answer is None.
"""

import os
import socket
import struct
import time
from typing import Final

SYSTEM_BUS: Final = "/run/dbus/system_bus_socket"
_PATIENCE: Final = 0.5
"""Seconds for everything; the agent's loop waits for it, at most once a minute."""

_METERED: Final = frozenset({1, 3})
"""NMMetered: yes, and a guess that it is."""

_CALL, _RETURN, _ERROR = 1, 2, 3
_NO_AUTO_START: Final = 2
_MOST: Final = 64 * 1024
_FIXED: Final = struct.Struct("<4BIII")
_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 5, 6, 8


def link_is_metered(bus: str = SYSTEM_BUS) -> bool | None:
    """Whether NetworkManager takes the present link for a metered one; None without an answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            value = _ask(_Bus(connection, bus))
    except (OSError, ValueError, struct.error, IndexError):
        return None
    return value in _METERED


class _Bus:
    """One connection to a message bus."""

    def __init__(self, connection: socket.socket, path: str) -> None:
        self._until = time.monotonic() + _PATIENCE
        self._socket = connection
        self._seen = b""
        self._socket.settimeout(_PATIENCE)
        self._socket.connect(path)

    def authenticate(self) -> None:
        """The user is the one that the kernel shows to the bus."""
        self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        while b"\r\n" not in self._seen:
            self._more()
        line, _, self._seen = self._seen.partition(b"\r\n")
        if not line.startswith(b"OK "):
            text = "the bus does not let this user in"
            raise ValueError(text)
        self._socket.sendall(b"BEGIN\r\n")

    def call(self, serial: int, to: str, path: str, member: str, *arguments: str) -> bytes:
        """The body of the answer to a call with text arguments; `ValueError` when the answer is an error."""
        interface, _, name = member.rpartition(".")
        self._socket.sendall(_call(serial, to, path, interface, name, arguments))
        while True:
            kind, body, answers = self._message()
            if answers == serial and kind in {_RETURN, _ERROR}:
                if kind == _ERROR:
                    text = f"{member}: an error"
                    raise ValueError(text)
                return body

    def _message(self) -> tuple[int, bytes, int | None]:
        """The kind of the next message, its body, and the serial that it answers."""
        fixed = self._take(_FIXED.size)
        order, kind, _, _, size, _, fields = _FIXED.unpack(fixed)
        if order != ord("l") or size + fields > _MOST:
            text = "a message that this program does not read"
            raise ValueError(text)
        head = self._take(fields + -fields % 8)[:fields]
        return kind, self._take(size), _answered(head)

    def _take(self, size: int) -> bytes:
        while len(self._seen) < size:
            self._more()
        taken, self._seen = self._seen[:size], self._seen[size:]
        return taken

    def _more(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        data = self._socket.recv(4096)
        if not data or len(self._seen) > _MOST:
            raise ConnectionError
        self._seen += data


def _ask(bus: _Bus) -> int:
    daemon, manager = "org.freedesktop.DBus", "org.freedesktop.NetworkManager"
    bus.authenticate()
    bus.call(1, daemon, "/org/freedesktop/DBus", f"{daemon}.Hello")
    body = bus.call(
        2, manager, "/org/freedesktop/NetworkManager", "org.freedesktop.DBus.Properties.Get", manager, "Metered"
    )
    # A variant: the length of its signature, the signature, a zero; then the value, aligned to four bytes.
    if body[:3] != b"\x01u\0":
        text = "the property is not a number"
        raise ValueError(text)
    return int(struct.unpack_from("<I", body, 4)[0])


def _call(serial: int, to: str, path: str, interface: str, member: str, arguments: tuple[str, ...]) -> bytes:
    body = b""
    for argument in arguments:
        body += b"\0" * (-len(body) % 4) + _text(argument)
    fields = b""
    shown = [(_PATH, "o", path), (_DESTINATION, "s", to), (_INTERFACE, "s", interface), (_MEMBER, "s", member)]
    for code, kind, value in shown:
        fields += b"\0" * (-len(fields) % 8) + bytes([code, 1]) + kind.encode() + b"\0" + _text(value)
    if arguments:
        signature = "s" * len(arguments)
        fields += b"\0" * (-len(fields) % 8) + bytes([_SIGNATURE, 1]) + b"g\0"
        fields += bytes([len(signature)]) + signature.encode() + b"\0"
    fixed = _FIXED.pack(ord("l"), _CALL, _NO_AUTO_START, 1, len(body), serial, len(fields))
    return fixed + fields + b"\0" * (-len(fields) % 8) + body


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _answered(head: bytes) -> int | None:
    """The serial that a message answers, from its header fields: a byte, a signature of one letter, a value."""
    at = 0
    while at < len(head):
        at += -at % 8
        code, kind = head[at], head[at + 2 : at + 3]
        at += 4
        if kind == b"g":
            at += head[at] + 2
            continue
        number = int(struct.unpack_from("<I", head, at)[0])
        if code == _REPLY_SERIAL:
            return number
        at += 4 if kind == b"u" else 4 + number + 1
    return None
