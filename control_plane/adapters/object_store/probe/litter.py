"""The objects and multipart uploads of probes, and their removal.

Rule: each item is removed by itself: when one cannot be removed, the others still are. What killed probes left is found
by its prefix and its age.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from control_plane.adapters.object_store import multipart
from control_plane.adapters.object_store.clients import Bucket
from control_plane.adapters.object_store.errors import GONE, code_of
from control_plane.services.errors import ServiceError

Item = TypeVar("Item")

ABANDONED: Final = 600.0
"""Seconds after which an object or a multipart upload of a probe belongs to no probe that still runs."""

_MOST: Final = 200
"""Items of killed probes that one probe removes."""


@dataclass
class Litter:
    """The objects and multipart uploads of one probe. Threads may add to it."""

    bucket: Bucket
    objects: set[tuple[str, str | None]] = field(default_factory=set)
    """Keys, with the version if the bucket keeps versions."""
    uploads: set[tuple[str, str]] = field(default_factory=set)
    """Keys and upload ids that are not completed."""

    def remove(self, pool: Executor) -> list[str]:
        """Remove everything; returns notes about what stays."""
        versioned = {key for key, version in self.objects if version is not None}
        # A DELETE without a version would leave a marker in its place.
        objects = [one for one in self.objects if one[1] is not None or one[0] not in versioned]
        jobs: list[Callable[[], None]] = [_job(_delete, self.bucket, *one) for one in objects]
        jobs += [_job(multipart.abort, self.bucket, *one) for one in self.uploads]
        left = [code for code in pool.map(_failure, jobs) if code]
        self.objects.clear()
        self.uploads.clear()
        if not left:
            return []
        return [
            f"{len(left)} objects of the probe stay ({', '.join(sorted(set(left)))}); a later probe writes over them."
        ]

    def remove_abandoned(self, prefix: str) -> None:
        """Remove what killed probes left below `prefix`, as far as these credentials can see it."""
        before = time.time() - ABANDONED
        for job in [*self._abandoned_uploads(prefix, before), *self._abandoned_objects(prefix, before)][:_MOST]:
            _failure(job)

    def _abandoned_uploads(self, prefix: str, before: float) -> list[Callable[[], None]]:
        found = _listed(lambda: multipart.list_uploads(self.bucket, prefix))
        return [
            _job(multipart.abort, self.bucket, one.s3_key, one.s3_upload_id)
            for one in found
            if one.initiated_at < before
        ]

    def _abandoned_objects(self, prefix: str, before: float) -> list[Callable[[], None]]:
        client, name = self.bucket.client, self.bucket.name
        pages = _listed(lambda: [client.list_objects_v2(Bucket=name, Prefix=prefix, MaxKeys=_MOST)])
        return [
            _job(_delete, self.bucket, one["Key"], None)
            for page in pages
            for one in page.get("Contents", ())
            if one["Key"].startswith(prefix) and one["LastModified"].timestamp() < before
        ]


def _job(work: Callable[..., None], *arguments: Any) -> Callable[[], None]:  # noqa: ANN401 - those of `work`
    return lambda: work(*arguments)


def _delete(bucket: Bucket, s3_key: str, version: str | None) -> None:
    """Delete one version, so that no marker stays in its place; without a version, the object."""
    if version is None:
        bucket.client.delete_object(Bucket=bucket.name, Key=s3_key)
        return
    try:
        bucket.client.delete_object(Bucket=bucket.name, Key=s3_key, VersionId=version)
    except ClientError:
        # The permission for versions is another one.
        bucket.client.delete_object(Bucket=bucket.name, Key=s3_key)


def _failure(job: Callable[[], None]) -> str:
    """Why the job failed; empty when it did not."""
    try:
        job()
    except ClientError as error:
        return "" if code_of(error) in GONE else code_of(error)
    except (ServiceError, BotoCoreError, OSError) as error:
        return type(error).__name__
    return ""


def _listed(look: Callable[[], Iterable[Item]]) -> list[Item]:
    """What a listing shows; nothing where these credentials, or this object store, do not list."""
    try:
        return list(look())
    except (ClientError, BotoCoreError, ServiceError, KeyError, ValueError):
        return []
