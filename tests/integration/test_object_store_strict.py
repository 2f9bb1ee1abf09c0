"""The strict double fails exactly as planted, and its log shows what really happened.

Rule: requests are plain HTTP; test_object_store_faults tests the adapter with these faults.
"""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import pytest
import pytest_asyncio

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.services.errors import ObjectStoreForbids
from control_plane.services.ports.object_store import Grantable
from schemas.values import DigestName, PresignedPart
from tests.support.patience import came_true
from tests.support.s3_servers import S3Server, put
from tests.support.strict_s3 import (
    Fault,
    Kind,
    Operation,
    Options,
    Quirk,
    StoreEvent,
    StrictServer,
    read_events,
    received,
    start_strict,
    start_strict_process,
)

BUCKET: Final = "backhaul-strict"
KEY: Final = "uploads/file.bin"
BODY: Final = bytes(range(256)) * 4096
MD5: Final = b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[StrictServer]:
    with start_strict(tmp_path) as server:
        yield server


def store_of(server: S3Server) -> S3ObjectStore:
    keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    return S3ObjectStore(S3Settings(bucket=BUCKET, endpoint=server.endpoint, **keys))


@pytest_asyncio.fixture
async def store(strict: StrictServer) -> AsyncIterator[S3ObjectStore]:
    made = store_of(strict.s3)
    await made.ensure_bucket()
    yield made
    await made.close()


@pytest.fixture
def grant(store: S3ObjectStore) -> PresignedPart:
    return store.presign_object(KEY, "token", Grantable(1, len(BODY), MD5, 60), DigestName.MD5, once=False)


def plant(strict: StrictServer, kind: Kind, **how: float) -> None:
    strict.faults.add(Fault(**{"kind": kind, "operation": Operation.PUT_OBJECT, **how}))  # type: ignore[arg-type]


async def seen(condition: Callable[[], object]) -> bool:
    """Whether a condition became true in the double, which runs in another thread."""
    return await asyncio.to_thread(came_true, condition, 20, 0.02)


