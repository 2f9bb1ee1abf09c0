"""A model of S3: stored objects, signed URLs, and the result of each request. It has no faults itself.

Rule: every promise is checked against this state. `objects.py` and `part_io.py` lose its answers.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from control_plane.services.errors import ObjectStoreRefused
from device_agent.storage.put_results import PutResult
from tests.simulation.contents import Content, join, md5, md5_base64, size_of
from tests.simulation.world import World

MIN_PART: Final = 5 * 1024 * 1024


@dataclass(frozen=True)
class Signed:
    """The request that one URL allows until `expires_at` (s since the epoch); `s3_upload_id` None means PutObject."""

    s3_key: str
    s3_upload_id: str | None
    part_number: int
    size: int
    digest: str | None
    token: str
    once: bool
    expires_at: float

    @property
    def place(self) -> str:
        """The target: the multipart upload, or the object of one attempt."""
        return self.s3_upload_id or f"{self.s3_key} {self.token}"


@dataclass
class Stored:
    """One object."""

    token: str
    content: Content
    etag: str
    parts: int


@dataclass
class Multipart:
    """One multipart upload in flight."""

    s3_key: str
    token: str
    initiated_at: float
    parts: dict[int, tuple[str, Content]] = field(default_factory=dict)


class Bucket:
    """One bucket. `born` lists every object that ever became visible, by key and token."""

    def __init__(self, world: World, *, opaque_etags: bool) -> None:
        self.world = world
        self.opaque_etags = opaque_etags
        self.objects: dict[str, Stored] = {}
        self.multiparts: dict[str, Multipart] = {}
        self.signed: dict[str, Signed] = {}
        self.born: list[tuple[str, str]] = []
        self.outage_until = 0.0
        self._serial = 0

    def serial(self) -> int:
        """A number that was not returned before."""
        self._serial += 1
        return self._serial

    def sign(self, what: Signed) -> str:
        """A URL that allows this request."""
        url = f"https://s3.sim/{what.s3_key}?X-Amz-Signature={self.serial()}"
        self.signed[url] = what
        return url

    # Requests of devices.

    def put(self, url: str, content: Content) -> PutResult:
        """PUT: take effect, then return the answer."""
        what = self.signed[url]
        if self.world.wall() > what.expires_at:
            return _refusal(403, "AccessDenied")
        if size_of(content) != what.size:
            return _refusal(403, "SignatureDoesNotMatch")
        if what.digest is not None and md5_base64(content) != what.digest:
            return _refusal(400, "BadDigest")
        return self._put_object(what, content) if what.s3_upload_id is None else self._put_part(what, content)

    def _put_object(self, what: Signed, content: Content) -> PutResult:
        if what.once and what.s3_key in self.objects:
            return _refusal(412, "PreconditionFailed")
        etag = self._etag(content)
        self._appears(what.s3_key, Stored(what.token, content, etag, 0))
        return PutResult(200, f'"{etag}"')

    def _put_part(self, what: Signed, content: Content) -> PutResult:
        upload = self.in_flight(what.s3_key, what.s3_upload_id or "")
        if upload is None:
            return _refusal(404, "NoSuchUpload")
        etag = self._etag(content)
        upload.parts[what.part_number] = (etag, content)
        return PutResult(200, f'"{etag}"')

    def _etag(self, content: Content) -> str:
        return f"opaque{self.serial()}" if self.opaque_etags else md5(content).hex()

    def _appears(self, s3_key: str, stored: Stored) -> None:
        old = self.objects.get(s3_key)
        self.objects[s3_key] = stored
        if old is None or old.token != stored.token or old.content != stored.content:
            self.born.append((s3_key, stored.token))
        self.world.note("s3", f"object {s3_key} of {stored.token}, {size_of(stored.content)} bytes")

    # Requests of control planes.

    def create(self, s3_key: str, token: str) -> str:
        """CreateMultipartUpload."""
        s3_upload_id = f"mp{self.serial()}"
        self.multiparts[s3_upload_id] = Multipart(s3_key, token, self.world.wall())
        self.world.note("s3", f"create {s3_upload_id} for {s3_key}")
        return s3_upload_id

    def complete(self, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> None:
        """CompleteMultipartUpload; `ObjectStoreRefused` with S3's error code."""
        upload = self.in_flight(s3_key, s3_upload_id)
        if upload is None:
            raise ObjectStoreRefused(s3_upload_id, "NoSuchUpload")
        numbers = sorted(etags)
        for number in numbers:
            if number not in upload.parts or upload.parts[number][0] != etags[number].strip('"'):
                message = f"part {number} is not there under this etag"
                raise ObjectStoreRefused(message, "InvalidPart")
        contents = [upload.parts[number][1] for number in numbers]
        if any(size_of(one) < MIN_PART for one in contents[:-1]):
            raise ObjectStoreRefused(s3_upload_id, "EntityTooSmall")
        del self.multiparts[s3_upload_id]
        etag = self._etag(join(contents)) if self.opaque_etags else multipart_etag(contents)
        self._appears(s3_key, Stored(upload.token, join(contents), etag, len(contents)))

    def in_flight(self, s3_key: str, s3_upload_id: str) -> Multipart | None:
        """The multipart upload of this id, which is known only below its own key."""
        upload = self.multiparts.get(s3_upload_id)
        return None if upload is None or upload.s3_key != s3_key else upload

    def abort(self, s3_key: str, s3_upload_id: str) -> None:
        """AbortMultipartUpload."""
        if self.in_flight(s3_key, s3_upload_id) is not None:
            del self.multiparts[s3_upload_id]
            self.world.note("s3", f"abort {s3_upload_id}")

    def delete(self, s3_key: str) -> None:
        """DeleteObject."""
        if self.objects.pop(s3_key, None) is not None:
            self.world.note("s3", f"delete {s3_key}")


def multipart_etag(contents: list[Content]) -> str:
    """The MD5 of the parts' MD5s, as S3 writes it."""
    joined = hashlib.md5(b"".join(md5(one) for one in contents), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(contents)}"


def _refusal(status: int, code: str) -> PutResult:
    return PutResult(status, body=f"<Error><Code>{code}</Code></Error>".encode())
