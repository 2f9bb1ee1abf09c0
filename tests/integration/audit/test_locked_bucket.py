"""Checkpoints in a bucket with Object Lock, on moto."""

import boto3
import pytest

from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.object_store.locked import LockedBucket
from control_plane.adapters.object_store.settings import S3Settings
from control_plane.services.errors import ObjectStoreDown
from tests.support.s3_servers import S3Server, moto

__all__ = ["moto"]


def settings(server: S3Server, bucket: str) -> S3Settings:
    return S3Settings(
        bucket=bucket,
        region=server.region,
        access_key=server.access_key,
        secret_key=server.secret_key,
        endpoint=server.endpoint,
    )


async def test_a_checkpoint_is_locked_until_its_time_is_over(moto: S3Server) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=moto.endpoint,
        region_name=moto.region,
        aws_access_key_id=moto.access_key,
        aws_secret_access_key=moto.secret_key,
    )
    client.create_bucket(Bucket="audit-locked", ObjectLockEnabledForBucket=True)
    clock = SystemClock()
    bucket = LockedBucket(settings(moto, "audit-locked"), clock, 86_400.0)
    await bucket.put("w-0", 42, "a note\n")
    found = client.get_object(Bucket="audit-locked", Key="audit/w-0/000000000042.note")
    assert found["Body"].read() == b"a note\n"
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert 86_000 < found["ObjectLockRetainUntilDate"].timestamp() - clock.now() < 86_800


async def test_a_bucket_that_is_missing_is_reported(moto: S3Server) -> None:
    with pytest.raises(ObjectStoreDown):
        await LockedBucket(settings(moto, "no-such-bucket"), SystemClock(), 86_400.0).put("w-0", 1, "a note\n")
