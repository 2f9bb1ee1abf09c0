"""The test servers compared: the same correct and wrong requests to nanio, moto and the strict double.

Rule: where a server is known to skip a check, the test expects that by its name, and fails once the server checks.
"""

import asyncio
import hashlib
import uuid
import zlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal

import httpx
import pytest

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.services.errors import ObjectStoreRefused
from control_plane.services.ports.object_store import Grantable
from schemas.values import DigestName, PresignedPart
from tests.support.s3_servers import S3Server, put, start_moto, start_nanio
from tests.support.strict_s3 import start_strict

pytestmark = pytest.mark.slow

Name = Literal["nanio", "moto", "strict"]

BODY: Final = b"the bytes that were granted"
OTHER: Final = b"the bytes that some thief has"
BUCKET: Final = "backhaul-doubles"


@pytest.fixture(scope="module", params=["nanio", "moto", "strict"])
def name(request: pytest.FixtureRequest) -> Name:
    known: Name = request.param
    return known


@pytest.fixture(scope="module")
def server(name: Name, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    directory = tmp_path_factory.mktemp(name)
    match name:
        case "strict":
            with start_strict(directory) as strict:
                yield strict.s3
        case "nanio":
            with start_nanio(directory) as started:
                yield started
        case "moto":
            with start_moto(directory) as started:
                yield started


@pytest.fixture(scope="module")
def store(server: S3Server) -> Iterator[S3ObjectStore]:
    keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    made = S3ObjectStore(S3Settings(bucket=BUCKET, endpoint=server.endpoint, **keys))
    asyncio.run(made.ensure_bucket())
    yield made
    asyncio.run(made.close())


@pytest.fixture
def key() -> str:
    return f"uploads/{uuid.uuid4().hex}"


def digest_of(digest: DigestName, body: bytes) -> str | None:
    match digest:
        case DigestName.MD5:
            raw = hashlib.md5(body, usedforsecurity=False).digest()
        case DigestName.SHA256:
            raw = hashlib.sha256(body).digest()
        case DigestName.CRC32:
            raw = zlib.crc32(body).to_bytes(4)
        case DigestName.NONE:
            return None
    return b64encode(raw).decode()


def granted(digest: DigestName = DigestName.NONE, body: bytes = BODY, *, number: int = 1) -> Grantable:
    return Grantable(number, len(BODY), digest_of(digest, body), 60)


async def part_grant(store: S3ObjectStore, key: str, digest: DigestName, body: bytes = BODY) -> PresignedPart:
    s3_upload_id = await store.create_multipart(key, "token", digest)
    return store.presign_part(key, s3_upload_id, granted(digest, body), digest)


# --- all agree --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", list(DigestName))
async def test_a_correct_part_is_accepted(store: S3ObjectStore, key: str, digest: DigestName) -> None:
    answer = await put(await part_grant(store, key, digest), BODY)
    assert answer.status_code == 200
    assert answer.headers["etag"] == f'"{hashlib.md5(BODY, usedforsecurity=False).hexdigest()}"'


@pytest.mark.parametrize("digest", list(DigestName))
async def test_a_correct_object_is_accepted(store: S3ObjectStore, key: str, digest: DigestName) -> None:
    grant = store.presign_object(key, "token", granted(digest), digest, once=True)
    assert (await put(grant, BODY)).status_code == 200
    info = await store.head(key)
    assert info is not None
    assert (info.size, info.metadata["backhaul-token"]) == (len(BODY), "token")


async def test_the_order_of_parts_is_kept(store: S3ObjectStore, key: str) -> None:
    s3_upload_id = await store.create_multipart(key, "token", DigestName.NONE)
    with pytest.raises(ObjectStoreRefused):
        await store.complete(key, s3_upload_id, {7: f'"{"0" * 32}"'})
    assert await store.list_parts(key, s3_upload_id) == {}


# --- some skip a check ------------------------------------------------------------------------------------------------

REFUSED: Final = {400, 403}


def tampered(url: str, old: str, new: str) -> str:
    assert old in url
    return url.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [("partNumber=1", "partNumber=2"), ("X-Amz-Expires=60", "X-Amz-Expires=6000"), ("uploads/", "uploads/x")],
    ids=["part", "expiry", "key"],
)
async def test_a_changed_url_is_rejected_except_by_moto(
    store: S3ObjectStore, name: Name, key: str, old: str, new: str
) -> None:
    grant = await part_grant(store, key, DigestName.NONE)
    answer = await put(replace_url(grant, tampered(grant.url, old, new)), BODY)
    if name == "moto":
        assert answer.status_code not in REFUSED
    else:
        assert answer.status_code == 403
        assert "SignatureDoesNotMatch" in answer.text


