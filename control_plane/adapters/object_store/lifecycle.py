"""The bucket's lifecycle configuration: read whole, written whole.

Rule: PutBucketLifecycleConfiguration replaces everything (S3 API reference), so a caller reads before it
writes. Object stores without lifecycles handle these calls as if they were others (nanio 0.1.7), so the caller reads
afterwards too.
"""

from typing import Any

from botocore.exceptions import ClientError

from control_plane.adapters.object_store.clients import Bucket
from control_plane.adapters.object_store.errors import code_of

_KEPT = ("Rules", "TransitionDefaultMinimumObjectSize")


def read(bucket: Bucket) -> dict[str, Any]:
    """The configuration as `write` takes it; without rules when there is none."""
    try:
        answer: Any = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)
    except ClientError as error:
        if code_of(error) != "NoSuchLifecycleConfiguration":
            raise
        return {"Rules": []}
    return {"Rules": [], **{name: answer[name] for name in _KEPT if answer.get(name)}}


def write(bucket: Bucket, configuration: dict[str, Any]) -> None:
    """Replace the configuration."""
    rules: Any = {"Rules": configuration["Rules"]}
    rest: Any = {name: value for name, value in configuration.items() if name != "Rules"}
    bucket.client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration=rules, **rest)
