"""The port `ObjectStore` over three real S3 servers: the same promises on each.

Rule: bytes are uploaded through presigned URLs, as agents send them; checks that a server ignores are not tested here.
"""

import asyncio
import hashlib
import io
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.services.errors import ObjectStoreRefused
from control_plane.services.ports.object_store import Grantable, ObjectStore
from control_plane.services.uploads.checksums import multipart_etag, object_etag
from schemas.values import DigestName
from tests.support.s3_servers import S3Server, put, start_moto, start_nanio
from tests.support.strict_s3 import start_strict

BUCKET = "backhaul-tests"
PART = 5 << 20


@pytest.fixture(scope="module", params=["nanio", "moto", "strict"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    directory: Path = tmp_path_factory.mktemp(request.param)
    match request.param:
        case "nanio":
            with start_nanio(directory) as started:
                yield started
        case "moto":
            with start_moto(directory) as started:
                yield started
        case _:
            with start_strict(directory) as strict:
                yield strict.s3


@pytest.fixture(scope="module")
def settings(server: S3Server) -> S3Settings:
    return S3Settings(
        bucket=BUCKET, access_key=server.access_key, secret_key=server.secret_key, endpoint=server.endpoint
    )


@pytest.fixture(scope="module")
def store(settings: S3Settings) -> Iterator[ObjectStore]:
    """One for all tests: it is not bound to an event loop."""
    made: ObjectStore = S3ObjectStore(settings)
    asyncio.run(made.ensure_bucket())
    yield made
    asyncio.run(made.close())


@pytest.fixture
def key() -> str:
    """A unique key, with characters that occur in names."""
    return f"uploads/gerät-1/{uuid.uuid4().hex} größe & Maß+1.bin"


def b64md5(body: bytes) -> str:
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def part_of(number: int, body: bytes) -> Grantable:
    return Grantable(number, len(body), b64md5(body), 60)


async def send_part(store: ObjectStore, key: str, s3_upload_id: str, number: int, body: bytes) -> str:
    answer = await put(store.presign_part(key, s3_upload_id, part_of(number, body), DigestName.MD5), body)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


async def test_parts_become_one_object_with_the_token(store: ObjectStore, key: str) -> None:
    bodies = [bytes([number]) * PART for number in (1, 2)] + [b"the rest"]
    s3_upload_id = await store.create_multipart(key, "token.1", DigestName.MD5)
    etags = {n: await send_part(store, key, s3_upload_id, n, body) for n, body in enumerate(bodies, 1)}
    listed = await store.list_parts(key, s3_upload_id)
    assert listed == {number: etag.strip('"') for number, etag in etags.items()}
    await store.complete(key, s3_upload_id, etags)
    info = await store.head(key)
    assert info is not None
    assert (info.size, info.metadata["backhaul-token"]) == (2 * PART + 8, "token.1")
    assert info.etag == multipart_etag([b64md5(body) for body in bodies])
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(store.presign_get(key, 60))).content == b"".join(bodies)


async def test_etags_without_quotes_complete_too(store: ObjectStore, key: str) -> None:
    """`list_parts` returns them without quotes, and a part with a lost response is known from there only."""
    s3_upload_id = await store.create_multipart(key, "token.1", DigestName.MD5)
    await send_part(store, key, s3_upload_id, 1, b"only")
    await store.complete(key, s3_upload_id, await store.list_parts(key, s3_upload_id) or {})
    info = await store.head(key)
    assert info is not None
    assert info.size == 4


@pytest.mark.parametrize("body", [b"", b"x", b"some more bytes"], ids=["empty", "one byte", "several"])
async def test_one_put_creates_the_whole_object(store: ObjectStore, key: str, body: bytes) -> None:
    grant = store.presign_object(key, "token.1", part_of(1, body), DigestName.MD5, once=True)
    assert (await put(grant, body)).status_code == 200
    info = await store.head(key)
    assert info is not None
    assert (info.size, info.etag, info.metadata) == (
        len(body),
        object_etag(b64md5(body)),
        {"backhaul-token": "token.1"},
    )


async def test_a_missing_object_and_a_missing_upload_are_none(store: ObjectStore, key: str) -> None:
    assert await store.head(key) is None
    assert await store.list_parts(key, "never-was") is None
    await store.abort(key, "never-was")
    await store.delete(key)


async def test_an_aborted_upload_accepts_no_part(store: ObjectStore, key: str) -> None:
    s3_upload_id = await store.create_multipart(key, "token.1", DigestName.MD5)
    grant = store.presign_part(key, s3_upload_id, part_of(1, b"late"), DigestName.MD5)
    assert (await put(grant, b"late")).status_code == 200
    await store.abort(key, s3_upload_id)
    assert await store.list_parts(key, s3_upload_id) is None
    # 404 where it is implemented; moto fails (500).
    assert (await put(grant, b"late")).status_code in {404, 500}
    assert await store.list_parts(key, s3_upload_id) is None
    await store.abort(key, s3_upload_id)


async def test_an_object_of_the_control_plane_is_stored_in_place_of_an_earlier_one(
    store: ObjectStore, key: str
) -> None:
    """From the start of the file, wherever it stands."""
    for content in (b"first", b"the second"):
        file = io.BytesIO(content)
        file.seek(3)
        await store.put(key, file)
    info = await store.head(key)
    assert info is not None
    assert info.size == len(b"the second")
    async with httpx.AsyncClient() as http:
        assert (await http.get(store.presign_get(key, 60))).content == b"the second"
    assert [await store.read(key, most) for most in (3, 10, 11)] == [b"the", b"the second", b"the second"]
    await store.put(key, io.BytesIO())
    assert await store.read(key, 5) == b""
    await store.delete(key)
    assert await store.read(key, 5) is None


async def test_a_deleted_object_is_gone(store: ObjectStore, key: str) -> None:
    await put(store.presign_object(key, "token", part_of(1, b"x"), DigestName.MD5, once=False), b"x")
    await store.delete(key)
    assert await store.head(key) is None
    await store.delete(key)


async def test_uploads_in_flight_are_listed_below_a_prefix(store: ObjectStore, key: str) -> None:
    s3_upload_id = await store.create_multipart(key, "token.1", DigestName.MD5)
    other = await store.create_multipart(f"elsewhere/{key}", "token.1", DigestName.MD5)
    found = [one for one in await store.list_multipart("uploads/") if one.s3_key == key]
    assert [one.s3_upload_id for one in found] == [s3_upload_id]
    assert not [one for one in await store.list_multipart("uploads/") if one.s3_upload_id == other]
    await store.abort(key, s3_upload_id)
    await store.abort(f"elsewhere/{key}", other)


async def test_initiated_is_an_instant(store: ObjectStore, settings: S3Settings, key: str) -> None:
    s3_upload_id = await store.create_multipart(key, "token.1", DigestName.MD5)
    (found,) = [one for one in await store.list_multipart(key) if one.s3_upload_id == s3_upload_id]
    # moto gives every upload the same instant in 2010.
    assert found.initiated_at == pytest.approx(time.time(), abs=10) or found.initiated_at < 1.3e9


async def test_missing_parts_are_rejected_with_a_code(store: ObjectStore, key: str) -> None:
    s3_upload_id = await store.create_multipart(key, "token.1", DigestName.MD5)
    await send_part(store, key, s3_upload_id, 1, b"only")
    with pytest.raises(ObjectStoreRefused) as caught:
        await store.complete(key, s3_upload_id, {1: f'"{"0" * 32}"'})
    assert caught.value.code == "InvalidPart"
    assert await store.list_parts(key, s3_upload_id) is not None


@pytest.mark.slow
async def test_parts_of_several_pages_are_all_listed(store: ObjectStore, key: str) -> None:
    s3_upload_id = await store.create_multipart(key, "token.1", DigestName.MD5)
    # Each by a connection of its own: one that is kept may be closed by the server while this machine stands still.
    async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        for number in range(1, 1103):
            # Not before: the last one would have expired on a busy machine.
            grant = store.presign_part(key, s3_upload_id, part_of(number, b"x"), DigestName.MD5)
            assert (await client.put(grant.url, content=b"x", headers=grant.headers)).status_code == 200
    listed = await store.list_parts(key, s3_upload_id)
    assert listed is not None
    assert sorted(listed) == list(range(1, 1103))


async def test_ensuring_an_existing_bucket_changes_nothing(store: ObjectStore, key: str) -> None:
    await put(store.presign_object(key, "token", part_of(1, b"x"), DigestName.MD5, once=False), b"x")
    await store.ensure_bucket()
    assert await store.head(key) is not None
