"""The adapter with a failing object store: which calls are repeated, and which outcomes are in doubt.

Rule: faults are planted in the strict double; its log shows how often a request arrived and what it did.
"""

import asyncio
import hashlib
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.adapters.object_store import multipart as multipart_calls
from control_plane.services.errors import ObjectStoreDown, ObjectStoreForbids, ObjectStoreRefused
from control_plane.services.ports.object_store import Grantable
from control_plane.services.uploads.checksums import composite_checksum, full_object_crc32
from schemas.values import DigestName
from tests.support.s3_servers import put
from tests.support.strict_s3 import Fault, Kind, Operation, Options, StrictServer, start_strict

BUCKET: Final = "backhaul-fault-tests"
KEY: Final = "uploads/device/file.bin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictServer]:
    with start_strict(tmp_path_factory.mktemp("strict"), Options(min_part_size=1, page_size=3)) as started:
        yield started


@pytest.fixture
def strict(server: StrictServer) -> Iterator[StrictServer]:
    server.faults.clear()
    yield server
    server.faults.clear()


@pytest.fixture(scope="module")
def shared(server: StrictServer) -> Iterator[S3ObjectStore]:
    made = store_of(server)
    asyncio.run(made.ensure_bucket())
    yield made
    asyncio.run(made.close())


@pytest_asyncio.fixture
async def store(strict: StrictServer, shared: S3ObjectStore) -> S3ObjectStore:
    """One object store for all tests, emptied."""
    await shared.delete(KEY)
    for left in await shared.list_multipart(""):
        await shared.abort(left.s3_key, left.s3_upload_id)
    return shared


def store_of(server: StrictServer) -> S3ObjectStore:
    keys = {"access_key": server.s3.access_key, "secret_key": server.s3.secret_key}
    return S3ObjectStore(S3Settings(bucket=BUCKET, endpoint=server.s3.endpoint, **keys))


async def opened(store: S3ObjectStore, *bodies: bytes) -> tuple[str, dict[int, str]]:
    """A multipart upload with these parts stored."""
    s3_upload_id = await store.create_multipart(KEY, "token.1", DigestName.NONE)
    etags = {}
    for number, body in enumerate(bodies, 1):
        grant = store.presign_part(KEY, s3_upload_id, Grantable(number, len(body), None, 60), DigestName.NONE)
        etags[number] = (await put(grant, body)).headers["etag"]
    return s3_upload_id, etags


async def call(store: S3ObjectStore, operation: Operation, s3_upload_id: str, etags: dict[int, str]) -> None:
    """One call about a multipart upload."""
    match operation:
        case Operation.COMPLETE_MULTIPART_UPLOAD:
            await store.complete(KEY, s3_upload_id, etags)
        case Operation.LIST_PARTS:
            await store.list_parts(KEY, s3_upload_id)
        case _:
            await store.abort(KEY, s3_upload_id)


def requests_of(strict: StrictServer, operation: Operation, since: int) -> int:
    return sum(1 for event in strict.events if event.number > since and event.operation == operation)


def now(strict: StrictServer) -> int:
    return max((event.number for event in strict.events), default=0)


DOUBTFUL: Final[tuple[dict[str, Any], ...]] = (
    {"kind": Kind.ERROR_IN_200},
    {"kind": Kind.ERROR_IN_200, "done": True},
    {"kind": Kind.EMPTY_200},
    {"kind": Kind.EMPTY_200, "done": True},
    {"kind": Kind.ERROR, "status": 500},
    {"kind": Kind.ERROR, "status": 503, "code": "SlowDown", "done": True},
    {"kind": Kind.LOST_RESPONSE},
    {"kind": Kind.RESET},
)


@pytest.mark.parametrize("fault", DOUBTFUL, ids=lambda fault: "-".join(str(value) for value in fault.values()))
async def test_a_doubtful_complete_is_not_repeated_and_is_object_store_down(
    strict: StrictServer, store: S3ObjectStore, fault: dict[str, Any]
) -> None:
    s3_upload_id, etags = await opened(store, b"one", b"two")
    strict.faults.add(Fault(operation=Operation.COMPLETE_MULTIPART_UPLOAD, **fault))
    since = now(strict)
    with pytest.raises(ObjectStoreDown):
        await store.complete(KEY, s3_upload_id, etags)
    assert requests_of(strict, Operation.COMPLETE_MULTIPART_UPLOAD, since) == 1
    done = bool(fault.get("done")) or fault["kind"] is Kind.LOST_RESPONSE
    assert (await store.head(KEY) is not None) is done


