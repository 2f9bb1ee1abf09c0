"""Checkpoints of the audit in a bucket with Object Lock: until their time is over no one can change or delete them.

Rule: the bucket is another one than that of the uploads, made by its owner; this program only writes to it.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from control_plane.adapters.object_store.clients import build_clients
from control_plane.adapters.object_store.settings import S3Settings
from control_plane.services.errors import ObjectStoreDown
from control_plane.services.ports.clock import Clock

PREFIX: Final = "audit"


class LockedBucket:
    """Writes each checkpoint once, under `audit/WRITER/NUMBER.note`, locked for `kept_for` seconds."""

    def __init__(self, settings: S3Settings, clock: Clock, kept_for: float) -> None:
        style = "path" if settings.addressing == "auto" and settings.endpoint else settings.addressing
        self._bucket = build_clients(settings, style).calls
        self._clock = clock
        self._kept_for = kept_for

    async def put(self, writer: str, number: int, note: str) -> None:
        """`ObjectStoreDown` when it was not stored; a second one is another version of the object, locked too."""
        try:
            await asyncio.to_thread(self._put, f"{PREFIX}/{writer}/{number:012}.note", note.encode())
        except (BotoCoreError, Boto3Error, ClientError) as error:
            message = f"the bucket of the audit: {error}"
            raise ObjectStoreDown(message) from error

    def _put(self, s3_key: str, body: bytes) -> None:
        until = datetime.fromtimestamp(self._clock.now() + self._kept_for, UTC)
        self._bucket.client.put_object(
            Bucket=self._bucket.name,
            Key=s3_key,
            Body=body,
            ContentType="text/plain; charset=utf-8",
            ChecksumAlgorithm="SHA256",
            ObjectLockMode="COMPLIANCE",
            ObjectLockRetainUntilDate=until,
        )
