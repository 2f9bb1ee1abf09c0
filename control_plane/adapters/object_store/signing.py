"""URLs that grant one request each.

Rule: a URL for a part is bound to the part's size and digest, so whoever gets hold of it can only store the same
bytes again; it lives no longer than the credentials that signed it. Computation only, no request.
"""

import time
from typing import TYPE_CHECKING, Any, Final, Literal

from botocore.credentials import Credentials

from control_plane.services.errors import BadInput
from control_plane.services.ports import Grantable
from schemas.digests import raw_digest
from schemas.values import DigestName, PresignedPart

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TOKEN_METADATA: Final = "backhaul-token"  # noqa: S105 - the name of the header, not a secret
MAX_LIFETIME: Final = 7 * 86_400.0
"""SigV4's limit. A longer `X-Amz-Expires` is signed without complaint and refused by S3 (reliability.md section 5)."""

_PARAMETER: Final = {
    DigestName.MD5: ("ContentMD5", "content-md5"),
    DigestName.SHA256: ("ChecksumSHA256", "x-amz-checksum-sha256"),
    DigestName.CRC32: ("ChecksumCRC32", "x-amz-checksum-crc32"),
}


class Signer:
    """Signs for one bucket with one boto3 client, whose endpoint is the host in the URLs."""

    def __init__(self, client: "S3Client", bucket: str, credentials: Credentials | None) -> None:
        self._client = client
        self._bucket = bucket
        self._credentials = credentials

    def part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """UploadPart; `BadInput` when the part does not say the digest that it is to be bound to."""
        bound, headers = _bound(part, digest)
        params = {"Key": s3_key, "UploadId": s3_upload_id, "PartNumber": part.part_number, **bound}
        return PresignedPart(part.part_number, self._url("upload_part", params, part.expires_in), headers)

    def object(  # noqa: PLR0913 - the port's own signature, and whether the store wants to be asked to encrypt
        self, s3_key: str, token: str, part: Grantable, digest: DigestName, *, once: bool, encrypt: bool
    ) -> PresignedPart:
        """PutObject of the whole object with our token in its metadata."""
        params, headers = _bound(part, digest)
        params |= {"Key": s3_key, "Metadata": {TOKEN_METADATA: token}}
        headers |= {f"x-amz-meta-{TOKEN_METADATA}": token}
        if once:
            params, headers = params | {"IfNoneMatch": "*"}, headers | {"if-none-match": "*"}
        if encrypt:
            params |= {"ServerSideEncryption": "AES256"}
            headers |= {"x-amz-server-side-encryption": "AES256"}
        return PresignedPart(part.part_number, self._url("put_object", params, part.expires_in), headers)

    def get(self, s3_key: str, expires_in: float) -> str:
        """GetObject."""
        return self._url("get_object", {"Key": s3_key}, expires_in)

    def lifetime(self, wanted: float) -> float:
        """Seconds that a URL signed now may live."""
        # botocore has no public name for the end of temporary credentials; others have no such attribute.
        ends_at = getattr(self._credentials, "_expiry_time", None)
        remaining = MAX_LIFETIME if ends_at is None else ends_at.timestamp() - time.time()
        return max(0.0, min(wanted, remaining, MAX_LIFETIME))

    def _url(
        self, method: Literal["upload_part", "put_object", "get_object"], params: dict[str, Any], expires_in: float
    ) -> str:
        seconds = max(1, int(self.lifetime(expires_in)))
        return self._client.generate_presigned_url(method, {"Bucket": self._bucket, **params}, ExpiresIn=seconds)


def _bound(part: Grantable, digest: DigestName) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters that bind a request to its bytes, and the headers that the client then must send."""
    length = {"ContentLength": part.size}
    if digest is DigestName.NONE:
        return length, {}
    if part.digest is None or raw_digest(digest, part.digest) is None:
        message = f"part {part.part_number} is to be bound to its {digest}, but the digest is {part.digest!r}"
        raise BadInput(message)
    parameter, header = _PARAMETER[digest]
    return {**length, parameter: part.digest}, {header: part.digest}
