"""PUTs one part to one presigned URL: the only module that uses HTTP.

Rule: exactly the bytes of the part, or a failure with its kind; never a redirect, a proxy that no setting names, a host
that is not allowed, or a whole part in memory. An interim answer (1xx) is no answer. Every wait ends when nothing has
moved for the idle timeout, or when it is stopped; an answer, which could arrive byte by byte for ever, has twice that
time in all.
"""

import functools
import io
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from http.client import (
    BadStatusLine,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    UnknownProtocol,
    parse_headers,
)
from typing import Any, Final

from device_agent import VERSION
from device_agent.errors import FileRefused, HostNotAllowed, PutFailed, PutFailure, SettingsError
from device_agent.files.source import BLOCK_SIZE, Source
from device_agent.reach.upload_link import UploadWay
from device_agent.sealing.source import SealedPart, SealedSource
from device_agent.storage.part_body import SLICE, Pace, PartBody, readable
from device_agent.storage.put_results import MAX_BODY, PutResult, stored_etag
from device_agent.storage.throttle import Throttle
from device_agent.storage.url_policy import DEFAULT_PORTS, ParsedUrl, UploadHosts, origin_of
from device_agent.system_info import boot_clock
from device_agent.tls import failure_text
from schemas.parts import Part
from schemas.values import MAX_HEADERS, ErrorCode, PresignedPart

IDLE_TIMEOUT: Final = 60.0
# Case is ignored among ASCII letters only: without the flag, or after `lower()`, a KELVIN SIGN is a "k", and the name
# that was checked is not the name that would be sent.
_HEADER_NAME: Final = re.compile(r"content-md5|if-none-match|x-amz-[a-z0-9-]{1,120}", re.ASCII | re.IGNORECASE)
_HEADER_VALUE: Final = re.compile(r"[!-~]{1,1024}")
_CONNECT_TIMEOUT: Final = 15.0
_CONTENT_TYPE: Final = "application/octet-stream"
_REUSE_WITHIN: Final = 10.0
"""Seconds for which an idle connection is reused, those in suspend included: servers and NAT routers drop it soon
after."""
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9][0-9][ \r\n]")
"""The beginning of an interim answer (RFC 9110 section 15.2). 101 is none: the connection would change its protocol."""
_STATUS_LINE: Final = len(b"HTTP/1.1 200 ")
"""Bytes after which an interim answer can be told from a final one."""
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_MAX_INTERIM: Final = 16 * 1024
"""Bytes of the longest interim answer that is dropped."""
_SWITCHING: Final = 101
_FINAL: Final = 200
"""The lowest status of a final answer."""
_STRAIGHT: Final = UploadWay()
_EARLY_ANSWER_TIMEOUT: Final = 2.0
"""Seconds to wait for the answer of an object store that stopped accepting bytes."""


def _unlimited() -> None:
    """No rate limit."""


