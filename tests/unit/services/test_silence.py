"""Clients and owners that never respond: no upload waits for them for ever."""

from control_plane.domain.uploads.model import State
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Subject
from schemas.codec import encode
from schemas.messages import CloseUpload, Command, CurrentUpload, DownloadFile, Status, UploadConfig
from schemas.topics import Channel
from tests.support.fakes import CLIENT, OPERATOR, Rig

STEP = 300.0
"""The step timer."""


async def observed(rig: Rig) -> None:
    """Another owner's upload, reported as stored by its client."""
    await rig.birth()
    config = UploadConfig(upload_id="cli1", attempt=1, owner="cli-7", key="uploads/x", presigned_urls=())
    begun = Command("m1", "download_file", DownloadFile(upload_config=config, file_path="/a"))
    await rig.deliver(Channel.COMMAND, encode(begun))
    await rig.respond(rig.offer("cli1", owner="cli-7"), "success", sequence=1)
    assert (await rig.upload("cli1")).state is State.COMPLETING


async def test_an_observed_upload_without_a_close_ends_with_its_deadline_and_is_pruned() -> None:
    """Such as a pre-granted one with a bare MQTT client: only its owner knows whether it was completed."""
    async with Rig(Policy(history=100)) as rig:
        await observed(rig)
        deadline = (await rig.upload("cli1")).deadline
        rig.clock.time = deadline - 1
        assert await rig.engine.maintenance.expire() == 0
        rig.clock.time = deadline
        assert await rig.engine.maintenance.expire() == 1
        upload = await rig.upload("cli1")
        assert (upload.state, upload.error) == (State.EXPIRED, "owner_silent")
        assert "its owner never published" in (upload.message or "")
        assert rig.messenger.actions() == []
        rig.clock.time += 200
        assert await rig.engine.maintenance.prune() == 1


async def test_an_observed_upload_that_was_closed_stays_as_it_is() -> None:
    """An observed end is final."""
    async with Rig() as rig:
        await observed(rig)
        closed = CloseUpload(upload_id="cli1", attempt=1, outcome="completed")
        await rig.deliver(Channel.COMMAND, encode(Command("m2", "close_upload", closed)))
        rig.clock.time = (await rig.upload("cli1")).deadline + 1
        assert await rig.engine.maintenance.expire() == 0
        assert (await rig.upload("cli1")).state is State.COMPLETED


async def connected_for(rig: Rig, seconds: float, beat: int) -> int:
    """Time passes while the client sends beats; returns the number of its next beat."""
    end = rig.clock.time + seconds
    while rig.clock.time < end:
        rig.clock.time += 60
        await rig.birth(sequence=beat)
        beat += 1
    await rig.settle()
    return beat


async def test_a_silent_connected_client_gets_three_cancels() -> None:
    """After that only a response of the client is answered."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
        beat = await connected_for(rig, 10 * STEP, 1)
        assert rig.messenger.actions().count("cancel_upload") == 3
        assert (await rig.upload(upload.upload_id)).client_busy is False
        assert await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))) == []
        await connected_for(rig, STEP, beat)
        await rig.respond(rig.offer(upload.upload_id), sequence=2)
        assert rig.messenger.actions() == ["close_upload"]


async def test_time_offline_does_not_count_against_a_cancel() -> None:
    """The cancel is published at every connect."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
        for epoch in range(2, 8):
            await rig.settle(10 * STEP)
            await rig.birth(epoch=epoch)
            assert "cancel_upload" in rig.messenger.actions()
        assert (await rig.upload(upload.upload_id)).client_id == CLIENT
        assert (await rig.upload(upload.upload_id)).client_busy


async def test_a_reported_wait_outlives_a_step_timer_shorter_than_the_pause_between_reports() -> None:
    """An agent repeats an unchanged status every half minute; one of these may be lost."""
    async with Rig(Policy(step_timeout=5.0)) as rig:
        upload = await rig.granted()
        await report(rig, upload.upload_id, None)
        rig.clock.time += 1.0
        for beat in range(1, 8):
            await report(rig, upload.upload_id, "the object store is paused, 400 s are left")
            # Every second report is lost.
            for _ in range(12):
                rig.clock.time += 5.0
                await rig.settle()
            await rig.birth(sequence=beat)
        waiting = await rig.upload(upload.upload_id)
        assert (waiting.state, waiting.strikes) == (State.IN_PROGRESS, 0)
        # Without any report it ends as before, only a little later.
        for beat in range(8, 16):
            for _ in range(12):
                rig.clock.time += 5.0
                await rig.settle()
            await rig.birth(sequence=beat)
        assert (await rig.upload(upload.upload_id)).error == "no_progress"


async def report(rig: Rig, upload_id: str, reason: str | None) -> None:
    """The client publishes a status about an upload without a new byte."""
    entry = CurrentUpload(upload_id=upload_id, bytes_sent=7, reason=reason)
    await rig.deliver(Channel.STATUS, encode(Status(status="waiting" if reason else "uploading", uploads=(entry,))))
