"""An upload through the running engine: what is committed, published and retried."""

import pytest

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import Proof, State
from control_plane.services.errors import (
    ObjectStoreDown,
    ObjectStoreRefused,
)
from control_plane.services.policy import Policy
from control_plane.services.ports.database import PARKED, Subject
from control_plane.services.ports.object_store import Grantable, ObjectStoreCapabilities
from schemas.codec import encode
from schemas.messages import UploadReport
from schemas.values import DigestName, PresignedPart
from tests.support.fakes import FakeObjects, Rig


async def test_an_upload_is_triggered_granted_proven_and_closed() -> None:
    """Trigger, command, offer, grant, success, proof, close."""
    async with Rig() as rig:
        upload = await rig.finished()
        assert (upload.state, upload.proof) == (State.COMPLETED, Proof.ACCEPTED)
        assert rig.messenger.actions() == ["download_file", "grant_parts", "close_upload"]
        assert await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))) == []


async def test_a_grant_has_every_requested_part_with_its_md5() -> None:
    """Each URL is bound to the offered bytes."""
    async with Rig() as rig:
        await rig.granted()
        grant = rig.last_grant()
        assert [part.part_number for part in grant.urls] == [1, 2, 3]
        assert all("content-md5" in part.headers for part in grant.urls)
        assert (grant.lifetime, grant.acknowledges) == (900.0, 1)


async def test_the_command_for_an_offline_client_is_published_when_it_connects() -> None:
    """Nothing is published before; the view has the reason."""
    async with Rig() as rig:
        await rig.birth()
        rig.clock.time += 100
        view = await rig.trigger()
        offline = Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline")
        assert (view.reason, view.upload.state) == (offline, State.QUEUED)
        assert view.next_wake_at == view.upload.deadline
        assert rig.messenger.actions() == []
        (task,) = await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(view.upload.key)))
        assert task.due_at == PARKED
        await rig.birth(epoch=2)
        assert rig.messenger.actions() == ["download_file"]
        assert (await rig.upload(view.upload.upload_id)).state is State.DISPATCHED


async def test_a_silent_client_gets_the_command_again_and_then_the_upload_fails() -> None:
    """Two repeats of the last command, then `no_progress`; beats keep it connected meanwhile."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        sent: list[list[str]] = []
        for round_ in (1, 2, 3):
            for beat in range(1, 12):
                rig.clock.time += 30
                await rig.birth(sequence=100 * round_ + beat)
            await rig.settle()
            sent.append(rig.messenger.actions())
        assert [actions.count("grant_parts") for actions in sent] == [1, 1, 0]
        assert (await rig.upload(upload.upload_id)).error == "no_progress"


async def test_time_offline_does_not_count_as_silence() -> None:
    """The step timer runs while the client is connected, from when it connected."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        for epoch in range(2, 7):
            await rig.settle(1000)
            await rig.birth(epoch=epoch)
            assert rig.messenger.actions() == ["grant_parts"]
        rig.clock.time += 200
        await rig.birth(epoch=7)
        await rig.settle(150)
        upload = await rig.upload(upload.upload_id)
        assert (upload.strikes, upload.state) == (0, State.IN_PROGRESS)


async def test_a_command_is_retried_while_the_broker_is_away() -> None:
    """The upload stays queued until the command is published."""
    async with Rig() as rig:
        await rig.birth()
        rig.messenger.down = True
        view = await rig.trigger()
        assert (await rig.upload(view.upload.upload_id)).state is State.QUEUED
        assert rig.counted("duty.again") == 1
        unsent = Reason(ReasonCode.BROKER_UNAVAILABLE, "the broker is away")
        assert await rig.reason(view.upload.upload_id) == unsent
        rig.messenger.down = False
        rig.clock.time += 40
        await rig.birth(epoch=2)
        await rig.settle(1)
        assert (await rig.upload(view.upload.upload_id)).state is State.DISPATCHED


async def test_a_call_is_retried_while_the_object_store_is_down() -> None:
    """CreateMultipartUpload and Complete alike."""
    async with Rig() as rig:
        rig.objects.fails = {"create_multipart": [ObjectStoreDown("503")], "complete": [ObjectStoreDown("slow")]}
        upload = await rig.granted()
        assert upload.s3_upload_id is None
        assert (await rig.reason(upload.upload_id)).text == "503"
        await rig.settle(60)
        upload = await rig.upload(upload.upload_id)
        assert upload.s3_upload_id == "s3-1"
        report = rig.offer(upload.upload_id, wanted_parts=(), etags={1: "a", 2: "b", 3: "c"})
        await rig.respond(report, "success", sequence=2)
        assert (await rig.upload(upload.upload_id)).state is State.COMPLETING
        await rig.settle(60)
        assert (await rig.upload(upload.upload_id)).state is State.COMPLETED


async def test_a_multipart_upload_that_stays_refused_fails_the_upload_with_its_message() -> None:
    """The device cannot repair it; an operator may, for minutes."""
    async with Rig() as rig:
        rig.objects.fails = {"create_multipart": [ObjectStoreRefused("NoSuchBucket: no", "NoSuchBucket")] * 99}
        upload = await rig.granted()
        assert upload.state is State.IN_PROGRESS
        assert await rig.reason(upload.upload_id) == Reason("object_store_refused", "NoSuchBucket: no")
        await rig.exhaust_setbacks()
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.error, upload.message) == (State.FAILED, "store_refused", "NoSuchBucket: no")
        await rig.birth(sequence=1)
        assert rig.messenger.actions()[-1] == "cancel_upload"


