"""The calls about the bucket and about whole objects.

Rule: blocking functions over one client, for a thread of the adapter. The caller translates what they raise.
"""

from collections.abc import Mapping
from typing import IO, Any, Final

from botocore.exceptions import ClientError

from control_plane.adapters.object_store import lifecycle
from control_plane.adapters.object_store.clients import Bucket
from control_plane.adapters.object_store.errors import GONE, GONE_BY_HEAD, code_of, status_of
from control_plane.adapters.object_store.settings import encryption_options
from control_plane.services.lifecycle_rule import with_our_rule
from control_plane.services.ports.object_store import ObjectInfo

_LEFT_TO_PROBE: Final = frozenset({400, 403})
_DEFAULT_REGION: Final = "us-east-1"
_CHECKSUMS: Final[Mapping[str, str]] = {
    "ChecksumCRC32": "crc32",
    "ChecksumCRC32C": "crc32c",
    "ChecksumCRC64NVME": "crc64nvme",
    "ChecksumSHA1": "sha1",
    "ChecksumSHA256": "sha256",
}


def ensure(bucket: Bucket, region: str, prefix: str) -> tuple[str, ...]:
    """Create the bucket when it is missing: private, and with the lifecycle rule for uploads below `prefix`.

    Returns notes for the operator.

    A bucket that HEAD may not read (403) is left to the probe: access to the prefix of the uploads is enough. So is a
    HEAD that is wrong (400): its answer has no code, and the probe's PUT has one.
    """
    try:
        bucket.client.head_bucket(Bucket=bucket.name)
    except ClientError as error:
        if status_of(error) in _LEFT_TO_PROBE:
            return ()
        if code_of(error) not in {*GONE_BY_HEAD, "NoSuchBucket"}:
            raise
        return _create(bucket, region, prefix)
    return ()


def head(bucket: Bucket, s3_key: str) -> ObjectInfo | None:
    """The object of this key. `checksums` have the algorithm's lower-case name; composite ones end in `-N`."""
    try:
        found: Any = bucket.client.head_object(Bucket=bucket.name, Key=s3_key, ChecksumMode="ENABLED")
    except ClientError as error:
        if code_of(error) in GONE_BY_HEAD:
            return None
        raise
    size = found.get("ContentLength")
    return ObjectInfo(
        size=_size(bucket, s3_key) if size is None else size,
        etag=found.get("ETag", "").strip('"'),
        metadata={name.lower(): value for name, value in found.get("Metadata", {}).items()},
        encryption="customer" if found.get("SSECustomerAlgorithm") else found.get("ServerSideEncryption"),
        checksums={name: found[field] for field, name in _CHECKSUMS.items() if found.get(field)},
    )


def read(bucket: Bucket, s3_key: str, most: int, *, or_denied: bool = False) -> bytes | None:
    """The first `most` bytes of an object; None when it is missing, `or_denied` as for `is_missing`."""
    try:
        found = bucket.client.get_object(Bucket=bucket.name, Key=s3_key)
    except ClientError as error:
        if code_of(error) in GONE or (or_denied and code_of(error) == "AccessDenied"):
            return None
        raise
    with found["Body"] as body:
        # No `Range`: an empty object has none, and what the object store sends beyond `most` is not read.
        content: bytes = body.read(most)
        return content


def is_missing(bucket: Bucket, s3_key: str, *, or_denied: bool = False) -> bool:
    """Whether GET confirms that the object does not exist: unlike a HEAD, its response contains the error code.

    With `or_denied`, `AccessDenied` confirms it too.
    """
    try:
        found = bucket.client.get_object(Bucket=bucket.name, Key=s3_key, Range="bytes=0-0")
    except ClientError as error:
        if code_of(error) in GONE or (or_denied and code_of(error) == "AccessDenied"):
            return True
        if code_of(error) == "InvalidRange":
            # An empty object has no first byte.
            return False
        raise
    found["Body"].close()
    return False


def _size(bucket: Bucket, s3_key: str) -> int:
    """The size (bytes) from the answer to a GET of one byte, for object stores that show none at HEAD."""
    try:
        found = bucket.client.get_object(Bucket=bucket.name, Key=s3_key, Range="bytes=0-0")
    except ClientError as error:
        if code_of(error) == "InvalidRange":
            # An empty object has no first byte.
            return 0
        raise
    with found["Body"] as body:
        _, _, whole = found.get("ContentRange", "").rpartition("/")
        if whole.isdecimal():
            return int(whole)
        # Without a range in its answer this is the whole object.
        return sum(map(len, body.iter_chunks()))


def put(bucket: Bucket, s3_key: str, content: IO[bytes], *, encryption: str | None = None) -> None:
    """Store an object of at most 5 GiB in one request. `encryption` is that of `encryption_headers`."""
    content.seek(0)
    options: Any = encryption_options(encryption)
    bucket.client.put_object(Bucket=bucket.name, Key=s3_key, Body=content, **options)


def delete(bucket: Bucket, s3_key: str) -> None:
    """Delete an object. If it does not exist, S3 responds with 204, some object stores with 404."""
    try:
        bucket.client.delete_object(Bucket=bucket.name, Key=s3_key)
    except ClientError as error:
        if code_of(error) not in GONE:
            raise


def _create(bucket: Bucket, region: str, prefix: str) -> tuple[str, ...]:
    # us-east-1 is the only region that must not be named (CreateBucket, API reference).
    where: Any = {} if region == _DEFAULT_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        bucket.client.create_bucket(Bucket=bucket.name, **where)
    except ClientError as error:
        if code_of(error) != "BucketAlreadyOwnedByYou":
            raise
        return ()
    return (
        f"The bucket {bucket.name} was created. {_block_public_access(bucket)}",
        *_add_lifecycle_rule(bucket, prefix),
    )


def _add_lifecycle_rule(bucket: Bucket, prefix: str) -> tuple[str, ...]:
    """What stays incomplete is aborted by the object store, where it has such rules."""
    try:
        if (before := lifecycle.read(bucket)) is None:
            return ()
        lifecycle.write(bucket, dict(with_our_rule(before, prefix)))
    except ClientError as error:
        return (f"The bucket has no lifecycle rule ({code_of(error)}): see `backhaul doctor`.",)
    return ()


def _block_public_access(bucket: Bucket) -> str:
    """Block public access where the object store can; nanio handles this call as if it were CreateBucket."""
    block: Any = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    try:
        bucket.client.put_public_access_block(Bucket=bucket.name, PublicAccessBlockConfiguration=block)
    except ClientError as error:
        return f"The object store has no public access block ({code_of(error)}); a bucket without a policy is private."
    return "Public access to it is blocked."
