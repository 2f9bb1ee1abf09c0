"""A file of one part: one PUT by the client, one HEAD by the control plane, and one commit of both."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.errors import ObjectStoreDown, ObjectStoreRefused
from control_plane.services.policy import name_beside
from control_plane.services.ports.database import OutboxEntry, Records, Subject
from control_plane.services.ports.object_store import ObjectInfo, ObjectStoreCapabilities
from control_plane.services.uploads import outbox
from schemas.names import TOKEN_METADATA
from schemas.values import DigestName, WantedPart
from tests.support.fakes import OPERATOR, FakeObjects, Rig
from tests.support.uploads import md5_of

T = TypeVar("T")
SIZE = 1024 * 1024


async def offered(rig: Rig) -> Upload:
    """An upload of one part that was granted a PUT of the whole object."""
    rig.objects.capabilities = ObjectStoreCapabilities(object_digests=frozenset({DigestName.MD5}), if_none_match=True)
    await rig.engine.probe.probe()
    await rig.birth()
    view = await rig.trigger()
    wanted = (WantedPart(1, SIZE, md5_of(1)),)
    await rig.respond(rig.offer(view.upload.upload_id, file_size=SIZE, wanted_parts=wanted), sequence=1)
    return await rig.upload(view.upload.upload_id)


def put(rig: Rig, upload: Upload) -> None:
    """The client's PUT arrives."""
    rig.objects.objects[upload.s3_key] = ObjectInfo(SIZE, "etag", {TOKEN_METADATA: upload.object_token})


async def succeed(rig: Rig, upload: Upload) -> Upload:
    """The client reports success; returns the upload as it is then."""
    report = rig.offer(upload.upload_id, file_size=SIZE, wanted_parts=(), etags={1: '"e1"'})
    await rig.respond(report, "success", sequence=2)
    return await rig.upload(upload.upload_id)


def changes_of_state(rig: Rig) -> list[tuple[object, object]]:
    """Every change of a state, as logged."""
    return [(facts["was"], facts["state"]) for event, facts in rig.events if event == "upload.state"]


async def test_a_small_file_is_granted_one_put_where_the_digest_is_enforced() -> None:
    """One S3 request by the client, none to open; a short life, and the token in the URL's headers."""
    async with Rig() as rig:
        await offered(rig)
        grant = rig.last_grant()
        assert grant.lifetime == 300.0
        assert grant.urls[0].headers["if-none-match"] == "*"
        assert "create_multipart" not in rig.objects.calls


async def test_its_success_and_its_proof_are_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commits would make the client wait for both."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        saved: list[tuple[str, str]] = []
        save = MemoryDatabase.write

        async def noted(store: MemoryDatabase, work: Callable[[Records], T]) -> T:
            before = await store.read(lambda records: records.uploads.get(upload.key))
            result = await save(store, work)
            after = await store.read(lambda records: records.uploads.get(upload.key))
            if before != after and before and after:
                saved.append((before.state, after.state))
            return result

        monkeypatch.setattr(MemoryDatabase, "write", noted)
        done = await succeed(rig, upload)
        assert (done.state, done.parts[1].etag, done.error) == (State.COMPLETED, '"e1"', None)
        assert saved == [(State.IN_PROGRESS, State.COMPLETED)]
        assert rig.messenger.actions()[-1] == "close_upload"
        assert await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))) == []


