"""Presigned URLs, each for one request.

Rule: the URL of a part is bound to the part's size and digest, so it can only store the same bytes again; it expires no
later than the credentials that signed it. Computation only, no request.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from botocore.credentials import Credentials

from control_plane.adapters.object_store.settings import encryption_headers
from control_plane.adapters.object_store.sigv4 import QuerySigner, signer_for
from control_plane.services.errors import BadInput
from control_plane.services.ports.object_store import Grantable
from schemas.digests import raw_digest
from schemas.values import DigestName, PresignedPart

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_LIFETIME: Final = 7 * 86_400.0
"""SigV4's limit. A longer `X-Amz-Expires` is signed without an error and rejected by S3 (reliability.md section 5)."""

_HEADER: Final = {
    DigestName.MD5: "content-md5",
    DigestName.SHA256: "x-amz-checksum-sha256",
    DigestName.CRC32: "x-amz-checksum-crc32",
}
_NOTHING: Final[Mapping[str, str]] = {}


class Signer:
    """Signs for one bucket as one boto3 client addresses it; the client's endpoint is the host in the URLs."""

    def __init__(self, client: "S3Client", bucket: str, credentials: Credentials | None) -> None:
        self._client = client
        self._bucket = bucket
        self._credentials = credentials
        self._signer: QuerySigner | None = None

    def part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """UploadPart; `BadInput` when the part lacks the digest that it is to be bound to."""
        headers = _bound(part, digest)
        query = {"uploadId": s3_upload_id, "partNumber": str(part.part_number)}
        signed = {"content-length": str(part.size), **headers}
        url = self._url("PUT", s3_key, part.expires_in, query=query, headers=signed)
        return PresignedPart(part.part_number, url, headers)

    def object(
        self,
        s3_key: str,
        metadata: Mapping[str, str],
        part: Grantable,
        digest: DigestName,
        *,
        once: bool,
        encryption: str | None = None,
    ) -> PresignedPart:
        """PutObject of the whole object with this metadata; `encryption` is that of `encryption_headers`."""
        headers = {**_bound(part, digest), **{f"x-amz-meta-{name}": value for name, value in metadata.items()}}
        if once:
            headers["if-none-match"] = "*"
        headers |= encryption_headers(encryption)
        signed = {"content-length": str(part.size), **headers}
        url = self._url("PUT", s3_key, part.expires_in, headers=signed)
        return PresignedPart(part.part_number, url, headers)

    def get(self, s3_key: str, expires_in: float) -> str:
        """GetObject."""
        return self._url("GET", s3_key, expires_in)

    def lifetime(self, wanted: float) -> float:
        """Seconds that a URL signed now may live."""
        # botocore has no public name for the expiry of temporary credentials; other credentials lack the attribute.
        ends_at = getattr(self._credentials, "_expiry_time", None)
        remaining = MAX_LIFETIME if ends_at is None else ends_at.timestamp() - time.time()
        return max(0.0, min(wanted, remaining, MAX_LIFETIME))

    def _url(
        self,
        method: str,
        s3_key: str,
        expires_in: float,
        *,
        query: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
    ) -> str:
        signer = self._signer = self._signer or signer_for(self._client, self._bucket, self._credentials)
        seconds = max(1, int(self.lifetime(expires_in)))
        return signer.url(method, s3_key, query=query, headers=headers, expires=seconds)


def _bound(part: Grantable, digest: DigestName) -> dict[str, str]:
    """The headers that bind a request to its bytes; the client has to send them."""
    if digest is DigestName.NONE:
        return {}
    if part.digest is None or raw_digest(digest, part.digest) is None:
        message = f"part {part.part_number} is to be bound to its {digest}, but the digest is {part.digest!r}"
        raise BadInput(message)
    return {_HEADER[digest]: part.digest}