class Uploader:
    """Sends parts. Any number of threads may call `put`; each keeps its own connection and buffer."""

    def __init__(
        self,
        hosts: UploadHosts,
        way: UploadWay = _STRAIGHT,
        *,
        throttle: Throttle | None = None,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self._hosts = hosts
        self._way = way
        self._throttle = throttle
        self._idle_timeout = idle_timeout
        self._local = threading.local()
        self._lock = threading.Lock()
        self._workers: weakref.WeakSet[_Worker] = weakref.WeakSet()
        self._rates: weakref.WeakKeyDictionary[Source | SealedSource, Throttle] = weakref.WeakKeyDictionary()
        self._closed = False

    def check(self, part: PresignedPart) -> ParsedUrl:
        """The parsed URL; `PutFailed` with `host_not_allowed` or `bad_header` when it must not be used."""
        _require_headers(part.headers)
        try:
            return self._hosts.allowed(part.url)
        except HostNotAllowed as refused:
            raise PutFailed(PutFailure.HOST_NOT_ALLOWED, str(refused)) from refused

    def put(
        self,
        part: PresignedPart,
        source: Source | SealedPart,
        piece: Part,
        *,
        stopped: Callable[[], bool],
        on_bytes: Callable[[int], None],
        rate: Callable[[], int | None] = _unlimited,
    ) -> str:
        """Send the bytes of `piece`; the ETag exactly as the object store wrote it, "" when it answered 412.

        `PutFailed` for every other result. `on_bytes` is called with the bytes that leave, and with a negative number
        when they do not count any more: over a `put` that fails the sum is 0. All puts of `source` share
        `rate`, in bytes per second; it may change meanwhile, and None is no limit.
        """
        url = self.check(part)
        file = source.file if isinstance(source, SealedPart) else source
        pace = Pace(
            stopped=lambda: self._closed or stopped(),
            on_bytes=on_bytes,
            limits=lambda: self._limits(file, rate()),
            idle_timeout=self._idle_timeout,
        )
        pace.require_running()
        return self._worker().put(url, part.headers, PartBody(source, piece, pace))

    def close(self) -> None:
        """Cut every connection; a running `put` fails with `stopped`, and so does every later one."""
        self._closed = True
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.cut()

    def _worker(self) -> "_Worker":
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker(self._way)
            with self._lock:
                self._workers.add(worker)
        return worker

    def _limits(self, file: Source | SealedSource, rate: int | None) -> tuple[Throttle, ...]:
        own = None
        if rate is not None:
            with self._lock:
                own = self._rates.setdefault(file, Throttle(rate))
                own.change(rate)
        return tuple(throttle for throttle in (self._throttle, own) if throttle is not None)


class _Worker:
    """One thread's buffer and its kept connection."""

    def __init__(self, way: UploadWay) -> None:
        self._way = way
        self._buffer = memoryview(bytearray(BLOCK_SIZE))
        self._kept: _Link | None = None

    def __del__(self) -> None:
        self._drop()

    def cut(self) -> None:
        """Break the connection from another thread; the one that uses it notices and closes it."""
        if link := self._kept:
            link.cut()

    def put(self, url: ParsedUrl, headers: Mapping[str, str], body: PartBody) -> str:
        """Send once; send again when a kept connection was dead, which is no failure of the object store."""
        while True:
            link = self._link(url)
            try:
                return self._once(link, url.target, headers, body)
            except (OSError, HTTPException) as error:
                body.pace.require_running()
                if link.fresh:
                    raise PutFailed(PutFailure.TRY_AGAIN, f"{url.host}:{url.port}: {_text_of(error)}") from error
            except FileRefused as refused:
                body.pace.require_running()
                raise PutFailed(kind_of(refused), refused.text) from refused

    def _once(self, link: "_Link", target: str, headers: Mapping[str, str], body: PartBody) -> str:
        keep = stored = False
        try:
            link.send(target, headers, body, self._buffer)
            answer, keep = link.answer(body)
            etag = stored_etag(answer)
            stored = True
        finally:
            if not stored:
                body.take_back()
            if not keep:
                self._drop()
        return etag

    def _link(self, url: ParsedUrl) -> "_Link":
        if self._kept is not None and self._kept.serves(url):
            self._kept.fresh = False
            return self._kept
        self._drop()
        try:
            self._kept = _Link(url, self._way)
        except (OSError, HTTPException, SettingsError) as error:
            text = f"cannot connect to {url.host}:{url.port}: {_text_of(error)}"
            raise PutFailed(PutFailure.TRY_AGAIN, text) from error
        return self._kept

    def _drop(self) -> None:
        link, self._kept = self._kept, None
        if link is not None:
            link.close()


class _Link:
    """One open connection to one host; `fresh` until it is used for a second request."""

    def __init__(self, url: ParsedUrl, way: UploadWay) -> None:
        self._where = (url.scheme, url.host, url.port)
        self._secure = url.scheme == "https"
        # The connection is made here, and never again by http.client, which knows no proxy. It leaves the default port
        # out of the header Host, which is signed.
        self._connection = HTTPConnection(url.host, url.port)
        self._connection.auto_open = 0
        self._connection.default_port = DEFAULT_PORTS[url.scheme]
        self._proxy = way.passes_on(secure=self._secure)
        self._socket = self._connection.sock = way.open(url.host, url.port, secure=self._secure)
        self._used_at = boot_clock()
        self.fresh = True

    def serves(self, url: ParsedUrl) -> bool:
        """Whether it leads to this host, was used lately, and has nothing to be read, not even its end."""
        lately = boot_clock() - self._used_at < _REUSE_WITHIN
        return self._where == (url.scheme, url.host, url.port) and lately and not readable(self._socket, 0.0)

    def send(self, target: str, headers: Mapping[str, str], body: PartBody, buffer: memoryview) -> None:
        """Send a request, and return when an answer can be read, even before the end of the body."""
        try:
            self._send_head(target, headers, body.size)
            body.send(self._socket, buffer, self._answered, direct=not self._secure)
        except OSError:
            # The server may answer and close before the end; its answer has more detail than the broken pipe.
            if not readable(self._socket, _EARLY_ANSWER_TIMEOUT):
                raise
        else:
            body.await_answer(self._socket)

    def answer(self, body: PartBody) -> tuple[PutResult, bool]:
        """Read the answer; whether another request may follow."""
        self._socket.settimeout(SLICE)
        self._connection.response_class = functools.partial(_Response, body.pace)  # type: ignore[assignment]
        response = self._connection.getresponse()
        text = response.read(MAX_BODY)
        keep = body.whole and response.isclosed() and not response.will_close
        self._used_at = boot_clock()
        header = response.headers.get
        found = (response.status, header("ETag"), header("Retry-After"), header("Date"))
        proxy = None if self._proxy is None else str(self._proxy)
        return PutResult(*found, body=text, whole=body.whole, proxy=proxy), keep

    def cut(self) -> None:
        """End both directions; the descriptor stays with the thread that uses it."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        """Close the descriptor."""
        self._connection.close()

    def _answered(self) -> bool:
        """Whether a final answer has begun, or the stream has ended; interim answers are dropped.

        Under TLS other bytes may wait: session tickets.
        """
        if self._secure:
            return False
        while readable(self._socket, 0.0):
            seen = self._socket.recv(_MAX_INTERIM, socket.MSG_PEEK)
            if 0 < len(seen) < _STATUS_LINE:
                return False
            if _INTERIM.match(seen) is None:
                return True
            end = _HEAD_END.search(seen)
            if end is None:
                # The rest of it is awaited while the body is sent, unless it is too long to be one.
                return len(seen) == _MAX_INTERIM
            self._socket.recv(end.end())
        return False

    def _send_head(self, target: str, headers: Mapping[str, str], size: int) -> None:
        self._socket.settimeout(_CONNECT_TIMEOUT)
        proxy = self._proxy
        # http.client and the proxy take the header Host from it.
        whole = target if proxy is None else f"{origin_of(*self._where)}{target}"
        self._connection.putrequest("PUT", whole, skip_accept_encoding=True)
        if proxy is not None and proxy.authorization is not None:
            self._connection.putheader("Proxy-Authorization", proxy.authorization)
        always = {"User-Agent": f"backhaul-agent/{VERSION}", "Content-Type": _CONTENT_TYPE, "Content-Length": str(size)}
        for name, value in {**always, **headers}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()


class _Response(HTTPResponse):
    """An answer whose header section must be complete: http.client accepts a connection that ends inside it."""

    def __init__(self, pace: Pace, sock: socket.socket, method: str | None = None) -> None:
        super().__init__(sock, method=method)
        self.fp = self._lines = _Lines(_Slices(self.fp.detach(), sock, pace))

    def _read_status(self) -> tuple[str, int, str]:
        """The status line of the final answer. http.client skips status 100 only."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= _FINAL or status == _SWITCHING:
                return version, status, reason
            parse_headers(self._lines)

    def begin(self) -> None:
        super().begin()
        if self._lines.last not in {b"\r\n", b"\n"}:
            text = "the answer was cut short"
            raise HTTPException(text)


class _Slices(io.RawIOBase):
    """The bytes from a socket with a short timeout; after each timeout it checks whether the PUT is stopped."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket, pace: Pace) -> None:
        self._stream = stream
        self._socket = sock
        self._pace = pace
        self._patience = 2 * pace.idle_timeout
        self._until = time.monotonic() + self._patience

    def readable(self) -> bool:
        """Required by `io.BufferedReader`."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 (any writable buffer)
        while True:
            self._pace.require_running()
            if time.monotonic() >= self._until:
                text = f"the object store did not end its answer within {self._patience:g} s"
                raise PutFailed(PutFailure.TRY_AGAIN, text)
            try:
                return self._socket.recv_into(buffer)
            except TimeoutError:
                continue

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Lines(io.BufferedReader):
    last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last = super().readline(size)
        return self.last


def kind_of(refused: FileRefused) -> PutFailure:
    """What a file that cannot be read means for the PUT of a part of it."""
    changed = refused.code is ErrorCode.SOURCE_CHANGED
    return PutFailure.SOURCE_CHANGED if changed else PutFailure.SOURCE_UNREADABLE


def _require_headers(headers: Mapping[str, str]) -> None:
    names = {name.lower() for name in headers}
    sendable = all(_sendable(name, value) for name, value in headers.items())
    if not sendable or len(names) < len(headers) or len(headers) > MAX_HEADERS:
        text = f"a grant may ask for {MAX_HEADERS} headers named content-md5, if-none-match or x-amz-*, and no others"
        raise PutFailed(PutFailure.BAD_HEADER, text)


def _sendable(name: str, value: str) -> bool:
    return _HEADER_NAME.fullmatch(name) is not None and _HEADER_VALUE.fullmatch(value) is not None


def _text_of(error: Exception) -> str:
    """The kind of failure; never bytes of the server, which may repeat the request with the key in it."""
    if isinstance(error, BadStatusLine | UnknownProtocol) and not isinstance(error, OSError):
        return type(error).__name__
    return failure_text(error)