async def test_the_success_alone_is_committed_while_the_object_store_is_away() -> None:
    """Its proof is a duty then, performed when the object store is back."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        rig.objects.fails = {"head": [ObjectStoreDown("503"), ObjectStoreDown("503 still")]}
        waiting = await succeed(rig, upload)
        assert (waiting.state, waiting.parts[1].etag) == (State.COMPLETING, '"e1"')
        assert (await rig.reason(upload.upload_id)).text == "503 still"
        await rig.settle(60)
        assert (await rig.upload(upload.upload_id)).state is State.COMPLETED


async def test_a_look_that_stays_refused_fails_the_upload() -> None:
    """With the message of the object store."""
    async with Rig() as rig:
        upload = await offered(rig)
        refused = ObjectStoreRefused("no HEAD for you", "AccessDenied")
        rig.objects.fails = {"head": [refused] * 99}
        assert (await succeed(rig, upload)).state is State.COMPLETING
        await rig.exhaust_setbacks()
        ended = await rig.upload(upload.upload_id)
        assert (ended.state, ended.error, ended.message) == (State.FAILED, "store_refused", "no HEAD for you")


async def test_a_success_without_an_object_is_a_new_attempt() -> None:
    """A bad result of the look is committed too, and the object is looked for again before the attempt is given up."""
    async with Rig() as rig:
        upload = await offered(rig)
        waiting = await succeed(rig, upload)
        assert (waiting.state, waiting.setbacks) == (State.COMPLETING, 1)
        await rig.exhaust_setbacks()
        again = await rig.upload(upload.upload_id)
        assert (again.attempt, again.parts) == (2, {})


async def test_a_cancel_during_the_look_wins() -> None:
    """The success then is one of an upload that is over, and the object is deleted."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        looking, seen = asyncio.Event(), asyncio.Event()
        head = FakeObjects.head

        async def slow(objects: FakeObjects, s3_key: str) -> ObjectInfo | None:
            looking.set()
            await seen.wait()
            return await head(objects, s3_key)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FakeObjects, "head", slow)
            assert (await succeed(rig, upload)).state is State.IN_PROGRESS
            assert looking.is_set()
            await succeed(rig, upload)
            await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
            seen.set()
            await rig.settle()
        assert rig.messenger.actions()[-1] == "close_upload", "it says that it is done, so it is released"
        after = await rig.upload(upload.upload_id)
        assert (after.state, after.client_busy) == (State.CANCELLED, False)
        assert (str(State.IN_PROGRESS), str(State.CANCELLED)) in changes_of_state(rig)
        await rig.settle(3600)
        assert rig.objects.objects == {}


async def test_a_success_is_repeated_after_a_crash_during_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was committed, so the client repeats its success, and the next process looks."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        with monkeypatch.context() as patch:
            patch.setattr(rig.engine.outbox, "perform", lambda _decision: None)
            assert (await succeed(rig, upload)).state is State.IN_PROGRESS
        assert (await succeed(rig, upload)).state is State.COMPLETED


async def test_a_fault_in_the_look_does_not_lose_the_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and the success is committed."""
    async with Rig() as rig:
        upload = await offered(rig)

        async def broken(_objects: FakeObjects, _key: str) -> ObjectInfo | None:
            message = "a planted fault"
            raise ValueError(message)

        monkeypatch.setattr(FakeObjects, "head", broken)
        assert (await succeed(rig, upload)).state is State.COMPLETING
        assert rig.counted("duty.fault") >= 1


async def never(_objects: FakeObjects, _key: str) -> ObjectInfo | None:
    """A store that does not answer."""
    await asyncio.Event().wait()
    return None


async def test_the_success_alone_is_committed_when_the_look_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is committed the step timer runs, and would fail an upload that is stored."""
    monkeypatch.setattr(outbox, "LONGEST_LOOK", 0.01)
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FakeObjects, "head", never)
            await succeed(rig, upload)
            await asyncio.sleep(0.05)
            await rig.settle()
            waiting = await rig.upload(upload.upload_id)
            assert (waiting.state, waiting.parts[1].etag) == (State.COMPLETING, '"e1"')
        assert rig.counted("duty.fault") == 0