@pytest.mark.parametrize("error", [ObjectStoreDown("timeout"), ObjectStoreRefused("x", "NoSuchUpload")])
async def test_a_complete_that_succeeded_despite_its_error_is_success(
    error: ObjectStoreDown | ObjectStoreRefused,
) -> None:
    """HEAD shows the token and the size, so the error does not matter."""
    async with Rig() as rig:
        rig.objects.complete_then_fail = True
        rig.objects.fails = {"complete": [error]}
        assert (await rig.finished()).state is State.COMPLETED


async def test_a_lost_multipart_upload_is_a_new_attempt() -> None:
    """`NoSuchUpload`, and for minutes no object of this attempt."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.objects.multipart.clear()
        report = rig.offer(upload.upload_id, wanted_parts=(), etags={1: "a", 2: "b", 3: "c"})
        await rig.respond(report, "success", sequence=2)
        await rig.exhaust_setbacks()
        await rig.birth(sequence=1)
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.attempt) == (State.DISPATCHED, 2)


async def test_a_lost_multipart_upload_with_a_missing_etag_is_a_new_attempt() -> None:
    """A 412 left one empty, and nothing can be listed any more."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.objects.multipart.clear()
        report = rig.offer(upload.upload_id, wanted_parts=(), etags={1: "", 2: "b", 3: "c"})
        await rig.respond(report, "success", sequence=2)
        await rig.exhaust_setbacks()
        assert (await rig.upload(upload.upload_id)).attempt == 2


async def test_the_object_store_settles_a_success_from_a_tombstone() -> None:
    """The database was restored from a copy: the client has only a tombstone, the object has the token."""
    async with Rig() as rig:
        upload = await rig.granted()
        (s3_upload_id,) = rig.objects.multipart
        await rig.objects.complete(upload.s3_key, s3_upload_id, {1: "e1", 2: "e2", 3: "e3"})
        await rig.respond(UploadReport(upload_id=upload.upload_id, attempt=1), "success")
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.attempt) == (State.COMPLETED, 1)


async def test_a_success_from_a_tombstone_does_not_complete_an_upload_with_missing_parts() -> None:
    """An object made of some of the parts would be torn."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.objects.listed = {1: "e1", 3: "e3"}
        await rig.respond(UploadReport(upload_id=upload.upload_id, attempt=1), "success")
        await rig.exhaust_setbacks()
        upload = await rig.upload(upload.upload_id)
        assert (upload.attempt, upload.state) == (2, State.QUEUED)
        assert "complete" not in rig.objects.calls


async def test_an_object_of_another_size_is_a_new_attempt() -> None:
    """It is not the file."""
    async with Rig() as rig:
        rig.objects.object_size = 7
        upload = await rig.finished()
        assert upload.attempt == 2
        assert "7 bytes" in str(upload.reason)


async def test_a_wrong_object_is_deleted_and_its_key_is_not_used_again() -> None:
    """Otherwise the next attempt's object could be deleted in its place."""
    async with Rig() as rig:
        rig.objects.object_size = 7
        before = await rig.granted()
        report = rig.offer(before.upload_id, wanted_parts=(), etags={1: "a", 2: "b", 3: "c"})
        await rig.respond(report, "success", sequence=2)
        upload = await rig.upload(before.upload_id)
        assert upload.s3_key != before.s3_key
        await rig.settle(1)
        assert rig.objects.objects == {}
        assert (await rig.upload(before.upload_id)).strays == ()


async def test_an_upload_without_proof_fails_unless_the_size_is_enough() -> None:
    """`REQUIRE_PROOF`."""
    for require_proof, state in ((True, State.FAILED), (False, State.COMPLETED)):
        async with Rig(Policy(require_proof=require_proof)) as rig:
            rig.objects.capabilities = ObjectStoreCapabilities()
            await rig.engine.probe.probe()
            assert (await rig.finished()).state is state


async def test_an_etag_that_contradicts_the_digests_is_a_new_attempt() -> None:
    """The object store's ETag is an MD5, of other bytes."""
    async with Rig() as rig:
        rig.objects.capabilities = ObjectStoreCapabilities(etag_is_md5=True)
        await rig.engine.probe.probe()
        assert (await rig.finished()).attempt == 2


async def test_a_grant_is_filled_to_the_size_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client requests the rest again."""

    def long(_self: object, _key: str, _id: str, part: Grantable, _digest: object) -> PresignedPart:
        return PresignedPart(part.part_number, "http://s3/" + "x" * 40_000)

    monkeypatch.setattr(FakeObjects, "presign_part", long)
    async with Rig() as rig:
        await rig.granted()
        assert len(rig.last_grant().urls) == 2
        assert len(encode(rig.messenger.sent[-1][1])) < 128 * 1024


async def test_no_url_is_signed_while_the_clocks_differ() -> None:
    """The object store refuses a URL signed in the future; the upload waits, with that reason."""
    async with Rig() as rig:
        rig.objects.capabilities = ObjectStoreCapabilities(clock_skew=-600.0)
        with pytest.raises(ObjectStoreDown, match="set this machine's clock"):
            await rig.engine.probe.probe()
        upload = await rig.granted()
        assert "grant_parts" not in rig.messenger.actions()
        reason = (await rig.reason(upload.upload_id)).text
        assert "not probed" in reason or "clock" in reason
        rig.objects.capabilities = ObjectStoreCapabilities(part_digests=frozenset({DigestName.MD5}))
        await rig.engine.probe.probe()
        await rig.settle(60)
        assert "grant_parts" in rig.messenger.actions()
