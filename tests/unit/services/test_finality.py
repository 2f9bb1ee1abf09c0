"""Who decides that something is final: the owner, after it looked again for minutes.

Rule: only the test moves the clock, so a pause of minutes takes no time.
"""

from collections.abc import Mapping

import pytest

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import MAX_SETBACKS, State, Upload
from control_plane.services import object_store_probe
from control_plane.services.errors import ObjectStoreDown, ObjectStoreForbids, ObjectStoreRefused
from control_plane.services.ports.object_store import ObjectInfo, ObjectStoreCapabilities
from control_plane.services.uploads.checksums import multipart_etag
from schemas.names import TOKEN_METADATA
from schemas.values import DigestName
from tests.support.fakes import FakeObjects, Rig
from tests.support.uploads import md5_of


def hide_objects(monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """The first `looks` HEADs show no object, though there is one."""
    head, seen = FakeObjects.head, [0]

    async def hidden(objects: FakeObjects, s3_key: str) -> ObjectInfo | None:
        seen[0] += 1
        return None if seen[0] <= looks else await head(objects, s3_key)

    monkeypatch.setattr(FakeObjects, "head", hidden)


def drop_metadata(monkeypatch: pytest.MonkeyPatch, metadata: Mapping[str, str], etag: str = "opaque") -> None:
    """Every object has this metadata in place of what was sent."""
    complete = FakeObjects.complete

    async def dropping(objects: FakeObjects, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> None:
        await complete(objects, s3_key, s3_upload_id, etags)
        objects.objects[s3_key] = ObjectInfo(objects.object_size, etag, metadata)

    monkeypatch.setattr(FakeObjects, "complete", dropping)


async def test_an_object_that_is_shown_late_completes_the_first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind: attempts spent with no time between them. A cache answers 404, or a new object is visible late."""
    hide_objects(monkeypatch, looks=6)
    async with Rig() as rig:
        upload = await rig.finished()
        assert (upload.state, (await rig.reason(upload.upload_id)).code) == (
            State.COMPLETING,
            ReasonCode.OBJECT_NOT_VISIBLE,
        )
        rig.messenger.sent.clear()
        began = rig.clock.time
        while (await rig.upload(upload.upload_id)).state is State.COMPLETING:
            await rig.settle(1)
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.attempt, upload.strays) == (State.COMPLETED, 1, ())
        assert 30 < rig.clock.time - began < 130
        assert rig.messenger.actions() == ["close_upload"], "the device sends nothing again"


async def test_an_object_that_is_shown_after_its_attempt_was_given_up_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kind: what an attempt may have left is a stray until shown otherwise."""
    hide_objects(monkeypatch, looks=MAX_SETBACKS)
    async with Rig() as rig:
        first = await rig.finished()
        await rig.exhaust_setbacks()
        upload = await rig.upload(first.upload_id)
        assert (upload.attempt, [stray.s3_key for stray in upload.strays]) == (2, [first.s3_key])
        assert first.s3_key in rig.objects.objects
        await rig.settle(600)
        assert rig.objects.objects == {}
        assert (await rig.upload(first.upload_id)).strays == ()


async def test_the_multipart_upload_of_an_attempt_that_was_given_up_is_aborted_under_its_own_key() -> None:
    """The kind: a clean-up that takes the upload's key of today for the key of what it removes."""
    async with Rig() as rig:
        rig.objects.fails = {"complete": [ObjectStoreRefused("no", "InvalidPart")] * MAX_SETBACKS}
        first = await rig.finished()
        assert list(rig.objects.multipart) == [first.s3_upload_id]
        await rig.exhaust_setbacks()
        upload = await rig.upload(first.upload_id)
        assert (upload.attempt, upload.s3_key != first.s3_key, upload.litter) == (2, True, ())
        assert rig.objects.multipart == {}


async def ended_without_token(rig: Rig) -> Upload:
    """An upload whose object has no token; it is looked at until it fails."""
    upload = await rig.finished()
    assert upload.state is State.COMPLETING
    reason = await rig.reason(upload.upload_id)
    assert reason.code == ReasonCode.UNMARKED_OBJECT
    assert "drops the metadata of CreateMultipartUpload" in reason.text
    await rig.exhaust_setbacks()
    await rig.settle(600)
    upload = await rig.upload(upload.upload_id)
    assert (upload.state, upload.error, upload.attempt) == (State.FAILED, "object_without_token", 1)
    return upload


async def test_an_object_without_a_token_is_a_finding_of_its_own_and_does_not_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kind: a fault of the ground is not repaired by sending the file three times."""
    drop_metadata(monkeypatch, {}, multipart_etag([md5_of(number) for number in (1, 2, 3)]))
    async with Rig() as rig:
        rig.objects.capabilities = ObjectStoreCapabilities(frozenset({DigestName.MD5}), etag_is_md5=True)
        await rig.engine.probe.probe()
        await ended_without_token(rig)
        assert rig.objects.objects == {}


async def test_an_object_without_a_token_that_may_be_of_another_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing shows that this upload wrote it: its ETag does not depend on its bytes."""
    drop_metadata(monkeypatch, {})
    async with Rig() as rig:
        upload = await ended_without_token(rig)
        assert list(rig.objects.objects) == [upload.s3_key]
        assert "it was not removed" in (upload.message or "")


async def test_an_object_with_the_token_of_another_is_not_a_finding_but_waited_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drop_metadata(monkeypatch, {TOKEN_METADATA: "of another"})
    async with Rig() as rig:
        upload = await rig.finished()
        assert (await rig.reason(upload.upload_id)).code == ReasonCode.OBJECT_NOT_VISIBLE
        await rig.exhaust_setbacks()
        await rig.settle(600)
        assert (await rig.upload(upload.upload_id)).strays == ()
        assert upload.s3_key in rig.objects.objects


async def test_a_grant_waits_for_credentials_and_is_woken_by_the_probe_that_finds_them_good() -> None:
    """The kind: whether a refusal is final is decided by the side that holds the credentials."""
    expired = ObjectStoreForbids("HeadBucket: ExpiredToken: the session token has expired", "ExpiredToken")
    async with Rig() as rig:
        upload = await rig.granted()
        rig.objects.fails = {"probe": [expired]}
        with pytest.raises(ObjectStoreForbids):
            await rig.engine.probe.probe()
        text = "the object store answered 400 ExpiredToken"
        refused = rig.offer(upload.upload_id)
        await rig.respond(refused, "error", sequence=2, error="storage_refused", message=text)
        assert await rig.reason(upload.upload_id) == Reason("storage_refused", f"storage_refused: {text}")
        await rig.settle(60)
        rig.messenger.sent.clear()
        await rig.birth(sequence=1)
        await rig.respond(rig.offer(upload.upload_id), sequence=3)
        assert await rig.reason(upload.upload_id) == Reason(ReasonCode.OBJECT_STORE_REFUSED, str(expired))
        await rig.settle()
        assert rig.messenger.actions() == []
        await rig.engine.probe.probe()
        await rig.settle()
        assert rig.messenger.actions() == ["grant_parts"]
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.attempt, upload.setbacks) == (State.IN_PROGRESS, 1, 1)


async def test_the_first_grant_is_woken_by_the_first_good_probe() -> None:
    """The kind: what waits for a condition is woken by it, not by a timer."""
    async with Rig() as rig:
        probe = rig.engine.probe
        rig.objects.fails = {"probe": [ObjectStoreDown("503")]}
        with pytest.raises(ObjectStoreDown):
            await probe.probe()
        probe._seen = None
        upload = await rig.granted()
        assert (await rig.reason(upload.upload_id)).text == "503"
        assert "grant_parts" not in rig.messenger.actions()
        await probe.probe()
        await rig.settle()
        assert rig.messenger.actions() == ["grant_parts"]


async def test_a_command_is_woken_by_the_broker_that_is_back() -> None:
    async with Rig() as rig:
        await rig.birth()
        rig.messenger.down = True
        upload = (await rig.trigger()).upload
        await rig.settle()
        assert (await rig.reason(upload.upload_id)).code == ReasonCode.BROKER_UNAVAILABLE
        rig.messenger.down = False
        await rig.settle()
        assert rig.messenger.actions() == ["download_file"]


async def test_a_duty_that_began_before_the_condition_was_met_is_not_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failure is stored after the entries were woken, so that nothing would wake it again."""
    async with Rig() as rig:
        create, probe = FakeObjects.create_multipart, rig.engine.probe

        async def slow(
            objects: FakeObjects, s3_key: str, token: str, digest: DigestName, *, file_name: str | None = None
        ) -> str:
            if "create_multipart" in objects.calls:
                return await create(objects, s3_key, token, digest, file_name=file_name)
            objects.calls.append("create_multipart")
            probe.failure = None
            rig.engine.outbox.poke()
            await rig.settle()
            message = "503, before the object store was back"
            raise ObjectStoreDown(message)

        probe.failure = "503"
        await rig.settle()
        monkeypatch.setattr(FakeObjects, "create_multipart", slow)
        upload = await rig.granted()
        for _ in range(3):
            await rig.settle()
        assert (await rig.upload(upload.upload_id)).s3_upload_id == "s3-1"


async def test_a_refusal_that_a_device_reports_makes_the_control_plane_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not more often than once in a while, for a device may report as often as it likes."""
    monkeypatch.setattr(object_store_probe, "SOONEST", 0.0)
    async with Rig() as rig:
        upload = await rig.granted()
        probe = rig.engine.probe
        probe._asked.clear()
        await rig.respond(rig.offer(upload.upload_id), "error", sequence=2, error="storage_refused")
        assert probe._asked.is_set()
        probe._asked.clear()
        monkeypatch.setattr(object_store_probe, "SOONEST", 30.0)
        probe.look_again()
        assert not probe._asked.is_set()


async def test_a_clean_up_that_is_refused_is_no_setback_of_its_upload() -> None:
    async with Rig() as rig:
        upload = await rig.granted()
        rig.objects.fails = {"abort": [ObjectStoreRefused("no", "InvalidRequest")]}
        await rig.respond(rig.offer(upload.upload_id), "error", sequence=2, error="source_changed")
        await rig.settle(100)
        upload = await rig.upload(upload.upload_id)
        assert (upload.attempt, upload.setbacks, len(upload.litter)) == (2, 0, 1)
