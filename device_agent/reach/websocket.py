"""The client's end of a WebSocket (RFC 6455) that carries MQTT, in the place of paho's socket.

Rule: a stream. What arrives is never collected: a frame of any size costs the bytes that the reader requests. The
handshake is bounded in bytes and in time, and every frame that is sent is masked, pongs as well: paho's own wrapper
does none of the three.
"""

import base64
import hashlib
import os
import socket
import struct
import time
from contextlib import suppress
from typing import Final

from device_agent.reach.heads import NoHttp, read_head
from device_agent.reach.proxy import authority

PIECE: Final = 16 * 1024
"""Bytes of the largest frame that is sent."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCHING: Final = 101
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_RESERVED: Final = 0x70
_SIZE_16, _SIZE_64 = 126, 127
_LONGEST_CONTROL: Final = 125
_NORMAL: Final = struct.pack("!H", 1000)
_HEADS_A_READ: Final = 64
"""Frames without content that one `recv` passes over; a server may send them without end."""


class WebSocket:
    """A connection that sends and receives bytes; it does what paho needs of a socket, and is used by one thread."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._out = bytearray()
        self._framed = 0
        """Bytes of the caller in the frame that is being sent."""
        self._pong: bytes | None = None
        self._head = bytearray()
        self._left = 0
        """Bytes of the current frame that are not read yet."""
        self._ended = False

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. As the socket does, it raises `BlockingIOError` when none is there."""
        for _ in range(_HEADS_A_READ):
            if self._left:
                data = self._link.recv(min(size, self._left))
                self._left -= len(data)
                return data
            if self._ended or not self._read_head():
                return b""
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        """Send the first bytes of `data` as a frame; how many.

        `BlockingIOError` while only a part of the frame is sent: the caller then comes again with the same bytes.
        """
        if not self._framed:
            self._flush()
            self._framed = min(len(data), PIECE)
            self._out += frame(_BINARY, data[: self._framed])
        self._flush()
        sent, self._framed = self._framed, 0
        return sent

    def pending(self) -> int:
        """Bytes that TLS has decrypted, which a wait for the descriptor does not see."""
        pending = getattr(self._link, "pending", None)
        return pending() if pending is not None else 0

    def fileno(self) -> int:
        """The descriptor, for `select`."""
        return self._link.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 (as of a socket)
        """As of a socket."""
        self._link.setblocking(flag)

    def close(self) -> None:
        """Send a close frame, if nothing waits to be sent before it, and close the connection."""
        with suppress(OSError):
            if not self._out:
                self._link.send(frame(_CLOSE, _NORMAL))
        self._link.close()

    def _read_head(self) -> bool:
        """Read the head of the next frame; all of it, if it is a control frame. False at the end."""
        while (missing := _missing(self._head)) > 0:
            data = self._link.recv(missing)
            if not data:
                return False
            self._head += data
        head, self._head = bytes(self._head), bytearray()
        opcode = head[0] & 0x0F
        if opcode in {_CONTINUATION, _BINARY}:
            self._left = _size(head)[0]
        elif opcode == _CLOSE:
            self._ended = True
        elif opcode == _PING:
            # Only the latest one needs an answer (section 5.5.3).
            self._pong = head[2:]
            with suppress(BlockingIOError):
                self._answer_ping()
        return not self._ended

    def _answer_ping(self) -> None:
        if self._pong is not None and not self._out:
            pong, self._pong = self._pong, None
            self._out += frame(_PONG, pong)
            self._flush()

    def _flush(self) -> None:
        while self._out:
            sent = self._link.send(self._out)
            del self._out[:sent]
        if self._pong is not None:
            self._answer_ping()


def upgrade(link: socket.socket, host: str, port: int, path: str, until: float) -> WebSocket:
    """Make a connection to an HTTP server a WebSocket for MQTT; `ConnectionError` with the reason when it refuses."""
    key = base64.b64encode(os.urandom(16))
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {authority(host, port)}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    link.settimeout(max(until - time.monotonic(), 0.1))
    link.sendall(request.encode())
    try:
        head = read_head(link, until)
    except NoHttp as error:
        text = f"no WebSocket: {error}"
        raise ConnectionError(text) from error
    if head.status != _SWITCHING:
        text = f"no WebSocket at {path}: the server answers HTTP {head.status}"
        raise ConnectionError(text)
    expected = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
    if head.fields.get("sec-websocket-accept") != expected:
        text = "no WebSocket: the server does not know the key of the handshake"
        raise ConnectionError(text)
    if head.fields.get("sec-websocket-protocol", "mqtt").lower() != "mqtt":
        text = "the server's WebSocket is not for MQTT"
        raise ConnectionError(text)
    return WebSocket(link)


def frame(opcode: int, data: bytes) -> bytes:
    """A whole masked frame."""
    size = len(data)
    if size < _SIZE_16:
        head = struct.pack("!BB", _FINAL | opcode, _MASKED | size)
    else:
        head = struct.pack("!BBH", _FINAL | opcode, _MASKED | _SIZE_16, size)
    mask = os.urandom(4)
    whole = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(data) ^ int.from_bytes(whole)
    return head + mask + masked.to_bytes(size)


def _missing(head: bytearray) -> int:
    """Bytes of a frame's head, and of a whole control frame, that are not in `head`; `ConnectionError` for no frame."""
    if len(head) < 2:  # noqa: PLR2004 (the shortest head)
        return 2 - len(head)
    opcode, control = head[0] & 0x0F, bool(head[0] & 0x08)
    known = opcode in {_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG}
    long_control = control and head[1] & 0x7F > _LONGEST_CONTROL
    if not known or long_control or head[0] & _RESERVED or head[1] & _MASKED:
        text = "the server sends a WebSocket frame that is not allowed"
        raise ConnectionError(text)
    size, length = _size(bytes(head))
    return length + (size if control else 0) - len(head)


def _size(head: bytes) -> tuple[int, int]:
    """The size of a frame's content, and the length of its head; the size is 0 while the head is not whole."""
    size = head[1] & 0x7F
    if size == _SIZE_16:
        return struct.unpack_from("!H", head, 2)[0] if len(head) >= 4 else 0, 4  # noqa: PLR2004
    if size == _SIZE_64:
        return struct.unpack_from("!Q", head, 2)[0] if len(head) >= 10 else 0, 10  # noqa: PLR2004
    return size, 2
