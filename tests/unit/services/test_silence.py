"""Whoever should speak last and does not: nothing waits for him for ever."""

from control_plane.domain.uploads.model import State
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Subject
from schemas.codec import encode
from schemas.messages import CloseUpload, Command, DownloadFile, UploadConfig
from schemas.topics import Channel
from tests.support.fakes import CLIENT, OPERATOR, Rig

STEP = 300.0
"""The step timer."""


async def overheard(rig: Rig) -> None:
    """Another owner's upload, of which the client said that everything is sent."""
    await rig.birth()
    config = UploadConfig(upload_id="cli1", attempt=1, owner="cli-7", key="uploads/x", presigned_urls=())
    begun = Command("m1", "download_file", DownloadFile(upload_config=config, file_path="/a"))
    await rig.hear(Channel.COMMAND, encode(begun))
    await rig.respond(rig.offer("cli1", owner="cli-7"), "success", sequence=1)
    assert (await rig.upload("cli1")).state is State.COMPLETING


async def test_an_upload_that_its_owner_never_closes_ends_with_its_deadline_and_is_pruned() -> None:
    """Pre-granted with a bare MQTT client, say: whether it was completed only its owner knows."""
    async with Rig(Policy(history=100)) as rig:
        await overheard(rig)
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


async def test_an_upload_of_another_owner_that_is_closed_in_time_is_left_alone() -> None:
    """An end that was heard is final."""
    async with Rig() as rig:
        await overheard(rig)
        closed = CloseUpload(upload_id="cli1", attempt=1, outcome="completed")
        await rig.hear(Channel.COMMAND, encode(Command("m2", "close_upload", closed)))
        rig.clock.time = (await rig.upload("cli1")).deadline + 1
        assert await rig.engine.maintenance.expire() == 0
        assert (await rig.upload("cli1")).state is State.COMPLETED


async def connected_for(rig: Rig, seconds: float, beat: int) -> int:
    """Time passes, and the client goes on saying that it is there; the number of its next beat."""
    end = rig.clock.time + seconds
    while rig.clock.time < end:
        rig.clock.time += 60
        await rig.birth(sequence=beat)
        beat += 1
    await rig.settle()
    return beat


async def test_a_client_that_is_there_and_silent_is_told_to_cancel_three_times_and_no_more() -> None:
    """An agent that hears nothing is not told for ever; one that speaks again is answered then."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
        beat = await connected_for(rig, 10 * STEP, 1)
        assert rig.messenger.actions().count("cancel_upload") == 3
        assert (await rig.upload(upload.upload_id)).client_busy is False
        assert await rig.store.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))) == []
        await connected_for(rig, STEP, beat)
        await rig.respond(rig.offer(upload.upload_id), sequence=2)
        assert rig.messenger.actions() == ["close_upload"]


async def test_while_the_client_is_away_its_silence_does_not_count() -> None:
    """It is told when it comes, however often it came and went."""
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
