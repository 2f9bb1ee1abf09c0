"""The state of the double: buckets, objects, multipart uploads.

Rule: the bytes are files that never change; everything else is in memory and ends with the process.
"""

import itertools
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.strict_s3.bodies import Blob
from tests.support.strict_s3.refusals import Code, Refusal


@dataclass(frozen=True, slots=True)
class ObjectProperties:
    """The properties that a request sets for a new object; `algorithm` is a checksum's, in lower case."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    encryption: str | None = None
    content_type: str = "binary/octet-stream"
    algorithm: str | None = None
    full_object: bool = False


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: its bytes are those of the blobs, in order. `etag` is without quotes."""

    blobs: tuple[Blob, ...]
    etag: str
    properties: ObjectProperties
    modified_at: float
    checksums: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(blob.size for blob in self.blobs)

    def read(self) -> bytes:
        """All bytes, for tests that compare."""
        return b"".join(self.chunks(0, self.size))

    def chunks(self, start: int, end: int, size: int = 1 << 18) -> Iterator[bytes]:
        """Bytes from `start` up to `end`, in pieces."""
        for blob in self.blobs:
            if start < blob.size and end > 0 and blob.path is not None:
                with blob.path.open("rb") as file:
                    file.seek(max(start, 0))
                    left = min(end, blob.size) - max(start, 0)
                    while left > 0 and (chunk := file.read(min(size, left))):
                        left -= len(chunk)
                        yield chunk
            start, end = start - blob.size, end - blob.size


@dataclass(slots=True)
class Part:
    """One stored part; `etag` is without quotes."""

    blob: Blob
    etag: str
    checksums: Mapping[str, str]
    modified_at: float


@dataclass(slots=True)
class Multipart:
    """A multipart upload in flight."""

    bucket: str
    key: str
    upload_id: str
    initiated_at: float
    properties: ObjectProperties
    parts: dict[int, Part] = field(default_factory=dict)


@dataclass(slots=True)
class Bucket:
    """A bucket and the documents of its sub-resources."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    rules: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Under `Quirk.KEEPS_VERSIONS`: ids with their keys, of objects and of markers."""


class Storage:
    """All buckets."""

    def __init__(self, directory: Path, *, keep_bytes: bool = True) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, Multipart] = {}
        self.missed: dict[tuple[str, str], float] = {}
        self._directory = directory / "blobs"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._keep_bytes = keep_bytes
        self._numbers = itertools.count(1)
        self._versions = itertools.count(1)

    def new_path(self) -> Path | None:
        """The file of the next body; None when bytes are only counted."""
        return self._directory / f"{next(self._numbers):08d}" if self._keep_bytes else None

    def bucket(self, name: str) -> Bucket:
        """`NoSuchBucket` when it does not exist."""
        try:
            return self.buckets[name]
        except KeyError:
            raise Refusal(Code.NO_SUCH_BUCKET, "The specified bucket does not exist") from None

    def object(self, bucket: str, key: str) -> StoredObject:
        """`NoSuchKey` when it does not exist."""
        try:
            return self.bucket(bucket).objects[key]
        except KeyError:
            raise Refusal(Code.NO_SUCH_KEY, "The specified key does not exist.") from None

    def upload(self, bucket: str, key: str, upload_id: str | None) -> Multipart:
        """`NoSuchUpload` when it never existed, was completed or aborted, or belongs to another key."""
        self.bucket(bucket)
        found = self.uploads.get(upload_id or "")
        if found is None or (found.bucket, found.key) != (bucket, key):
            raise Refusal(
                Code.NO_SUCH_UPLOAD, "The specified upload does not exist. It may have been aborted or completed."
            )
        return found

    def begin(self, bucket: str, key: str, properties: ObjectProperties, now: float) -> Multipart:
        """Open a multipart upload."""
        self.bucket(bucket)
        upload = Multipart(bucket, key, secrets.token_urlsafe(32), now, properties)
        self.uploads[upload.upload_id] = upload
        return upload

    def put(self, bucket: str, key: str, new: StoredObject) -> None:
        """Make an object visible, in place of another."""
        objects = self.bucket(bucket).objects
        if (old := objects.get(key)) is not None:
            self._drop(old.blobs, keep=new.blobs)
        objects[key] = new

    def note_version(self, bucket: str, key: str) -> str:
        """Begin a new version of a key, an object or a marker; returns its id."""
        version = f"v{next(self._versions)}"
        self.bucket(bucket).versions[version] = key
        return version

    def remove(self, bucket: str, key: str) -> bool:
        """Delete an object; False when it does not exist."""
        old = self.bucket(bucket).objects.pop(key, None)
        if old is not None:
            self._drop(old.blobs)
        return old is not None

    def end(self, upload: Multipart, *, keep: tuple[Blob, ...] = ()) -> None:
        """Delete an upload and its unused parts."""
        del self.uploads[upload.upload_id]
        self._drop(tuple(part.blob for part in upload.parts.values()), keep=keep)

    @staticmethod
    def _drop(blobs: tuple[Blob, ...], keep: tuple[Blob, ...] = ()) -> None:
        for blob in blobs:
            if blob not in keep:
                blob.delete()
