"""The benchmarks' object store: enough of S3 for boto3 and for the probe of the control plane.

Rule: the sink runs as a process, as in a benchmark.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.sink import COUNTS
from benchmarks.site import get, running_sink
from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.services.ports.object_store import Grantable
from schemas.values import DigestName
from tests.support.s3_servers import put


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_sink(tmp_path_factory.mktemp("sink")) as (_, url):
        yield url


def store_at(url: str) -> S3ObjectStore:
    return S3ObjectStore(S3Settings(bucket="bench", endpoint=url, access_key="a", secret_key="s"))


async def test_the_probe_finds_that_digests_are_enforced(url: str) -> None:
    store = store_at(url)
    seen = await store.probe()
    await store.close()
    assert seen.etag_is_md5
    assert seen.if_none_match
    assert {DigestName.MD5, DigestName.SHA256, DigestName.CRC32} <= seen.part_digests & seen.object_digests


async def test_a_multipart_upload_becomes_an_object_with_its_token(url: str, tmp_path: Path) -> None:
    store, key = store_at(url), f"uploads/{tmp_path.name}"
    body = bytes(3_000_000)
    upload_id = await store.create_multipart(key, "token.1", DigestName.NONE)
    grants = [
        store.presign_part(key, upload_id, Grantable(number, len(body), None, 60), DigestName.NONE) for number in (1, 2)
    ]
    before = get(url + COUNTS).split()
    answers = await asyncio.gather(*(put(grant, body) for grant in grants))
    await store.complete(key, upload_id, {number: answers[number - 1].headers["etag"] for number in (1, 2)})
    info = await store.head(key)
    after = get(url + COUNTS).split()
    await store.close()
    assert info is not None
    assert (info.size, info.metadata["backhaul-token"]) == (2 * len(body), "token.1")
    assert [int(after[at]) - int(before[at]) for at in (0, 2)] == [2, 2 * len(body)]


async def test_ids_of_multipart_uploads_are_never_used_again(url: str) -> None:
    """The kind: an id made of a number that falls. Two uploads side by side became one, and an object was missing."""
    store = store_at(url)
    first = await store.create_multipart("uploads/1", "token.1", DigestName.NONE)
    second = await store.create_multipart("uploads/2", "token.1", DigestName.NONE)
    await store.abort("uploads/1", first)
    third = await store.create_multipart("uploads/3", "token.1", DigestName.NONE)
    await store.abort("uploads/2", second)
    await store.abort("uploads/3", third)
    await store.close()
    assert len({first, second, third}) == 3


async def test_an_object_that_is_put_twice_is_counted(url: str, tmp_path: Path) -> None:
    store, key = store_at(url), f"uploads/{tmp_path.name}"
    grant = store.presign_object(key, "token.1", Grantable(1, 4, None, 60), DigestName.NONE, once=False)
    before = get(url + COUNTS).split()
    for _ in range(2):
        assert (await put(grant, b"four")).status_code == 200
    once = store.presign_object(key, "token.1", Grantable(1, 4, None, 60), DigestName.NONE, once=True)
    assert (await put(once, b"four")).status_code == 412
    after = get(url + COUNTS).split()
    await store.close()
    assert int(after[1]) - int(before[1]) == 1


async def test_a_chunked_body_with_a_trailer_is_counted_by_its_content(url: str, tmp_path: Path) -> None:
    """boto3 sends such a body over TLS; the second request on the same connection is read correctly."""
    store, key = store_at(url), f"uploads/{tmp_path.name}"
    grant = store.presign_object(key, "token.1", Grantable(1, 9, None, 60), DigestName.NONE, once=False)
    headers = {**grant.headers, "x-amz-decoded-content-length": "9", "Content-Encoding": "aws-chunked"}

    def chunks() -> Iterator[bytes]:
        yield b"5\r\nabcde\r\n4\r\nfghi\r\n0\r\n"
        yield b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n"

    def send() -> list[int]:
        with httpx.Client() as client:
            return [client.put(grant.url, headers=headers, content=chunks()).status_code for _ in range(2)]

    assert await asyncio.to_thread(send) == [200, 200]
    info = await store.head(key)
    await store.close()
    assert info is not None
    assert info.size == 9
