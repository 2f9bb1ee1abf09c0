"""An HTTP server that takes PUTs and misbehaves by script, one per request.

Rule: it does not check anything; it records what really arrived, byte for byte, so that a test can.

    with PutSink() as sink:
        sink.expect(Script(status=503, headers={"Retry-After": "7"}))
"""

import hashlib
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

TIMEOUT: Final = 10.0
"""Seconds for which a connection of the sink waits for anything."""

DRIP: Final = 0.05
"""Seconds between two bytes of an answer that drips."""


@dataclass(frozen=True, slots=True)
class Script:
    """How one request is answered: `read` bytes of the body are taken (None: all), then `then` is done.

    `drip` sends a head that never ends, byte by byte. `cut` sends only so many bytes of the answer. An ETag that is not
    among `headers` is the MD5 of the body, unless `etag` is false or the status is not 200. `interim` is sent before
    the body is read, `interim_late` before the answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    read: int | None = None
    then: Literal["answer", "close", "reset", "stall", "drip"] = "answer"
    etag: bool = True
    cut: int | None = None
    close: bool = False
    interim: bytes = b""
    interim_late: bytes = b""


@dataclass(frozen=True, slots=True)
class Put:
    """One request as it arrived; names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class _Gone(Exception):
    """The client hung up."""


class PutSink:
    """Listens on a free port of loopback; `puts` are the requests whose body, or part of it, was read."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, keep_bodies: bool = True, host: str = "127.0.0.1") -> None:
        self.puts: list[Put] = []
        self.received = 0
        self.stalled = threading.Event()
        self.released = threading.Event()
        self._scripts: deque[Script] = deque()
        self._tls = tls
        self._keep_bodies = keep_bodies
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=64)
        self._host = f"[{host}]" if ":" in host else host
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def host_port(self) -> str:
        """The entry for `UPLOAD_HOSTS`."""
        return f"{self._host}:{self._listener.getsockname()[1]}"

    def url(self, target: str = "/bucket/key?partNumber=1") -> str:
        """A URL that leads here."""
        return f"{'https' if self._tls else 'http'}://{self.host_port}{target}"

    def expect(self, *scripts: Script) -> None:
        """What to do with the next requests, in the order in which their heads arrive."""
        self._scripts.extend(scripts)

    def expect_only(self, *scripts: Script) -> None:
        """The same, in place of what was expected so far."""
        self._scripts.clear()
        self._scripts.extend(scripts)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(TIMEOUT)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            self._start(self._serve, connection, number)

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            while self._one(connection, number):
                pass
        except (_Gone, OSError):
            pass
        finally:
            connection.close()

    def _one(self, connection: socket.socket, number: int) -> bool:
        """Whether the connection stays open."""
        head, rest = self._head(connection)
        request, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = request.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        script = self._scripts.popleft() if self._scripts else Script()
        connection.sendall(script.interim)
        length = int(headers.get("content-length", "0"))
        wanted = length if script.read is None else min(script.read, length)
        body, digest = self._body(connection, rest, wanted)
        with self._lock:
            self.puts.append(Put(method, target, headers, body, number))
        return self._act(connection, script, digest) and wanted == length

    def _head(self, connection: socket.socket) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._recv(connection, 65536)
        head, _, rest = data.partition(b"\r\n\r\n")
        return head, rest

    def _body(self, connection: socket.socket, rest: bytes, wanted: int) -> tuple[bytes, str]:
        digest, kept, left = hashlib.md5(usedforsecurity=False), [], wanted
        block = rest
        while left > 0 or block:
            block = block or self._recv(connection, min(left, 1 << 18))
            digest.update(block)
            left -= len(block)
            with self._lock:
                self.received += len(block)
            if self._keep_bodies:
                kept.append(block)
            block = b""
        return b"".join(kept), digest.hexdigest()

    def _act(self, connection: socket.socket, script: Script, digest: str) -> bool:
        if script.then == "stall":
            self.stalled.set()
            self.released.wait(TIMEOUT)
            return False
        if script.then == "drip":
            self._drip(connection)
            return False
        if script.then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if script.then == "close":
            return False
        connection.sendall(script.interim_late + _answer(script, digest)[: script.cut])
        return not script.close and script.cut is None

    def _drip(self, connection: socket.socket) -> None:
        """Ends when the client hangs up, or after a while."""
        for byte in b"HTTP/1.1 200 Scripted\r\nX: " + bytes(b"x" * round(TIMEOUT / DRIP)):
            connection.sendall(bytes([byte]))
            self.stalled.set()
            if self.released.wait(DRIP):
                return

    @staticmethod
    def _recv(connection: socket.socket, size: int) -> bytes:
        data = connection.recv(size)
        if not data:
            raise _Gone
        return data


def _answer(script: Script, digest: str) -> bytes:
    headers = {"Content-Length": str(len(script.body)), **script.headers}
    if script.etag and script.status == 200:
        headers = {"ETag": f'"{digest}"', **headers}
    if script.close:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {script.status} Scripted", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + script.body


def s3_error(code: str) -> bytes:
    """The body of an S3 error."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>…</Message></Error>'.encode()