async def test_a_planted_error_has_its_retry_after_and_its_count(strict: StrictServer, grant: PresignedPart) -> None:
    strict.faults.add(Fault(kind=Kind.ERROR, status=503, code="SlowDown", retry_after=3, nth=2, times=1))
    answers = [await put(grant, BODY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 503, 200]
    assert (answers[1].headers["retry-after"], "SlowDown" in answers[1].text) == ("3", True)


async def test_a_reset_in_the_middle_stores_nothing(strict: StrictServer, grant: PresignedPart) -> None:
    plant(strict, Kind.RESET, at_byte=100_000)
    with pytest.raises(httpx.TransportError):
        await put(grant, BODY)
    event = list(strict.events)[-1]
    assert event.outcome == "reset"
    assert 100_000 <= event.received < len(BODY)
    assert not event.done
    assert KEY not in strict.storage.buckets[BUCKET].objects


async def test_a_stall_ends_in_a_reset(strict: StrictServer, grant: PresignedPart) -> None:
    plant(strict, Kind.STALL, at_byte=1, seconds=0.2)
    with pytest.raises(httpx.TransportError):
        await put(grant, BODY)


async def test_a_lost_response_was_executed(strict: StrictServer, grant: PresignedPart) -> None:
    plant(strict, Kind.LOST_RESPONSE)
    with pytest.raises(httpx.TransportError):
        await put(grant, BODY)
    assert strict.storage.object(BUCKET, KEY).read() == BODY
    assert list(strict.events)[-1].done


async def test_a_held_response_waits_until_the_faults_are_cleared(strict: StrictServer, grant: PresignedPart) -> None:
    plant(strict, Kind.HELD)
    held = asyncio.create_task(put(grant, BODY))
    assert await seen(lambda: KEY in strict.storage.buckets[BUCKET].objects)
    done, _ = await asyncio.wait([held], timeout=0.3)
    assert done == set()
    strict.faults.clear()
    assert (await held).status_code == 200


async def test_a_response_without_an_etag(strict: StrictServer, grant: PresignedPart) -> None:
    plant(strict, Kind.NO_ETAG)
    answer = await put(grant, BODY)
    assert (answer.status_code, "etag" in answer.headers) == (200, False)


async def test_a_byte_corrupted_at_rest_shows_only_when_it_is_read(strict: StrictServer, grant: PresignedPart) -> None:
    plant(strict, Kind.CORRUPT_STORED, at_byte=70_000)
    answer = await put(grant, BODY)
    assert answer.headers["etag"] == f'"{hashlib.md5(BODY, usedforsecurity=False).hexdigest()}"'
    stored = strict.storage.object(BUCKET, KEY).read()
    assert [index for index, (one, two) in enumerate(zip(stored, BODY, strict=True)) if one != two] == [70_000]


async def test_a_byte_corrupted_in_transit_is_rejected(strict: StrictServer, grant: PresignedPart) -> None:
    plant(strict, Kind.CORRUPT_RECEIVED, at_byte=70_000)
    answer = await put(grant, BODY)
    assert (answer.status_code, "BadDigest" in answer.text) == (400, True)


async def test_bytes_of_failed_requests_are_counted(strict: StrictServer, grant: PresignedPart) -> None:
    plant(strict, Kind.ERROR)
    await put(grant, BODY)
    await put(grant, BODY)
    assert received(strict.events, "PutObject", KEY) == 2 * len(BODY)
    assert [event.outcome for event in strict.events][-2:] == ["InternalError", "ok"]
    assert read_events(strict.events.path) == list(strict.events)


async def test_a_client_that_stops_sending_gets_request_timeout(strict: StrictServer, grant: PresignedPart) -> None:
    strict.app.options = replace(strict.app.options, idle_timeout=0.3)

    async def dribble() -> AsyncIterator[bytes]:
        yield BODY[:100]
        await asyncio.Event().wait()

    headers = {**grant.headers, "content-length": str(len(BODY))}
    async with httpx.AsyncClient(trust_env=False) as client:
        sending = asyncio.create_task(client.put(grant.url, content=dribble(), headers=headers))
        event = await logged_put(strict)
        sending.cancel()
        await asyncio.wait([sending])
    assert event.outcome == "RequestTimeout"


async def logged_put(strict: StrictServer) -> StoreEvent:
    """The line of a PUT, once it is written."""
    assert await seen(lambda: list(strict.events)[-1].operation == Operation.PUT_OBJECT)
    return list(strict.events)[-1]


async def test_a_client_that_disconnects_is_logged(strict: StrictServer, store: S3ObjectStore) -> None:
    body = bytes(32 << 20)  # more than the sockets in between can hold
    grant = store.presign_object(KEY, "token", Grantable(1, len(body), None, 60), DigestName.NONE, once=False)
    plant(strict, Kind.SLOW, bytes_per_second=5e6)
    sending = asyncio.create_task(put(grant, body))
    blobs = strict.s3.directory / "blobs"
    assert await seen(lambda: any(blob.stat().st_size for blob in blobs.iterdir()))
    sending.cancel()
    await asyncio.wait([sending])
    event = await logged_put(strict)
    assert sending.cancelled()
    assert (event.outcome, event.done) == ("disconnected", False)
    assert 0 < event.received < len(body)


async def test_ranges_are_served(store: S3ObjectStore, strict: StrictServer, grant: PresignedPart) -> None:
    await put(grant, BODY)
    async with httpx.AsyncClient(trust_env=False) as client:
        for asked, wanted in (
            ("bytes=10-19", BODY[10:20]),
            ("bytes=-5", BODY[-5:]),
            ("bytes=1048570-", BODY[1048570:]),
        ):
            answer = await client.get(store.presign_get(KEY, 60), headers={"range": asked})
            assert (answer.status_code, answer.content) == (206, wanted)
        beyond = await client.get(store.presign_get(KEY, 60), headers={"range": "bytes=9999999-"})
    assert beyond.status_code == 416


async def test_bytes_can_be_discarded(tmp_path: Path) -> None:
    with start_strict(tmp_path, Options(keep_bytes=False)) as server:
        store = store_of(server.s3)
        await store.ensure_bucket()
        grant = store.presign_object(KEY, "token", Grantable(1, len(BODY), MD5, 60), DigestName.MD5, once=False)
        assert (await put(grant, BODY)).status_code == 200
        info = await store.head(KEY)
        await store.close()
    assert info is not None
    assert (info.size, info.etag) == (len(BODY), hashlib.md5(BODY, usedforsecurity=False).hexdigest())
    assert list((tmp_path / "blobs").iterdir()) == []


async def test_a_separate_process_is_controlled_over_http(tmp_path: Path) -> None:
    server, control = start_strict_process(tmp_path)
    with server:
        store = store_of(server)
        await store.ensure_bucket()
        control.add(Fault(kind=Kind.ERROR, operation=Operation.PUT_OBJECT, status=500, times=2))
        grant = store.presign_object(KEY, "token", Grantable(1, len(BODY), MD5, 60), DigestName.MD5, once=False)
        assert (await put(grant, BODY)).status_code == 500
        control.clear()
        assert (await put(grant, BODY)).status_code == 200
        events = control.events()
        await store.close()
    assert [event.fault for event in events if event.operation == "PutObject"] == ["error", None]
    assert read_events(tmp_path / "events.jsonl") == events


async def test_a_quirk_can_be_turned_on_and_off(strict: StrictServer, grant: PresignedPart) -> None:
    """Each is off until a test asks for it."""
    statuses = []
    for quirks in (set(), {Quirk.TOKEN_ENDED}, {Quirk.LOCK_WANTS_DIGEST, Quirk.CONTINUE_UNASKED, Quirk.ETAG_NOT_MD5}):
        strict.quirks.clear()
        strict.quirks.update(quirks)
        statuses.append((await put(grant, BODY)).status_code)
    assert statuses == [200, 400, 200]


async def test_a_proxy_is_in_the_way_of_other_hosts_only(strict: StrictServer, grant: PresignedPart) -> None:
    """The signature of a request that a proxy changed is wrong."""
    server = replace(strict.s3, endpoint=strict.s3.endpoint.replace("127.0.0.1", "localhost"))
    public = store_of(server)
    through_proxy = public.presign_object(KEY, "token", Grantable(1, len(BODY), MD5, 60), DigestName.MD5, once=False)
    for quirk in (Quirk.PROXY_STRIPS_MD5, Quirk.PROXY_STRIPS_METADATA, Quirk.PROXY_REWRITES_HOST):
        strict.quirks.clear()
        strict.quirks.add(quirk)
        assert [(await put(one, BODY)).status_code for one in (grant, through_proxy)] == [200, 403]
    await public.close()


async def test_a_double_in_another_process_takes_quirks_too(tmp_path: Path) -> None:
    server, control = start_strict_process(tmp_path)
    try:
        other = store_of(server)
        await other.ensure_bucket()
        control.behave(Quirk.NO_LIST_PERMISSION)
        with pytest.raises(ObjectStoreForbids):
            await other.head(KEY)
        control.behave()
        assert await other.head(KEY) is None
        await other.close()
    finally:
        server.stop()
