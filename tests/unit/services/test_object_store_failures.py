"""What an upload does when the store does not do as it is asked: wait and say why, or end and say why.

Rule: what may pass is waited out until the deadline; what cannot pass ends the upload at once.
"""

import pytest

from control_plane.domain.reasons import Reason, WaitCode
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.errors import ObjectStoreDown, ObjectStoreForbids, ObjectStoreRefused
from control_plane.services.ports.database import Subject
from control_plane.services.uploads.completion import Completion, Settled
from control_plane.services.uploads.views import UploadView
from schemas.codec import encode
from schemas.messages import CurrentUpload, Status
from schemas.topics import Channel
from tests.support.fakes import CLIENT, OPERATOR, Rig

REVOKED = ObjectStoreForbids("CompleteMultipartUpload: InvalidAccessKeyId", "InvalidAccessKeyId")


async def sent(rig: Rig) -> Upload:
    """An upload of which the client says that every part is stored."""
    upload = await rig.granted()
    report = rig.offer(upload.upload_id, wanted_parts=(), etags={1: "a", 2: "b", 3: "c"})
    await rig.respond(report, "success", sequence=2)
    return await rig.upload(upload.upload_id)


async def seen(rig: Rig, upload: Upload) -> UploadView:
    return await rig.engine.upload_service.upload(OPERATOR, upload.upload_id)


@pytest.mark.parametrize("method", ["complete", "head"])
async def test_a_key_that_is_revoked_for_a_while_costs_an_upload_that_is_stored_nothing(method: str) -> None:
    """Forty gigabytes are at the store; somebody rotates the key."""
    async with Rig() as rig:
        rig.objects.complete_then_fail = method == "head"
        rig.objects.fails = {method: [REVOKED] * 4}
        upload = await sent(rig)
        assert (upload.state, upload.attempt) == (State.COMPLETING, 1)
        assert "InvalidAccessKeyId" in (await rig.reason(upload.upload_id)).text
        for _ in range(6):
            await rig.settle(400)
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.attempt, upload.error) == (State.COMPLETED, 1, None)
        assert rig.counted("duty.again") == 4


async def test_a_key_that_stays_revoked_ends_the_upload_after_its_deadline() -> None:
    """In `completing` the deadline waits for the store's word; that it has none is one."""
    async with Rig() as rig:
        rig.objects.fails = {"complete": [REVOKED] * 99}
        upload = await sent(rig)
        await rig.settle(400)
        assert (await rig.upload(upload.upload_id)).state is State.COMPLETING
        await rig.settle(upload.deadline - rig.clock.time + 1)
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.error, upload.message) == (State.FAILED, "store_refused", str(REVOKED))


async def test_an_upload_that_may_not_be_opened_waits_and_says_so() -> None:
    """CreateMultipartUpload under a key that was revoked: nothing is lost yet."""
    async with Rig() as rig:
        denied = ObjectStoreForbids("CreateMultipartUpload: AccessDenied", "AccessDenied")
        rig.objects.fails = {"create_multipart": [denied, denied]}
        upload = await rig.granted()
        assert (upload.state, upload.s3_upload_id) == (State.IN_PROGRESS, None)
        assert (await rig.reason(upload.upload_id)).text == str(denied)
        await rig.settle(60)
        await rig.settle(60)
        assert (await rig.upload(upload.upload_id)).s3_upload_id == "s3-1"
        assert (await rig.reason(upload.upload_id)).text != str(denied)


async def test_a_client_that_waits_for_us_is_not_the_reason() -> None:
    """It says that it waits for URLs; why it gets none is the answer to who asks."""
    async with Rig() as rig:
        denied = ObjectStoreForbids("CreateMultipartUpload: AccessDenied", "AccessDenied")
        rig.objects.fails = {"create_multipart": [denied, denied]}
        upload = await rig.granted()
        waits = CurrentUpload(upload.upload_id, reason="waiting for the owner to grant the next parts")
        await rig.hear(Channel.STATUS, encode(Status("waiting", CLIENT, uploads=(waits,))))
        assert (await rig.upload(upload.upload_id)).reason == Reason(WaitCode.CLIENT_REPORTED, waits.reason or "")
        assert (await rig.reason(upload.upload_id)).text == str(denied)
        await rig.settle(40)
        await rig.settle(40)
        assert (await rig.upload(upload.upload_id)).s3_upload_id == "s3-1"
        assert (await rig.reason(upload.upload_id)).text == waits.reason


async def test_what_the_store_will_never_do_ends_the_upload_with_its_words() -> None:
    """No key makes parts larger."""
    async with Rig() as rig:
        rig.objects.fails = {"complete": [ObjectStoreRefused("InvalidRequest: no", "InvalidRequest")]}
        upload = await sent(rig)
        assert (upload.state, upload.error, upload.message) == (State.FAILED, "store_refused", "InvalidRequest: no")


async def test_what_waits_for_the_store_is_not_said_to_wait_for_its_client_or_for_its_deadline() -> None:
    """The client has done its part, and a deadline ends nothing that is completing."""
    async with Rig() as rig:
        rig.objects.fails = {"complete": [ObjectStoreDown("503 SlowDown")] * 99}
        upload = await sent(rig)
        await rig.settle(100)
        client = await rig.engine.client_service.client(OPERATOR, upload.client_id)
        assert client.waiting_for(rig.clock.time) == Reason(WaitCode.CLIENT_OFFLINE, "the client is offline")
        assert (await rig.reason(upload.upload_id)).text == "503 SlowDown"
        rig.clock.time = upload.deadline - 1
        await rig.settle()
        view = await seen(rig, upload)
        assert view.upload.state is State.COMPLETING
        assert view.next_wake_at is not None
        assert view.next_wake_at > upload.deadline


async def test_a_fault_of_ours_is_told_and_tried_again_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence for ever, every half minute, is what it would be else."""

    async def faulty(_self: Completion, _upload: Upload) -> Settled:
        message = "what nobody thought of"
        raise RuntimeError(message)

    async with Rig() as rig:
        with monkeypatch.context() as patch:
            patch.setattr(Completion, "settle", faulty)
            upload = await sent(rig)
            view = await seen(rig, upload)
            assert (view.upload.state, rig.counted("duty.fault")) == (State.COMPLETING, 1)
            reason = await rig.reason(upload.upload_id)
            assert (reason.code, "RuntimeError" in reason.text) == (WaitCode.INTERNAL, True)
            assert "what nobody thought of" not in reason.text
            for _ in range(8):
                await rig.settle(331)
            (task,) = await rig.store.read(lambda records: records.outbox.of(Subject.of_upload(upload.key)))
            assert task.tries >= 8
        await rig.settle(331)
        assert (await rig.upload(upload.upload_id)).state is State.COMPLETED
        assert (await seen(rig, upload)).reason is None
