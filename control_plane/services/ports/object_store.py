"""The object store, as the services use it.

Rule: a refusal raises `ObjectStoreRefused`, an outage `ObjectStoreDown`; no exception of a library leaves an adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final, Protocol

from schemas.values import DigestName, PresignedPart

_STRONGEST_FIRST: Final = (DigestName.SHA256, DigestName.MD5, DigestName.CRC32)
_MD5_FIRST: Final = (DigestName.MD5, DigestName.SHA256, DigestName.CRC32)


@dataclass(frozen=True, slots=True)
class ObjectStoreCapabilities:
    """What the object store does, as found by a probe (protocol.md section 5).

    `part_digests` and `object_digests` are the digests that it verifies on UploadPart and on PutObject;
    `etag_is_md5`: an ETag is the MD5 of the bytes, or of the parts' MD5s. `if_none_match`: a conditional request never
    overwrites. `clock_skew` is its clock minus this machine's (s), None when it sends no date. `usable_digests` are
    those that it takes on UploadPart, enforced or not. `asks_encryption` is the encryption that each object requests.
    `refused_characters`: classes that no key may have (`policy.CLASSES`). `missing_is_forbidden`: for a missing key it
    answers 403.
    """

    part_digests: frozenset[DigestName] = frozenset()
    object_digests: frozenset[DigestName] = frozenset()
    usable_digests: frozenset[DigestName] = frozenset()
    etag_is_md5: bool = False
    if_none_match: bool = False
    encrypts: bool = False
    clock_skew: float | None = None
    asks_encryption: str | None = None
    refused_characters: str = ""
    missing_is_forbidden: bool = False
    notes: tuple[str, ...] = ()

    @property
    def one_put_digests(self) -> frozenset[DigestName]:
        """The digests under which one PutObject is safe: through its URL no other bytes can replace the object.

        An object store without `If-None-Match` lets the same URL write again, and other bytes can have the same MD5.
        """
        return self.object_digests if self.if_none_match else self.object_digests & {DigestName.SHA256}

    def digest_for(self, wanted: DigestName | None) -> DigestName:
        """The digest that binds a new upload's URLs: `wanted` if it is enforced, else the strongest that is.

        Where none is enforced, one that is taken; MD5 before others, since Content-MD5 is part of S3 since its first
        day, and does no harm to an object store that ignores it. A digest that works comes before `none`.
        """
        if wanted is DigestName.NONE:
            return wanted
        if wanted is not None and wanted in self.part_digests:
            return wanted
        taken = self.usable_digests or {DigestName.MD5}
        if wanted is DigestName.MD5 and wanted in taken:
            return wanted
        enforced = [one for one in _STRONGEST_FIRST if one in self.part_digests]
        return next(iter([*enforced, *(one for one in _MD5_FIRST if one in taken)]), DigestName.MD5)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The answer to HEAD. `metadata` has lower-case names; `etag` is without quotes."""

    size: int
    etag: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    encryption: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MultipartInfo:
    """One multipart upload that is neither completed nor aborted."""

    s3_key: str
    s3_upload_id: str
    initiated_at: float


@dataclass(frozen=True, slots=True)
class Grantable:
    """What one URL is bound to: the part, its size in bytes and digest; it is valid for `expires_in` seconds."""

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
        """Find out what the object store enforces, with test objects under the prefix that are deleted again."""

    async def create_multipart(
        self, s3_key: str, token: str, digest: DigestName, *, file_name: str | None = None
    ) -> str:
        """Open a multipart upload; its object will have `token`. Returns S3's upload id. Not idempotent.

        `file_name` is kept in the object's metadata; it is for a key that could not have the name.
        """

    def presign_part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """A URL for one part, bound to its size and digest. No request is made."""

    def presign_object(
        self,
        s3_key: str,
        token: str,
        part: Grantable,
        digest: DigestName,
        *,
        once: bool,
        file_name: str | None = None,
    ) -> PresignedPart:
        """A URL that creates the whole object; with `once` it never overwrites one (`If-None-Match: *` is signed)."""

    def presign_get(self, s3_key: str, expires_in: float) -> str:
        """A URL to read an object with."""

    def url_lifetime(self, wanted: float) -> float:
        """Seconds for which a URL signed now is valid: `wanted`, or less when the credentials expire sooner."""

    async def complete(self, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> None:
        """Assemble the parts. After an error the result is unknown; `ObjectStoreRefused.code` may be `NoSuchUpload`."""

    async def head(self, s3_key: str) -> ObjectInfo | None:
        """The object under this key; None without one."""

    async def list_parts(self, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
        """Part numbers and etags (without quotes) of a multipart upload; None when it does not exist."""

    async def abort(self, s3_key: str, s3_upload_id: str) -> None:
        """Abort, and verify that no parts are left; no error when it does not exist."""

    async def put(self, s3_key: str, content: IO[bytes]) -> None:
        """Store an object of the control plane itself, in place of an earlier one; reads `content` from its start."""

    async def read(self, s3_key: str, most: int) -> bytes | None:
        """The first `most` bytes of an object; None without one."""

    async def delete(self, s3_key: str) -> None:
        """Delete an object; no error when it does not exist."""

    async def list_multipart(self, prefix: str) -> list[MultipartInfo]:
        """Every multipart upload in progress under `prefix`."""

    async def multipart_size(self, s3_key: str, s3_upload_id: str) -> int:
        """Bytes in the parts of a multipart upload; 0 when it does not exist."""

    async def lifecycle(self) -> Mapping[str, Any] | None:
        """The bucket's lifecycle configuration: `Rules`, and all else that `set_lifecycle` has to keep.

        None when the object store has no lifecycle rules at all.
        """

    async def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        """Replace the bucket's lifecycle configuration."""

    async def close(self) -> None:
        """Close all connections."""
