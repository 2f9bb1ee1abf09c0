"""Bodies of requests: received, digested, checked against their headers, stored as files.

Rule: a body is a file once it is complete; a failure leaves no file.
"""

import asyncio
import hashlib
import zlib
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.strict_s3.faults import Fault, Kind
from tests.support.strict_s3.refusals import Code, Refusal, Vanished
from tests.support.strict_s3.requests import Operation, Request
from tests.support.strict_s3.signatures import Signed

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

DATA: Final = frozenset({Operation.PUT_OBJECT, Operation.UPLOAD_PART})
"""Operations with an object's bytes as body; all others have a small document."""

MAX_DOCUMENT: Final = 2 << 20
CHECKSUM_BYTES: Final = {"sha256": 32, "crc32": 4}
_FLIPPED: Final = 0xFF


class Reset(Exception):
    """Reset the connection now."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that the double stores; without a `path` they are only counted (`keep_bytes=False`)."""

    path: Path | None
    size: int
    md5: bytes
    sha256: bytes
    crc32: bytes

    def checksum(self, algorithm: str) -> str:
        """One of the checksums of S3, in base64."""
        return b64encode(self.sha256 if algorithm == "sha256" else self.crc32).decode()

    def delete(self) -> None:
        """Delete the bytes."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Receiver:
    """Receives one body; `received` counts the bytes, also of a body that fails."""

    def __init__(self, path: Path | None, fault: Fault | None, idle_timeout: float) -> None:
        self.received = 0
        self.document = bytearray()
        self._path = path
        self._fault = fault
        self._idle_timeout = idle_timeout
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._crc32 = 0

    async def take(self, receive: Receive, *, is_data: bool) -> Blob:
        """The whole body; `Reset` and `Vanished` when it ends early."""
        await self._maybe_break()
        with (self._path or Path("/dev/null")).open("wb") as file:
            more = True
            while more:
                chunk, more = await self._next(receive)
                chunk = self._flipped(chunk, Kind.CORRUPT_RECEIVED)
                self._digest(chunk)
                if is_data:
                    file.write(self._flipped(chunk, Kind.CORRUPT_STORED))
                elif len(self.document) + len(chunk) <= MAX_DOCUMENT:
                    self.document += chunk
                self.received += len(chunk)
                await self._maybe_break()
                await self._slow_down(len(chunk))
        return Blob(self._path, self.received, self._md5.digest(), self._sha256.digest(), self._crc32.to_bytes(4))

    async def _next(self, receive: Receive) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(self._idle_timeout):
                message = await receive()
        except TimeoutError:
            text = "Your socket connection to the server was not read from or written to within the timeout period."
            raise Refusal(Code.REQUEST_TIMEOUT, text) from None
        if message["type"] == "http.disconnect":
            raise Vanished
        return message.get("body", b""), message.get("more_body", False)

    def _digest(self, chunk: bytes) -> None:
        self._md5.update(chunk)
        self._sha256.update(chunk)
        self._crc32 = zlib.crc32(chunk, self._crc32)

    def _flipped(self, chunk: bytes, kind: Kind) -> bytes:
        fault = self._fault
        if fault is None or fault.kind is not kind or not 0 <= fault.at_byte - self.received < len(chunk):
            return chunk
        changed = bytearray(chunk)
        changed[fault.at_byte - self.received] ^= _FLIPPED
        return bytes(changed)

    async def _maybe_break(self) -> None:
        fault = self._fault
        if fault is None or fault.kind not in {Kind.STALL, Kind.RESET} or self.received < fault.at_byte:
            return
        if fault.kind is Kind.STALL:
            await asyncio.sleep(fault.seconds)
        raise Reset

    async def _slow_down(self, size: int) -> None:
        if self._fault is not None and self._fault.kind is Kind.SLOW and self._fault.bytes_per_second:
            await asyncio.sleep(size / self._fault.bytes_per_second)


@dataclass(frozen=True, slots=True)
class Promise:
    """What the headers of a request promise about its body; `checksums` by algorithm."""

    md5: bytes | None = None
    sha256_of_payload: str | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def check(self, blob: Blob) -> None:
        """`Refusal` when the body differs from the promise."""
        if self.md5 not in {None, blob.md5}:
            raise Refusal(Code.BAD_DIGEST, "The Content-MD5 you specified did not match what we received.")
        if self.sha256_of_payload not in {None, blob.sha256.hex()}:
            raise Refusal(Code.X_AMZ_CONTENT_SHA256_MISMATCH, "The provided x-amz-content-sha256 does not match.")
        for algorithm, value in self.checksums.items():
            if blob.checksum(algorithm) != value:
                raise Refusal(
                    Code.BAD_DIGEST, f"The {algorithm.upper()} you specified did not match the calculated one."
                )


def promised(request: Request, signed: Signed) -> Promise:
    """Parse the promise; `Refusal` when it is malformed."""
    if request.operation in DATA and request.length is None:
        raise Refusal(Code.MISSING_CONTENT_LENGTH, "You must provide the Content-Length HTTP header.")
    if "x-amz-trailer" in request.headers:
        raise Refusal(Code.NOT_IMPLEMENTED, "Trailing checksums are not implemented")
    md5 = request.headers.get("content-md5")
    checksums = {
        algorithm: request.headers[f"x-amz-checksum-{algorithm}"]
        for algorithm in CHECKSUM_BYTES
        if f"x-amz-checksum-{algorithm}" in request.headers
    }
    for algorithm, value in checksums.items():
        if _decoded(value, CHECKSUM_BYTES[algorithm]) is None:
            raise Refusal(Code.INVALID_REQUEST, f"Value for x-amz-checksum-{algorithm} header is invalid.")
    raw = None if md5 is None else _decoded(md5, hashlib.md5(usedforsecurity=False).digest_size)
    if md5 is not None and raw is None:
        raise Refusal(Code.INVALID_DIGEST, "The Content-MD5 you specified is not valid.")
    return Promise(raw, signed.payload_sha256, checksums)


def _decoded(text: str, size: int) -> bytes | None:
    try:
        raw = b64decode(text, validate=True)
    except (BadBase64, ValueError):
        return None
    return raw if len(raw) == size else None
