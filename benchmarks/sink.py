"""A store for benchmarks: it takes objects at the least possible cost and throws their bytes away.

Rule: S3 enough for the AWS CLI, boto3, rclone, the agent and the control plane. It keeps what HEAD, Complete and the
probe need (sizes, digests of small bodies, metadata) and verifies no signature, so nothing but loopback may reach it.

    python -m benchmarks.sink PORT [--certificate FILE]
"""

import asyncio
import gc
import hashlib
import ssl
import sys
import zlib
from argparse import ArgumentParser
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final
from urllib.parse import parse_qsl, unquote

BUFFER: Final = 1024 * 1024
VERIFIED: Final = 1024 * 1024
"""Bodies up to this many bytes are digested; what is larger is only counted."""

COUNTS: Final = "/-/counts"
"""The path at which the sink reports its counts of puts, repeated puts, bytes and objects."""

_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_XML: Final = '<?xml version="1.0" encoding="UTF-8"?>'
_NO_MD5: Final = "0" * 32


@dataclass(slots=True)
class Stored:
    """What is kept of an object or a part."""

    size: int
    etag: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Upload:
    """A multipart upload in the making."""

    key: str
    headers: dict[str, str]
    parts: dict[int, Stored] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: str = "200 OK"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self, *, head: bool) -> bytes:
        """The whole answer; to a HEAD, `Content-Length` is the object's size."""
        lines = [f"HTTP/1.1 {self.status}", f"Date: {formatdate(usegmt=True)}"]
        if "Content-Length" not in self.headers:
            lines.append(f"Content-Length: {len(self.body)}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode() + _HEAD_END + (b"" if head else self.body)


class Store:
    """Objects and uploads by key; `puts` counts whole objects and parts taken, `created` multipart uploads."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Upload] = {}
        self.created = 0
        self.puts = 0
        self.bytes_taken = 0
        self.repeated = 0

    def answer(self, request: "Request") -> Reply:
        """Execute the request."""
        match request.method:
            case "PUT":
                return self._put(request)
            case "POST":
                return self._post(request)
            case "HEAD" if request.is_object:
                return self._head(request.path)
            case "GET":
                return self._get(request)
            case "DELETE":
                return self._delete(request)
        return Reply()

    def _put(self, request: "Request") -> Reply:
        if "uploadId" in request.query:
            return self._put_part(request)
        return self._put_object(request) if request.is_object else Reply()

    def _post(self, request: "Request") -> Reply:
        if "uploads" in request.query:
            return self._create(request)
        return self._complete(request) if "uploadId" in request.query else _xml("<DeleteResult></DeleteResult>")

    def _get(self, request: "Request") -> Reply:
        if request.path == COUNTS:
            return Reply(body=f"{self.puts} {self.repeated} {self.bytes_taken} {len(self.objects)}".encode())
        if "uploadId" in request.query:
            return self._list_parts(request.query["uploadId"])
        kind = "ListMultipartUploadsResult" if "uploads" in request.query else "ListBucketResult"
        return _xml(f"<{kind}><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></{kind}>")

    def _put_object(self, request: "Request") -> Reply:
        if request.path in self.objects:
            if "if-none-match" in request.headers:
                return _refusal("412 Precondition Failed", "PreconditionFailed")
            self.repeated += 1
        stored = self._taken(request)
        if stored is None:
            return _refusal("400 Bad Request", "BadDigest")
        self.objects[request.path] = stored
        return Reply(headers={"ETag": f'"{stored.etag}"'})

    def _put_part(self, request: "Request") -> Reply:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None:
            return _refusal("404 Not Found", "NoSuchUpload")
        stored = self._taken(request)
        if stored is None:
            return _refusal("400 Bad Request", "BadDigest")
        upload.parts[int(request.query["partNumber"])] = stored
        return Reply(headers={"ETag": f'"{stored.etag}"'})

    def _taken(self, request: "Request") -> Stored | None:
        """Count a body; None when it is small and its digest differs from the headers."""
        body = request.body
        if body is not None and not _digests_agree(request.headers, bytes(body)):
            return None
        self.puts += 1
        self.bytes_taken += request.size
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest() if body is not None else _NO_MD5
        return Stored(request.size, etag, _kept(request.headers))

    def _create(self, request: "Request") -> Reply:
        # A count that only rises: an id that an aborted upload had would join two that run side by side.
        self.created += 1
        upload_id = f"upload-{self.created}"
        self.uploads[upload_id] = Upload(request.path, _kept(request.headers))
        _, bucket, key = request.path.split("/", 2)
        return _xml(
            f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>"
            f"<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
        )

    def _complete(self, request: "Request") -> Reply:
        upload = self.uploads.pop(request.query["uploadId"], None)
        if upload is None:
            return _refusal("404 Not Found", "NoSuchUpload")
        parts = [upload.parts[number] for number in sorted(upload.parts)]
        raw = b"".join(bytes.fromhex(part.etag) for part in parts)
        etag = f"{hashlib.md5(raw, usedforsecurity=False).hexdigest()}-{len(parts)}"
        self.objects[upload.key] = Stored(sum(part.size for part in parts), etag, upload.headers)
        _, bucket, key = upload.key.split("/", 2)
        return _xml(
            f"<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>"
            f"<ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
        )

    def _head(self, path: str) -> Reply:
        found = self.objects.get(path)
        if found is None:
            return Reply("404 Not Found")
        headers = {"Content-Length": str(found.size), "ETag": f'"{found.etag}"', **found.headers}
        return Reply(headers={**headers, "Last-Modified": formatdate(usegmt=True)})

    def _list_parts(self, upload_id: str) -> Reply:
        upload = self.uploads.get(upload_id)
        if upload is None:
            return _refusal("404 Not Found", "NoSuchUpload")
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size}</Size></Part>"
            for number, part in sorted(upload.parts.items())
        )
        return _xml(f"<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>")

    def _delete(self, request: "Request") -> Reply:
        if "uploadId" in request.query:
            self.uploads.pop(request.query["uploadId"], None)
        else:
            self.objects.pop(request.path, None)
        return Reply("204 No Content")


@dataclass(slots=True)
class Request:
    """A request's head; `length` are bytes on the wire, `size` those of the object. `body` is None if only counted."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    length: int
    size: int
    chunked: bool = False
    body: bytearray | None = None

    @classmethod
    def parse(cls, head: bytes) -> "Request":
        """Read a head without its empty line."""
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        path, _, query = target.partition("?")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        size = int(headers.get("x-amz-decoded-content-length", length))
        chunked = "chunked" in headers.get("transfer-encoding", "")
        return cls(
            method, unquote(path), dict(parse_qsl(query, keep_blank_values=True)), headers, length, size, chunked
        )

    @property
    def is_object(self) -> bool:
        """Whether the path names an object, not a bucket."""
        return self.path.rstrip("/").count("/") > 1


class Connection(asyncio.BufferedProtocol):
    """Reads heads into a small buffer and bodies into one that all connections share, to be overwritten."""

    _waste: Final = memoryview(bytearray(BUFFER))

    def __init__(self, store: Store) -> None:
        self._store = store
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._request: Request | None = None
        self._missing = 0
        self._trailing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where bytes go; nothing is copied out of it but heads and small bodies."""
        return self._waste

    def buffer_updated(self, nbytes: int) -> None:
        """Count bytes of a body, or look for the end of a head."""
        data = self._waste[:nbytes]
        while data:
            data = self._body(data) if self._missing else self._next(data)

    def _body(self, data: memoryview) -> memoryview:
        request = self._request
        assert request is not None  # noqa: S101 - for the type checker
        took = min(len(data), self._missing)
        if request.body is not None:
            request.body += data[:took]
        self._missing -= took
        if not self._missing and not request.chunked:
            self._answer(request)
        return data[took:]

    def _next(self, data: memoryview) -> memoryview:
        """The next head, or within a chunked body the next line."""
        chunked = self._request is not None
        mark = _LINE_END if chunked else _HEAD_END
        known = len(self._head)
        self._head += data
        end = self._head.find(mark, max(0, known - len(mark) + 1))
        if end < 0:
            return data[len(data) :]
        words = bytes(self._head[:end])
        rest = data[end + len(mark) - known :]
        self._head.clear()
        if chunked:
            self._line(words)
        else:
            self._begin(Request.parse(words))
        return rest

    def _line(self, words: bytes) -> None:
        """The size of a chunk, or a line of the trailer; an empty one ends the body (RFC 9112, 7.1)."""
        if self._trailing:
            if not words:
                self._trailing = False
                self._answer(self._request)
        elif size := int(words.split(b";")[0], 16):
            self._missing = size + len(_LINE_END)
        else:
            self._trailing = True

    def _begin(self, request: Request) -> None:
        if request.length == request.size <= VERIFIED and not request.chunked:
            request.body = bytearray()
        self._request, self._missing = request, request.length
        if "expect" in request.headers:
            self._write(_CONTINUE)
        if not request.length and not request.chunked:
            self._answer(request)

    def _answer(self, request: Request | None) -> None:
        assert request is not None  # noqa: S101 - for the type checker
        self._request = None
        self._write(self._store.answer(request).encode(head=request.method == "HEAD"))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("x-amz-meta-")}


def _digests_agree(headers: Mapping[str, str], body: bytes) -> bool:
    for name, value in headers.items():
        match name:
            case "content-md5":
                raw = hashlib.md5(body, usedforsecurity=False).digest()
            case "x-amz-checksum-sha256":
                raw = hashlib.sha256(body).digest()
            case "x-amz-checksum-crc32":
                raw = zlib.crc32(body).to_bytes(4)
            case _:
                continue
        if b64encode(raw).decode() != value:
            return False
    return True


def _xml(text: str) -> Reply:
    return Reply(headers={"Content-Type": "application/xml"}, body=(_XML + text).encode())


def _refusal(status: str, code: str) -> Reply:
    return Reply(status, body=f"{_XML}<Error><Code>{code}</Code></Error>".encode())


async def serve(port: int, context: ssl.SSLContext | None) -> None:
    """Serve until cancelled; prints the line `ready` when it listens."""
    store = Store()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(store), "127.0.0.1", port, ssl=context, backlog=1024)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run the sink."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--certificate", help="PEM file with key and certificate: serve TLS")
    given = parser.parse_args()
    context = None
    if given.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate)
    gc.freeze()
    asyncio.run(serve(given.port, context))


if __name__ == "__main__":
    main()
