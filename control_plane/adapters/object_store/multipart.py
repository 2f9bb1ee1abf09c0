"""The calls about multipart uploads: create, complete, list, abort.

Rule: blocking functions over one client, for a thread of the adapter. The caller translates what they raise.
"""

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from control_plane.adapters.object_store.clients import Bucket
from control_plane.adapters.object_store.errors import GONE, code_of
from control_plane.adapters.object_store.settings import encryption_options
from control_plane.services.errors import ObjectStoreDown
from control_plane.services.ports.object_store import MultipartInfo
from schemas.values import DigestName

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import PartTypeDef

ABORT_ROUNDS: Final = 8
"""A part in flight while its upload is aborted may be stored all the same (AbortMultipartUpload, API reference)."""

_ABORT_PAUSE: Final = 0.2
_CHECKSUMS: Final[Mapping[DigestName, Mapping[str, str]]] = {
    DigestName.SHA256: {"ChecksumAlgorithm": "SHA256"},
    # A full-object CRC-32 can be computed from the parts' own, and Complete then needs none of them.
    DigestName.CRC32: {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"},
}
_PART_CHECKSUMS: Final = ("ChecksumSHA256", "ChecksumCRC32")


def create(
    bucket: Bucket, s3_key: str, *, metadata: Mapping[str, str], digest: DigestName, encryption: str | None = None
) -> str:
    """Open a multipart upload; returns S3's upload id. `encryption` is that of `encryption_headers`."""
    options: dict[str, Any] = {**_CHECKSUMS.get(digest, {}), **encryption_options(encryption)}
    options["Metadata"] = dict(metadata)
    made = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=s3_key, **options)
    if not made.get("UploadId"):
        message = "CreateMultipartUpload: the response of the object store has no upload id"
        raise ObjectStoreDown(message)
    return made["UploadId"]


def complete(bucket: Bucket, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> str | None:
    """Assemble exactly these parts; `ObjectStoreDown` when the response does not confirm it.

    Returns the version of the object, if the bucket keeps versions.

    An upload with SHA-256 requires each part's checksum again. Only the object store has them, so they are listed
    when it rejects the first call; other uploads need no second call.
    """
    try:
        return _complete(bucket, s3_key, s3_upload_id, etags, {})
    except ClientError as error:
        if code_of(error) != "InvalidRequest":
            raise
        known = {part["PartNumber"]: _checksums(part) for part in _parts(bucket, s3_key, s3_upload_id)}
        if not any(known.values()):
            raise
        return _complete(bucket, s3_key, s3_upload_id, etags, known)


def list_parts(bucket: Bucket, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
    """Part numbers and etags without quotes; None when the upload is gone."""
    try:
        listed = list(_parts(bucket, s3_key, s3_upload_id))
    except ClientError as error:
        if code_of(error) in GONE:
            return None
        raise
    return {part["PartNumber"]: part["ETag"].strip('"') for part in listed}


def size(bucket: Bucket, s3_key: str, s3_upload_id: str) -> int:
    """Bytes in the parts that are stored; 0 when the upload is gone."""
    try:
        return sum(part["Size"] for part in _parts(bucket, s3_key, s3_upload_id))
    except ClientError as error:
        if code_of(error) in GONE:
            return 0
        raise


def abort(bucket: Bucket, s3_key: str, s3_upload_id: str) -> None:
    """Abort until no part is listed; `ObjectStoreDown` when parts keep appearing."""
    for round_number in range(ABORT_ROUNDS):
        try:
            bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=s3_key, UploadId=s3_upload_id)
        except ClientError as error:
            # Some object stores answer with another error when the upload was completed: the listing shows what is.
            if code_of(error) not in GONE and list_parts(bucket, s3_key, s3_upload_id) is not None:
                raise
        if not list_parts(bucket, s3_key, s3_upload_id):
            return
        time.sleep(_ABORT_PAUSE * (round_number + 1))
    message = f"AbortMultipartUpload: parts are still listed after {ABORT_ROUNDS} aborts"
    raise ObjectStoreDown(message)


def list_uploads(bucket: Bucket, prefix: str) -> list[MultipartInfo]:
    """Uploads in flight below `prefix`. Some object stores ignore it (nanio 0.1.7), so it is applied here too."""
    pages = bucket.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket.name, Prefix=prefix)
    return [
        MultipartInfo(upload["Key"], upload["UploadId"], upload["Initiated"].timestamp())
        for page in pages
        for upload in page.get("Uploads", ())
        if upload["Key"].startswith(prefix)
    ]


def _complete(
    bucket: Bucket, s3_key: str, s3_upload_id: str, etags: Mapping[int, str], checksums: Mapping[int, dict[str, str]]
) -> str | None:
    parts = [{"PartNumber": n, "ETag": etags[n], **checksums.get(n, {})} for n in sorted(etags)]
    manifest: Any = {"Parts": parts}
    response = bucket.client.complete_multipart_upload(
        Bucket=bucket.name, Key=s3_key, UploadId=s3_upload_id, MultipartUpload=manifest
    )
    if not response.get("ETag"):
        # S3 sends 200 before it has assembled anything; botocore takes an empty body for success.
        message = "CompleteMultipartUpload: the response of the object store has no ETag"
        raise ObjectStoreDown(message)
    return response.get("VersionId")


def _parts(bucket: Bucket, s3_key: str, s3_upload_id: str) -> Iterable["PartTypeDef"]:
    pages = bucket.client.get_paginator("list_parts").paginate(Bucket=bucket.name, Key=s3_key, UploadId=s3_upload_id)
    return (part for page in pages for part in page.get("Parts", ()))


def _checksums(part: Any) -> dict[str, str]:  # noqa: ANN401 - one of boto3's typed dictionaries, by computed keys
    return {name: part[name] for name in _PART_CHECKSUMS if part.get(name)}