@pytest.mark.parametrize("status", [400, 403, 404])
@pytest.mark.parametrize(
    "operation", [Operation.COMPLETE_MULTIPART_UPLOAD, Operation.LIST_PARTS, Operation.ABORT_MULTIPART_UPLOAD]
)
async def test_an_error_page_of_an_ingress_is_object_store_down(
    strict: StrictServer, store: S3ObjectStore, operation: Operation, status: int
) -> None:
    """As a response of the object store it would fail an upload, or leave one behind as if it were aborted."""
    s3_upload_id, etags = await opened(store, b"one")
    strict.faults.add(Fault(kind=Kind.PAGE, operation=operation, status=status))
    with pytest.raises(ObjectStoreDown, match=rf"answered {status}: .*: (check|these credentials)"):
        await call(store, operation, s3_upload_id, etags)
    assert await store.list_parts(KEY, s3_upload_id) == {1: etags[1].strip('"')}
    await store.complete(KEY, s3_upload_id, etags)


@pytest.mark.parametrize("there", [True, False])
async def test_a_404_of_an_ingress_for_a_head_is_object_store_down(
    strict: StrictServer, store: S3ObjectStore, *, there: bool
) -> None:
    """A HEAD has no body to recognise it by. As a missing object it would restart an upload that is complete."""
    if there:
        s3_upload_id, etags = await opened(store, b"one")
        await store.complete(KEY, s3_upload_id, etags)
    pages = [Fault(kind=Kind.PAGE, operation=one, status=404) for one in (Operation.HEAD_OBJECT, Operation.GET_OBJECT)]
    strict.faults.add(*pages)
    with pytest.raises(ObjectStoreDown, match="AWS_ENDPOINT"):
        await store.head(KEY)
    assert (await store.head(KEY) is not None) is there


async def test_an_object_that_appears_between_head_and_get_is_found(strict: StrictServer, store: S3ObjectStore) -> None:
    """So is one that only the HEAD did not reach, and an empty one, which has no first byte to request."""
    for body in (b"one", b""):
        s3_upload_id, etags = await opened(store, body)
        await store.complete(KEY, s3_upload_id, etags)
        strict.faults.clear()
        strict.faults.add(Fault(kind=Kind.PAGE, operation=Operation.HEAD_OBJECT, status=404))
        info = await store.head(KEY)
        assert info is not None
        assert info.size == len(body)


@pytest.mark.parametrize("operation", [Operation.COMPLETE_MULTIPART_UPLOAD, Operation.LIST_PARTS])
async def test_a_revoked_key_is_object_store_forbids(
    strict: StrictServer, store: S3ObjectStore, operation: Operation
) -> None:
    s3_upload_id, etags = await opened(store, b"one")
    strict.faults.add(Fault(kind=Kind.ERROR, operation=operation, status=403, code="InvalidAccessKeyId"))
    with pytest.raises(ObjectStoreForbids, match="AWS_ACCESS_KEY_ID"):
        await call(store, operation, s3_upload_id, etags)


async def test_a_second_complete_reports_a_missing_upload(store: S3ObjectStore) -> None:
    s3_upload_id, etags = await opened(store, b"one")
    await store.complete(KEY, s3_upload_id, etags)
    with pytest.raises(ObjectStoreRefused) as caught:
        await store.complete(KEY, s3_upload_id, etags)
    assert caught.value.code == "NoSuchUpload"


async def test_parts_below_the_minimum_are_rejected(tmp_path: Path) -> None:
    with start_strict(tmp_path) as picky:
        store = store_of(picky)
        await store.ensure_bucket()
        s3_upload_id, etags = await opened(store, b"one", b"two")
        with pytest.raises(ObjectStoreRefused) as caught:
            await store.complete(KEY, s3_upload_id, etags)
        await store.close()
    assert caught.value.code == "EntityTooSmall"


@pytest.mark.parametrize("fault", [{"kind": Kind.ERROR, "status": 500}, {"kind": Kind.LOST_RESPONSE}])
async def test_create_is_sent_once(strict: StrictServer, store: S3ObjectStore, fault: dict[str, Any]) -> None:
    """It is the only call that creates something each time it is sent."""
    strict.faults.add(Fault(operation=Operation.CREATE_MULTIPART_UPLOAD, **fault))
    since = now(strict)
    with pytest.raises(ObjectStoreDown):
        await store.create_multipart(KEY, "token.1", DigestName.MD5)
    assert requests_of(strict, Operation.CREATE_MULTIPART_UPLOAD, since) == 1


@pytest.mark.parametrize("kind", [Kind.ERROR, Kind.RESET])
async def test_idempotent_calls_are_repeated(strict: StrictServer, store: S3ObjectStore, kind: Kind) -> None:
    strict.faults.add(Fault(kind=kind, operation=Operation.HEAD_OBJECT, status=503, times=2))
    assert await store.head(KEY) is None


