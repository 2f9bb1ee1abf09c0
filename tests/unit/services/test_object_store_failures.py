"""What an upload does when the object store fails: it waits with a reason, or it ends with a message.

Rule: an outage is waited for until the deadline; a final refusal ends the upload at once.
"""

import pytest

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.errors import ObjectStoreDown, ObjectStoreForbids, ObjectStoreRefused, ServiceError
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.ports.database import Subject
from control_plane.services.uploads.completion import Completion, Settled
from control_plane.services.uploads.outbox import reason_of
from control_plane.services.uploads.views import UploadView
from schemas.codec import encode
from schemas.messages import CurrentUpload, Status
from schemas.topics import Channel
from tests.support.fakes import CLIENT, OPERATOR, FakeObjects, Rig

REVOKED = ObjectStoreForbids("CompleteMultipartUpload: InvalidAccessKeyId", "InvalidAccessKeyId")


async def sent(rig: Rig) -> Upload:
    """An upload that the client reports as stored."""
    upload = await rig.granted()
    report = rig.offer(upload.upload_id, wanted_parts=(), etags={1: "a", 2: "b", 3: "c"})
    await rig.respond(report, "success", sequence=2)
    return await rig.upload(upload.upload_id)


async def seen(rig: Rig, upload: Upload) -> UploadView:
    return await rig.engine.upload_service.upload(OPERATOR, upload.upload_id)


@pytest.mark.parametrize("method", ["complete", "head"])
async def test_an_upload_whose_parts_are_stored_survives_a_revoked_key(method: str) -> None:
    """Forty gigabytes are stored when an operator rotates the key."""
    async with Rig() as rig:
        rig.objects.complete_then_fail = method == "head"
        rig.objects.fails = {method: [REVOKED] * 4}
        upload = await sent(rig)
        assert (upload.state, upload.attempt) == (State.COMPLETING, 1)
        reason = await rig.reason(upload.upload_id)
        assert (reason.code, "InvalidAccessKeyId" in reason.text) == (ReasonCode.OBJECT_STORE_REFUSED, True)
        for _ in range(6):
            await rig.settle(400)
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.attempt, upload.error) == (State.COMPLETED, 1, None)
        assert rig.counted("duty.again") == 4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ObjectStoreRefused("it drops metadata"), ReasonCode.OBJECT_STORE_REFUSED),
        (ObjectStoreForbids("the session token has expired"), ReasonCode.OBJECT_STORE_REFUSED),
        (ObjectStoreDown("no answer"), ReasonCode.OBJECT_STORE_UNAVAILABLE),
    ],
)
async def test_an_object_store_that_the_probe_found_unusable_is_no_outage(
    error: ServiceError, code: ReasonCode
) -> None:
    """The kind: one code for two conditions. An outage ends by itself, the other one when an operator changes it."""
    objects = FakeObjects()
    objects.fails = {"probe": [error]}
    probe = ObjectStoreProbe(objects, lambda *_: None)
    with pytest.raises(type(error)):
        await probe.probe()
    for require in (probe.require, probe.require_signing):
        with pytest.raises(ServiceError) as raised:
            require()
        assert reason_of(raised.value) == Reason(code, str(error))


async def test_a_key_that_stays_revoked_fails_the_upload_after_its_deadline() -> None:
    """In `completing` the deadline waits for an answer; a refusal is one."""
    async with Rig() as rig:
        rig.objects.fails = {"complete": [REVOKED] * 99}
        upload = await sent(rig)
        await rig.settle(400)
        assert (await rig.upload(upload.upload_id)).state is State.COMPLETING
        await rig.settle(upload.deadline - rig.clock.time + 1)
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.error, upload.message) == (State.FAILED, "store_refused", str(REVOKED))


async def test_a_forbidden_multipart_upload_waits_with_that_reason() -> None:
    """CreateMultipartUpload with a revoked key: nothing is lost yet."""
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


