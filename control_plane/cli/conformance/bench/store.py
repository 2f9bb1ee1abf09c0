"""The kit's object store: it takes the PUTs for which it made a URL, and answers as a check has planned.

Rule: it keeps of each request what was sent: the target, the headers in their order, size and digests of the body.
"""

import asyncio
import base64
import hashlib
import secrets
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from control_plane.cli.conformance.bench.transcript import Transcript

_LONGEST_HEAD: Final = 65_536
_DRAIN: Final = 256 * 1024
_BINDING: Final = {"content-md5": "md5", "x-amz-checksum-sha256": "sha256", "x-amz-checksum-crc32": "crc32"}
HEADER_OF: Final = {digest: header for header, digest in _BINDING.items()}


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """One planned answer to a PUT: an S3 error `code` makes an error document; `reset` closes without any answer.

    `etag` is the ETag in place of the right one, and `""` leaves it out; the answer comes `delay` seconds late.
    """

    status: int = 200
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = None
    body: bytes = b""
    reset: bool = False
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Put:
    """One request of the agent; times are in seconds on the loop's clock."""

    began: float
    ended: float
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    size: int
    digests: Mapping[str, str]
    status: int

    def header(self, name: str) -> str | None:
        """The value of a header; None without it."""
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(slots=True)
class GrantedUrl:
    """A URL of the kit for one part, its signed headers, the answers it will give, and the PUTs that came."""

    part_number: int
    url: str
    headers: Mapping[str, str]
    answers: list[PutAnswer] = field(default_factory=list)
    puts: list[Put] = field(default_factory=list)

    @property
    def stored(self) -> Put | None:
        """The PUT that was answered with 2xx."""
        return next((put for put in self.puts if put.status < HTTPStatus.MULTIPLE_CHOICES), None)

    def as_part(self) -> dict[str, object]:
        """The `PresignedPart` of a grant."""
        return {"part_number": self.part_number, "url": self.url, "headers": dict(self.headers)}


class PutStore:
    """An HTTP server; `strangers` are the requests for which it made no URL."""

    def __init__(self, transcript: Transcript) -> None:
        self.port = 0
        self.strangers: list[Put] = []
        self._host = ""
        self._transcript = transcript
        self._urls: dict[str, GrantedUrl] = {}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> str:
        """The origin that the agent has to allow in UPLOAD_HOSTS."""
        return f"http://{self._host}:{self.port}"

    @property
    def granted(self) -> Sequence[GrantedUrl]:
        """All URLs that were made."""
        return tuple(self._urls.values())

    async def start(self, host: str, port: int, shown_host: str) -> None:
        """Listen; port 0 takes a free one. URLs name `shown_host`."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=_LONGEST_HEAD)
        self._host, self.port = shown_host, self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection, and wait for the ends."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio reports the cancellation of a task that it made for a connection as an error.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def grant(
        self, key: str, part_number: int, headers: Mapping[str, str], answers: Sequence[PutAnswer] = ()
    ) -> GrantedUrl:
        """A new URL. What follows the planned `answers` is stored, unless its bytes contradict a signed digest."""
        # Percent-encoded and plus signs: a URL is sent as it was given, not as a library would write it again.
        token = secrets.token_hex(8)
        target = (
            f"/bucket/{key}/caf%C3%A9%20a+b~c?partNumber={part_number}&uploadId={token}.x~"
            f"&X-Amz-Signature={secrets.token_hex(32)}&X-Amz-Credential=KIT%2F20260101%2Fs3&x-id=UploadPart"
        )
        made = GrantedUrl(part_number, self.origin + target, headers, list(answers))
        self._urls[target] = made
        return made

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Take one request; False when the connection is over."""
        head = await reader.readuntil(b"\r\n\r\n")
        began = asyncio.get_running_loop().time()
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        named = {name.lower(): value for name, value in headers}
        if target.startswith("http://"):
            # The absolute form: it names the host again (RFC 9112, section 3.2.2).
            target = target[target.index("/", len("http://")) :]
        granted = self._urls.get(target)
        if named.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        planned = granted.answers.pop(0) if granted is not None and granted.answers else None
        if planned is not None and planned.reset:
            writer.transport.abort()
            self._keep(granted, Put(began, self._now(), method, target, headers, 0, {}, 0))
            return False
        size, digests = await _body(reader, named)
        answer = planned or self._judge(granted, method, digests)
        await asyncio.sleep(answer.delay)
        put = Put(began, self._now(), method, target, headers, size, digests, answer.status)
        self._keep(granted, put)
        _write(writer, answer, digests, method)
        await writer.drain()
        return True

    def _keep(self, granted: GrantedUrl | None, put: Put) -> None:
        (self.strangers if granted is None else granted.puts).append(put)
        self._transcript.touch()

    @staticmethod
    def _judge(granted: GrantedUrl | None, method: str, digests: Mapping[str, str]) -> PutAnswer:
        if granted is None or method != "PUT":
            return PutAnswer(403, "SignatureDoesNotMatch")
        for name, value in granted.headers.items():
            if name in _BINDING and digests[_BINDING[name]] != value:
                return PutAnswer(400, "BadDigest")
        return PutAnswer()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Read the body: its size and its digests in base64."""
    md5, sha256, crc32, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0, 0

    def take(data: bytes) -> None:
        nonlocal crc32, size
        md5.update(data)
        sha256.update(data)
        crc32 = zlib.crc32(data, crc32)
        size += len(data)

    if headers.get("transfer-encoding", "").lower() == "chunked":
        while length := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            take(await reader.readexactly(length))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    else:
        left = int(headers.get("content-length", "0"))
        while left:
            data = await reader.read(min(left, _DRAIN))
            if not data:
                raise EOFError
            left -= len(data)
            take(data)
    raw = {"md5": md5.digest(), "sha256": sha256.digest(), "crc32": crc32.to_bytes(4)}
    return size, {name: base64.b64encode(value).decode() for name, value in raw.items()}


def etag_of(digests: Mapping[str, str]) -> str:
    """The ETag of bytes that were stored."""
    return f'"{base64.b64decode(digests["md5"]).hex()}"'


def _write(writer: asyncio.StreamWriter, answer: PutAnswer, digests: Mapping[str, str], method: str) -> None:
    headers, body = dict(answer.headers), answer.body
    if answer.code is not None:
        document = f"<Error><Code>{answer.code}</Code><Message>planned by the conformance kit</Message></Error>"
        body, headers["Content-Type"] = document.encode(), "application/xml"
    elif answer.status == HTTPStatus.OK and answer.etag != "":
        headers["ETag"] = answer.etag or etag_of(digests)
    phrase = HTTPStatus(answer.status).phrase
    lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else body))


class Elsewhere:
    """A server that no URL of a valid grant names; it counts who comes."""

    def __init__(self, on_visit: Callable[[], None]) -> None:
        self.port = 0
        self.visits = 0
        self._on_visit = on_visit
        self._server: asyncio.Server | None = None

    async def start(self, host: str) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close it."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        self._on_visit()
        with suppress(OSError):
            writer.close()