@pytest.mark.slow
async def test_an_object_store_that_stays_unreachable_is_down(strict: StrictServer, store: S3ObjectStore) -> None:
    strict.faults.add(Fault(kind=Kind.ERROR, operation=Operation.LIST_PARTS, status=503, code="SlowDown", times=99))
    with pytest.raises(ObjectStoreDown, match="SlowDown"):
        await store.list_parts(KEY, "id")


async def test_retry_after_is_passed_on(strict: StrictServer, store: S3ObjectStore) -> None:
    s3_upload_id, etags = await opened(store, b"one")
    strict.faults.add(
        Fault(
            kind=Kind.ERROR, operation=Operation.COMPLETE_MULTIPART_UPLOAD, status=503, code="SlowDown", retry_after=7
        )
    )
    with pytest.raises(ObjectStoreDown) as caught:
        await store.complete(KEY, s3_upload_id, etags)
    assert caught.value.retry_after == 7


async def test_an_abort_is_repeated_until_no_part_is_left(strict: StrictServer, store: S3ObjectStore) -> None:
    s3_upload_id, _ = await opened(store, b"one")
    strict.faults.add(Fault(kind=Kind.PRETEND, operation=Operation.ABORT_MULTIPART_UPLOAD, times=2))
    since = now(strict)
    await store.abort(KEY, s3_upload_id)
    assert await store.list_parts(KEY, s3_upload_id) is None
    assert requests_of(strict, Operation.ABORT_MULTIPART_UPLOAD, since) == 3


async def test_an_abort_gives_up_when_parts_keep_appearing(
    strict: StrictServer, store: S3ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart_calls, "_ABORT_PAUSE", 0.0)
    s3_upload_id, _ = await opened(store, b"one")
    strict.faults.add(Fault(kind=Kind.PRETEND, operation=Operation.ABORT_MULTIPART_UPLOAD, times=99))
    with pytest.raises(ObjectStoreDown, match="parts are still listed"):
        await store.abort(KEY, s3_upload_id)


async def test_listings_are_paged(store: S3ObjectStore) -> None:
    """The double returns three at a time."""
    s3_upload_id, etags = await opened(store, *(b"%d" % number for number in range(8)))
    assert sorted(await store.list_parts(KEY, s3_upload_id) or {}) == sorted(etags)
    more = [await store.create_multipart(f"{KEY}.{n}", "token", DigestName.NONE) for n in range(6)]
    assert {one.s3_upload_id for one in await store.list_multipart("uploads/")} == {s3_upload_id, *more}


async def test_sha256_parts_are_completed_with_their_checksums(store: S3ObjectStore) -> None:
    """The port passes etags only; the adapter lists the checksums when the object store requires them."""
    s3_upload_id = await store.create_multipart(KEY, "token.1", DigestName.SHA256)
    etags = {}
    digests = {body: b64encode(hashlib.sha256(body).digest()).decode() for body in (b"one", b"two")}
    for number, (body, digest) in enumerate(digests.items(), 1):
        grant = store.presign_part(KEY, s3_upload_id, Grantable(number, len(body), digest, 60), DigestName.SHA256)
        etags[number] = (await put(grant, body)).headers["etag"]
    await store.complete(KEY, s3_upload_id, etags)
    info = await store.head(KEY)
    assert info is not None
    assert info.checksums == {"sha256": composite_checksum(DigestName.SHA256, list(digests.values()))}


async def test_crc32_parts_have_one_checksum_of_the_whole_object(store: S3ObjectStore) -> None:
    parts = {body: b64encode(zlib.crc32(body).to_bytes(4)).decode() for body in (b"back", b"haul")}
    s3_upload_id = await store.create_multipart(KEY, "token.1", DigestName.CRC32)
    etags = {}
    for number, (body, digest) in enumerate(parts.items(), 1):
        grant = store.presign_part(KEY, s3_upload_id, Grantable(number, len(body), digest, 60), DigestName.CRC32)
        etags[number] = (await put(grant, body)).headers["etag"]
    await store.complete(KEY, s3_upload_id, etags)
    info = await store.head(KEY)
    assert info is not None
    assert info.checksums == {"crc32": full_object_crc32((digest, len(body)) for body, digest in parts.items())}


async def test_calls_do_not_wait_for_each_other(strict: StrictServer, store: S3ObjectStore) -> None:
    strict.faults.add(Fault(kind=Kind.HELD, operation=Operation.HEAD_OBJECT, key="*slow"))
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(store.head("slow"))
        async with asyncio.timeout(60):
            assert await store.head("quick") is None
        assert not slow.done()
        strict.faults.clear()