async def test_the_reason_is_the_failed_grant_and_not_the_client_that_waits_for_it() -> None:
    """The client reports that it waits for URLs; the reason is why it gets none."""
    async with Rig() as rig:
        denied = ObjectStoreForbids("CreateMultipartUpload: AccessDenied", "AccessDenied")
        rig.objects.fails = {"create_multipart": [denied, denied]}
        upload = await rig.granted()
        waits = CurrentUpload(upload.upload_id, reason="waiting for the owner to grant the next parts")
        await rig.deliver(Channel.STATUS, encode(Status("waiting", CLIENT, uploads=(waits,))))
        assert (await rig.upload(upload.upload_id)).reason == Reason(ReasonCode.CLIENT_REPORTED, waits.reason or "")
        assert (await rig.reason(upload.upload_id)).text == str(denied)
        await rig.settle(40)
        await rig.settle(40)
        assert (await rig.upload(upload.upload_id)).s3_upload_id == "s3-1"
        assert (await rig.reason(upload.upload_id)).text == waits.reason


async def test_a_refused_clean_up_is_not_the_reason_why_an_upload_waits() -> None:
    """The entry of the clean-up keeps its error for hours, while the next attempt makes progress."""
    async with Rig() as rig:
        denied = ObjectStoreForbids("AbortMultipartUpload: AccessDenied", "AccessDenied")
        rig.objects.fails = {"abort": [denied] * 9}
        upload = await rig.granted()
        await rig.respond(rig.offer(upload.upload_id), "error", sequence=2, error="source_changed")
        await rig.settle(70)
        await rig.respond(rig.offer(upload.upload_id, attempt=2), sequence=1)
        await rig.settle(31)
        await rig.birth(sequence=1)
        subject = Subject.of_upload(upload.key)
        entries = await rig.database.read(lambda records: records.outbox.of(subject))
        assert [one.last_error.reason.text for one in entries if one.last_error] == [str(denied)]
        assert (await rig.upload(upload.upload_id)).state is State.IN_PROGRESS
        assert (await rig.reason(upload.upload_id)).code == ReasonCode.UPLOADING


async def test_a_refusal_that_stays_fails_the_upload_with_its_message() -> None:
    """Looking again costs nothing, and every part is stored."""
    async with Rig() as rig:
        rig.objects.fails = {"complete": [ObjectStoreRefused("InvalidRequest: no", "InvalidRequest")] * 99}
        upload = await sent(rig)
        assert (upload.state, await rig.reason(upload.upload_id)) == (
            State.COMPLETING,
            Reason(ReasonCode.OBJECT_STORE_REFUSED, "InvalidRequest: no"),
        )
        await rig.exhaust_setbacks()
        upload = await rig.upload(upload.upload_id)
        assert (upload.state, upload.error, upload.message) == (State.FAILED, "store_refused", "InvalidRequest: no")


async def test_a_completing_upload_waits_neither_for_its_client_nor_for_its_deadline() -> None:
    """The client has done its part, and a deadline ends no upload that is completing."""
    async with Rig() as rig:
        rig.objects.fails = {"complete": [ObjectStoreDown("503 SlowDown")] * 99}
        upload = await sent(rig)
        await rig.settle(100)
        client = await rig.engine.client_service.client(OPERATOR, upload.client_id)
        assert client.waiting_for(rig.clock.time) == Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline")
        assert (await rig.reason(upload.upload_id)).text == "503 SlowDown"
        rig.clock.time = upload.deadline - 1
        await rig.settle()
        view = await seen(rig, upload)
        assert view.upload.state is State.COMPLETING
        assert view.next_wake_at is not None
        assert view.next_wake_at > upload.deadline


async def test_a_fault_is_shown_and_retried_with_a_growing_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reason and a growing wait it would fail unseen, every half minute."""

    async def faulty(_self: Completion, _upload: Upload) -> Settled:
        message = "a planted fault"
        raise RuntimeError(message)

    async with Rig() as rig:
        with monkeypatch.context() as patch:
            patch.setattr(Completion, "settle", faulty)
            upload = await sent(rig)
            view = await seen(rig, upload)
            assert (view.upload.state, rig.counted("duty.fault")) == (State.COMPLETING, 1)
            reason = await rig.reason(upload.upload_id)
            assert (reason.code, "RuntimeError" in reason.text) == (ReasonCode.INTERNAL, True)
            assert "a planted fault" not in reason.text
            for _ in range(8):
                await rig.settle(331)
            (task,) = await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key)))
            assert task.tries >= 8
        await rig.settle(331)
        assert (await rig.upload(upload.upload_id)).state is State.COMPLETED
        assert (await seen(rig, upload)).reason is None