def replace_url(grant: PresignedPart, url: str) -> PresignedPart:
    return PresignedPart(grant.part_number, url, grant.headers)


@pytest.mark.parametrize("size", ["shorter", "longer"])
async def test_another_size_is_rejected_except_by_moto(store: S3ObjectStore, name: Name, key: str, size: str) -> None:
    body = BODY[:-1] if size == "shorter" else BODY + b"!"
    answer = await put(await part_grant(store, key, DigestName.NONE), body)
    assert answer.status_code == (200 if name == "moto" else 403)


@pytest.mark.slow
async def test_an_expired_url_is_rejected_except_by_moto(store: S3ObjectStore, name: Name, key: str) -> None:
    s3_upload_id = await store.create_multipart(key, "token", DigestName.NONE)
    grant = store.presign_part(key, s3_upload_id, replace(granted(), expires_in=1), DigestName.NONE)
    await asyncio.sleep(2.1)
    assert (await put(grant, BODY)).status_code == (200 if name == "moto" else 403)


@pytest.mark.parametrize("digest", [DigestName.MD5, DigestName.SHA256, DigestName.CRC32])
async def test_a_part_with_other_bytes_is_rejected_by_the_double_only(
    store: S3ObjectStore, name: Name, key: str, digest: DigestName
) -> None:
    answer = await put(await part_grant(store, key, digest, OTHER), BODY)
    assert answer.status_code == (400 if name == "strict" else 200)
    assert name != "strict" or "BadDigest" in answer.text


@pytest.mark.parametrize("digest", [DigestName.MD5, DigestName.SHA256, DigestName.CRC32])
async def test_an_object_with_other_bytes_is_rejected_where_digests_are_checked(
    store: S3ObjectStore, name: Name, key: str, digest: DigestName
) -> None:
    grant = store.presign_object(key, "token", granted(digest, OTHER), digest, once=False)
    looks = name == "strict" or (name == "nanio" and digest is DigestName.MD5)
    assert (await put(grant, BODY)).status_code == (400 if looks else 200)
    assert (await store.head(key) is None) is looks


async def test_a_second_put_is_rejected_except_by_nanio(store: S3ObjectStore, name: Name, key: str) -> None:
    grant = store.presign_object(key, "token", granted(), DigestName.NONE, once=True)
    assert (await put(grant, BODY)).status_code == 200
    assert (await put(grant, BODY)).status_code == (200 if name == "nanio" else 412)


async def test_an_unsigned_header_is_rejected_by_the_double_only(store: S3ObjectStore, name: Name, key: str) -> None:
    grant = await part_grant(store, key, DigestName.NONE)
    smuggled = PresignedPart(1, grant.url, {"x-amz-meta-backhaul-token": "mine"})
    assert (await put(smuggled, BODY)).status_code == (403 if name == "strict" else 200)


async def test_a_missing_signed_header_is_rejected_except_by_moto(store: S3ObjectStore, name: Name, key: str) -> None:
    grant = await part_grant(store, key, DigestName.MD5)
    assert (await put(PresignedPart(1, grant.url), BODY)).status_code == (200 if name == "moto" else 403)


async def test_small_parts_are_rejected_except_by_nanio(store: S3ObjectStore, name: Name, key: str) -> None:
    s3_upload_id = await store.create_multipart(key, "token", DigestName.NONE)
    for number in (1, 2):
        await put(store.presign_part(key, s3_upload_id, granted(number=number), DigestName.NONE), BODY)
    etags = await store.list_parts(key, s3_upload_id) or {}
    if name == "nanio":
        await store.complete(key, s3_upload_id, etags)
    else:
        with pytest.raises(ObjectStoreRefused) as caught:
            await store.complete(key, s3_upload_id, etags)
        assert caught.value.code == "EntityTooSmall"


async def test_a_second_complete_is_rejected_except_by_moto(store: S3ObjectStore, name: Name, key: str) -> None:
    grant = await part_grant(store, key, DigestName.NONE)
    s3_upload_id = next(one.s3_upload_id for one in await store.list_multipart(key))
    etags = {1: (await put(grant, BODY)).headers["etag"]}
    await store.complete(key, s3_upload_id, etags)
    if name == "moto":
        await store.complete(key, s3_upload_id, etags)
    else:
        with pytest.raises(ObjectStoreRefused) as caught:
            await store.complete(key, s3_upload_id, etags)
        assert caught.value.code == "NoSuchUpload"


async def test_an_unsigned_request_is_rejected_except_by_moto(server: S3Server, name: Name) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{server.endpoint}/{BUCKET}?list-type=2")
    assert answer.status_code == (200 if name == "moto" else 403)
