"""The head of an HTTP answer, read from a socket byte by byte: what follows it belongs to another protocol.

Rule: at most `MOST` bytes, until a given instant, and never a byte behind the head.
"""

import re
import socket
import time
from typing import Final

from msgspec import Struct

MOST: Final = 16 * 1024
"""Bytes of the longest head that is read."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_INTERIM: Final = frozenset(range(100, 200)) - {101}
"""101 is a final answer: the connection changes its protocol."""

_START: Final = b"HTTP/"


class NoHttp(ConnectionError):
    """What answers does not speak HTTP, or ended too early, or sends too much; the text has none of its bytes."""


class Head(Struct, frozen=True):
    """The status of an answer, and its fields with their names in lower case; of two equal names the first counts."""

    status: int
    fields: dict[str, str]


def read_head(link: socket.socket, until: float) -> Head:
    """The head of the final answer; `NoHttp` when there is none, `TimeoutError` when it is not there by `until`.

    `until` is on the monotonic clock. Under TLS a socket cannot look ahead, so it reads single bytes: some hundreds,
    once a connection.
    """
    spent = 0
    while True:
        data = _read(link, until, MOST - spent)
        spent += len(data)
        lines = data.replace(b"\r\n", b"\n").split(b"\n")
        found = _STATUS.fullmatch(lines[0])
        if found is None:
            text = "what answers does not speak HTTP"
            raise NoHttp(text)
        status = int(found[1])
        if status not in _INTERIM:
            fields: dict[str, str] = {}
            for line in lines[1:]:
                name, _, value = line.decode("latin-1").partition(":")
                fields.setdefault(name.strip().lower(), value.strip())
            return Head(status, fields)


def _read(link: socket.socket, until: float, most: int) -> bytes:
    """One head up to its empty line."""
    data = bytearray()
    while not data.endswith((b"\n\n", b"\n\r\n")):
        left = until - time.monotonic()
        if left <= 0:
            text = "no whole answer in time"
            raise TimeoutError(text)
        link.settimeout(left)
        byte = link.recv(1)
        if not byte:
            text = "the connection was closed without a whole answer" if data else "the connection was closed at once"
            raise NoHttp(text)
        data += byte
        if len(data) >= most:
            text = "the answer has no end"
            raise NoHttp(text)
        if len(data) == len(_START) and data != _START:
            text = "what answers does not speak HTTP"
            raise NoHttp(text)
    return bytes(data)
