"""HTTP/1.1 over kept connections: PUTs to granted URLs, and POSTs to the control plane.

Rule: one request at a time on a connection, a bounded number of connections to each host, no redirect followed. When
a kept connection closes without an answer, the request is sent once more on a new one.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

TIMEOUT: Final = 60.0
"""Seconds for a whole request."""

_PORTS: Final = {"http": 80, "https": 443}
_HEAD_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")


class RequestFailed(Exception):
    """No answer came; the text names the reason."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer to a request; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110, 15.3

    @property
    def code(self) -> str:
        """The object store's error code, or the status as text."""
        found = _CODE.search(self.body)
        return found[1].decode() if found else str(self.status)


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    host: str
    port: int


class HttpPool:
    """Sends requests over at most `limit` connections to each host."""

    def __init__(self, limit: int, context: ssl.SSLContext | None = None) -> None:
        self._limit = limit
        self._context = context
        self._idle: dict[_Origin, list[_HttpConnection]] = {}
        self._free: dict[_Origin, asyncio.Semaphore] = {}

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpAnswer:
        """Send and return the answer, with any status; `RequestFailed` when there is none."""
        parts = urlsplit(url)
        origin = _Origin(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines).encode("latin-1") + _HEAD_END
        async with self._free.setdefault(origin, asyncio.Semaphore(self._limit)):
            try:
                async with asyncio.timeout(TIMEOUT):
                    return await self._exchange(origin, head, body)
            except (OSError, EOFError, ValueError) as error:
                message = f"{origin.host}:{origin.port}: {str(error) or type(error).__name__}"
                raise RequestFailed(message) from error

    def close(self) -> None:
        """Close every idle connection."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _exchange(self, origin: _Origin, head: bytes, body: bytes) -> HttpAnswer:
        idle = self._idle.setdefault(origin, [])
        while idle:
            connection = idle.pop()
            if connection.open:
                try:
                    return await self._once(connection, idle, head, body)
                except EOFError:
                    break
        loop = asyncio.get_running_loop()
        secure = (self._context or ssl.create_default_context()) if origin.scheme == "https" else None
        _, connection = await loop.create_connection(_HttpConnection, origin.host, origin.port, ssl=secure)
        return await self._once(connection, idle, head, body)

    async def _once(
        self, connection: "_HttpConnection", idle: list["_HttpConnection"], head: bytes, body: bytes
    ) -> HttpAnswer:
        answer = await connection.exchange(head, body)
        if connection.open and answer.headers.get("connection", "").lower() != "close":
            idle.append(connection)
        else:
            connection.close()
        return answer


class _HttpConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._waiting: asyncio.Future[HttpAnswer] | None = None

    @property
    def open(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, head: bytes, body: bytes) -> HttpAnswer:
        """One request and its answer; `EOFError` when the other side closed instead."""
        assert self._transport is not None  # noqa: S101 - create_connection returned
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.writelines((head, body))
        try:
            return await self._waiting
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Close the transport."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Resolve the waiting request once its answer is whole."""
        self._data += data
        try:
            answer = _whole(self._data)
        except (ValueError, IndexError) as error:
            self._fail(ValueError(f"the answer is not HTTP: {error}"))
            self.close()
            return
        if answer is not None and self._waiting is not None and not self._waiting.done():
            self._data = b""
            self._waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the waiting request."""
        self._fail(exc or EOFError("the connection was closed"))

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def _whole(data: bytes) -> HttpAnswer | None:
    """The answer in `data`; None while it is incomplete. Interim answers (1xx) are skipped."""
    status, begin = 0, 0
    while status < 200:  # noqa: PLR2004 - RFC 9110, 15.2
        end = data.find(_HEAD_END, begin)
        if end < 0:
            return None
        lines = data[begin:end].decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        begin = end + len(_HEAD_END)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body = data[begin:]
    if "chunked" in headers.get("transfer-encoding", "").lower():
        # Only errors come in chunks, and only their code is read: the chunk sizes between do not matter.
        return HttpAnswer(status, headers, body) if body.endswith(_LAST_CHUNK) else None
    return HttpAnswer(status, headers, body) if len(body) >= int(headers.get("content-length", "0")) else None
