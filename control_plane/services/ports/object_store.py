"""The object store, as the services use it.

Rule: a refusal is `ObjectStoreRefused`, an outage `ObjectStoreDown`; no library's exception passes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.values import DigestName, PresignedPart


@dataclass(frozen=True, slots=True)
class ObjectStoreCapabilities:
    """What the object store was seen to do, by a probe at start (protocol.md section 5).

    `part_digests` and `object_digests` are the digests whose mismatch it refuses on UploadPart and on PutObject;
    `etag_is_md5` that an ETag is the MD5 of the bytes (and of the parts' MD5s); `if_none_match` that it refuses to
    overwrite when told so; `clock_skew` is its clock minus ours (s), None when it did not say.
    """

    part_digests: frozenset[DigestName] = frozenset()
    object_digests: frozenset[DigestName] = frozenset()
    etag_is_md5: bool = False
    if_none_match: bool = False
    encrypts: bool = False
    clock_skew: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What HEAD says of an object; `metadata` has lower-case names. `etag` is without quotes."""

    size: int
    etag: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    encryption: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MultipartInfo:
    """One multipart upload in flight at the store."""

    s3_key: str
    s3_upload_id: str
    initiated_at: float


@dataclass(frozen=True, slots=True)
class Grantable:
    """What one URL is bound to: the part, its bytes' count and digest, and how long (s) it may be used."""

    part_number: int
    size: int
    digest: str | None
    expires_in: float


class ObjectStore(Protocol):
    """The S3 bucket. `ObjectStoreDown` when a call may be tried again, `ObjectStoreRefused` when not."""

    bucket: str

    async def ensure_bucket(self) -> None:
        """Create the bucket, private, when it is missing."""

    async def probe(self) -> ObjectStoreCapabilities:
        """See what the store enforces, on objects of our own prefix that are removed again."""

    async def create_multipart(self, s3_key: str, token: str, digest: DigestName) -> str:
        """Open a multipart upload whose object will bear `token`; returns S3's upload id. Not idempotent."""

    def presign_part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """A URL for one part, bound to its size and digest. Pure computation."""

    def presign_object(
        self, s3_key: str, token: str, part: Grantable, digest: DigestName, *, once: bool
    ) -> PresignedPart:
        """A URL that creates the whole object; `once` signs `If-None-Match: *` in."""

    def presign_get(self, s3_key: str, expires_in: float) -> str:
        """A URL to read an object with."""

    def url_lifetime(self, wanted: float) -> float:
        """Seconds that a URL signed now may live: `wanted`, or less when the credentials end sooner."""

    async def complete(self, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> None:
        """Assemble the parts. Any error leaves it in doubt; `ObjectStoreRefused.code` may be `NoSuchUpload`."""

    async def head(self, s3_key: str) -> ObjectInfo | None:
        """What is there under this key; None when nothing is."""

    async def list_parts(self, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
        """Part numbers and etags (without quotes) of a multipart upload; None when it is gone."""

    async def abort(self, s3_key: str, s3_upload_id: str) -> None:
        """Abort and see that no parts are left; fine when it is gone already."""

    async def delete(self, s3_key: str) -> None:
        """Delete an object; fine when it is gone already."""

    async def list_multipart(self, prefix: str) -> list[MultipartInfo]:
        """Every multipart upload in flight whose key begins with `prefix`."""

    async def multipart_size(self, s3_key: str, s3_upload_id: str) -> int:
        """Bytes in the parts of a multipart upload; 0 when it is gone."""

    async def lifecycle(self) -> Mapping[str, Any]:
        """The bucket's lifecycle configuration: `Rules`, and whatever else `set_lifecycle` must be given back."""

    async def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        """Replace the bucket's lifecycle configuration."""

    async def close(self) -> None:
        """Let go of everything."""