@pytest.mark.parametrize("limit", ["MAX_AT_ONCE", "MAX_RUNNING", "MAX_RUNNING_OF_ONE"])
async def test_the_success_alone_is_committed_when_no_place_is_free(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """When every place is taken it is committed at once, and proven when one is free."""
    monkeypatch.setattr(outbox, limit, 1)
    async with Rig() as rig:
        first, second = await offered(rig), await offered(rig)
        for upload in (first, second):
            put(rig, upload)
        monkeypatch.setattr(FakeObjects, "head", never)
        assert (await succeed(rig, first)).state is State.IN_PROGRESS
        assert (await succeed(rig, second)).state is State.COMPLETING


async def test_a_failed_look_moves_no_other_duty(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier attempt's object is deleted when its URL is expired, and not before."""
    async with Rig() as rig:
        upload = await offered(rig)
        await succeed(rig, upload)
        await rig.exhaust_setbacks()
        assert (await rig.upload(upload.upload_id)).attempt == 2
        wanted = (WantedPart(1, SIZE, md5_of(1)),)
        offer = rig.offer(upload.upload_id, attempt=2, file_size=SIZE, wanted_parts=wanted)
        await rig.respond(offer, sequence=1)
        stray = next(entry for entry in await entries(rig, upload) if entry.duty.kind is Kind.DELETE_OBJECT)
        rig.objects.calls.clear()

        async def broken(objects: FakeObjects, _key: str) -> ObjectInfo | None:
            objects.calls.append("head")
            message = "a planted fault"
            raise ValueError(message)

        monkeypatch.setattr(FakeObjects, "head", broken)
        report = rig.offer(upload.upload_id, attempt=2, file_size=SIZE, wanted_parts=(), etags={1: '"e1"'})
        await rig.respond(report, "success", sequence=2)
        assert (await rig.upload(upload.upload_id)).state is State.COMPLETING
        assert rig.objects.calls == ["head", "head"], "once ahead, once as a duty"
        after = next(entry for entry in await entries(rig, upload) if entry.duty.kind is Kind.DELETE_OBJECT)
        assert after.due_at == stray.due_at


async def entries(rig: Rig, upload: Upload) -> list[OutboxEntry]:
    """The stored duties of an upload."""
    return list(await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))))


async def test_an_engine_that_does_not_perform_commits_the_success_and_leaves_its_proof() -> None:
    """A success must not wait for a look that is never taken."""
    async with Rig() as rig:
        upload = await offered(rig)
        async with Rig(database=rig.database, performs=False) as other:
            assert (await succeed(other, upload)).state is State.COMPLETING
            assert "head" not in other.objects.calls


@pytest.mark.parametrize(
    ("digest", "if_none_match", "one_put"),
    [(DigestName.MD5, True, True), (DigestName.MD5, False, False), (DigestName.SHA256, False, True)],
)
async def test_one_put_is_granted_only_where_no_other_bytes_can_replace_the_object(
    *,
    digest: DigestName,
    if_none_match: bool,
    one_put: bool,
) -> None:
    """Without `If-None-Match` the URL writes again, and a person can make two files with one MD5."""
    async with Rig() as rig:
        found = frozenset({digest})
        rig.objects.capabilities = ObjectStoreCapabilities(
            part_digests=found, object_digests=found, if_none_match=if_none_match
        )
        await rig.engine.probe.probe()
        await rig.birth()
        view = await rig.trigger()
        wanted = (WantedPart(1, SIZE, md5_of(1)),)
        await rig.respond(rig.offer(view.upload.upload_id, file_size=SIZE, wanted_parts=wanted), sequence=1)
        assert (await rig.upload(view.upload.upload_id)).one_put is one_put


async def test_a_key_is_spelled_with_safe_characters_where_others_are_refused() -> None:
    """The kind: a key is free text on a road of unequal decoders. The file's name stays with the object."""
    async with Rig() as rig:
        rig.objects.capabilities = ObjectStoreCapabilities(refused_characters="%ü")
        await rig.engine.probe.probe()
        await rig.birth()
        key = (await rig.trigger(file_path="/data/100%20 größe.bin")).upload.s3_key
        assert key.endswith("-100_20 gr__e.bin")
        assert name_beside(key, "/data/100%20 größe.bin") == "100%20 größe.bin"
