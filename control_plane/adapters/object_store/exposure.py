"""Who may use the bucket without credentials.

Rule: blocking functions, as in `buckets`. What counts is an answer to a request without a signature; the object store's
own judgement is read as well, and an object store without the call has none.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from control_plane.adapters.object_store import buckets
from control_plane.adapters.object_store.clients import Bucket
from control_plane.adapters.object_store.errors import status_of
from control_plane.adapters.object_store.settings import S3Settings
from control_plane.services.ports.diagnosis import BucketFacts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_TIMEOUT: Final = 10
_REFUSED: Final = range(400, 500)
_OWN: Final = "access"


def look(bucket: Bucket, settings: S3Settings, addressing: str) -> BucketFacts:
    """Request one object, and the list of objects, without a signature.

    The object is one of the uploads. Where there is none yet, it is one byte in the folder of the probe, for a moment.
    """
    anyone = _unsigned(settings, addressing)
    found = _first_key(bucket, settings.uploads_prefix)
    key = found or f"{settings.probe_prefixes[0]}{_OWN}"
    own = found is None and _stored(bucket, key)
    try:
        return BucketFacts(
            readable=_allowed(lambda: anyone.get_object(Bucket=bucket.name, Key=key, Range="bytes=0-0"))
            if found or own
            else None,
            listable=_allowed(lambda: anyone.list_objects_v2(Bucket=bucket.name, MaxKeys=1)),
            policy_is_public=_policy_is_public(bucket),
            cors_rules=_cors_rules(bucket),
        )
    finally:
        if own:
            buckets.delete(bucket, key)
        anyone.close()


def _unsigned(settings: S3Settings, addressing: str) -> "S3Client":
    style: Any = {"addressing_style": addressing, "us_east_1_regional_endpoint": "regional"}
    config = Config(
        signature_version=UNSIGNED,
        s3=style,
        connect_timeout=_TIMEOUT,
        read_timeout=_TIMEOUT,
        retries={"total_max_attempts": 1},
    )
    session = boto3.session.Session(region_name=settings.region)
    return session.client("s3", endpoint_url=settings.endpoint, config=config)


def _first_key(bucket: Bucket, prefix: str) -> str | None:
    """A key of an upload that has bytes; None where there is none, or none may be listed."""
    try:
        found = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=prefix, MaxKeys=10)
    except ClientError:
        return None
    return next((one["Key"] for one in found.get("Contents", ()) if one.get("Size")), None)


def _stored(bucket: Bucket, key: str) -> bool:
    """Whether one byte is stored under `key` now: uploads need no right to write there."""
    try:
        buckets.put(bucket, key, io.BytesIO(b"x"))
    except ClientError:
        return False
    return True


def _allowed(call: Callable[[], object]) -> bool | None:
    """Whether the object store did it; None when it did not answer, or answered nothing that can be read."""
    try:
        call()
    except ClientError as error:
        return False if status_of(error) in _REFUSED else None
    except BotoCoreError:
        return None
    return True


def _policy_is_public(bucket: Bucket) -> bool | None:
    try:
        answer: Any = bucket.client.get_bucket_policy_status(Bucket=bucket.name)
    except (ClientError, BotoCoreError):
        return None
    public = answer.get("PolicyStatus", {}).get("IsPublic")
    return None if public is None else bool(public)


def _cors_rules(bucket: Bucket) -> int | None:
    try:
        answer: Any = bucket.client.get_bucket_cors(Bucket=bucket.name)
    except (ClientError, BotoCoreError):
        return None
    return len(answer.get("CORSRules", ()))
