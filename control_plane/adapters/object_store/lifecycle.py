"""The bucket's lifecycle configuration: read whole, written whole.

Rule: PutBucketLifecycleConfiguration replaces everything (S3 API reference), so a caller reads before it
writes. Object stores without lifecycles handle these calls as if they were others (nanio 0.1.7), so the caller reads
afterwards too.
"""

import hashlib
from base64 import b64encode
from typing import Any, Final

from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError

from control_plane.adapters.object_store.clients import Bucket
from control_plane.adapters.object_store.errors import code_of, status_of

_KEPT: Final = ("Rules", "TransitionDefaultMinimumObjectSize")
_NOT_KNOWN: Final = frozenset({405, 501})
_SIGNING: Final = "before-sign.s3.PutBucketLifecycleConfiguration"
_CHECKSUMS: Final = ("x-amz-checksum-", "x-amz-sdk-checksum-")


def read(bucket: Bucket) -> dict[str, Any] | None:
    """The configuration as `write` takes it; without rules when there is none, None when there can be none.

    S3 has no empty configuration: a 200 without a rule is the answer to another call.
    """
    try:
        answer: Any = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)
    except ClientError as error:
        if code_of(error) == "NoSuchLifecycleConfiguration":
            return {"Rules": []}
        if status_of(error) in _NOT_KNOWN:
            return None
        raise
    return {name: answer[name] for name in _KEPT if answer.get(name)} if answer.get("Rules") else None


def write(bucket: Bucket, configuration: dict[str, Any]) -> None:
    """Replace the configuration, with Content-MD5: every object store takes it, and some take nothing else."""
    rules: Any = {"Rules": configuration["Rules"]}
    rest: Any = {name: value for name, value in configuration.items() if name != "Rules"}
    bucket.client.meta.events.register_first(_SIGNING, _bind_by_md5, unique_id=_SIGNING)
    bucket.client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration=rules, **rest)


def _bind_by_md5(request: AWSRequest, **_: object) -> None:
    """Replace botocore's checksum, which object stores of an older age refuse."""
    for name in [name for name in request.headers if name.lower().startswith(_CHECKSUMS)]:
        del request.headers[name]
    body: Any = request.body
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = b64encode(digest).decode()
