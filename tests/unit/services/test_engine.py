"""What the direct command line needs of an engine: one upload that was made elsewhere, and nothing of any other."""

import asyncio

import pytest

from control_plane.domain.uploads.events import MultipartCreated
from control_plane.domain.uploads.model import State, Stray, Upload, UploadKey
from control_plane.services.errors import KeyTaken, UnknownUpload
from control_plane.services.inbox import UploadScope
from control_plane.services.ports.database import Subject
from control_plane.services.ports.object_store import ObjectInfo
from schemas.codec import encode
from schemas.messages import (
    ActiveUpload,
    CloseUpload,
    Command,
    CurrentUpload,
    DownloadFile,
    FileEntry,
    FileList,
    ListFiles,
    Response,
    Status,
    UploadConfig,
)
from schemas.names import TOKEN_METADATA
from schemas.topics import Channel
from tests.support.fakes import CLIENT, OPERATOR, Rig
from tests.support.uploads import an_upload

MINE = UploadKey(CLIENT, "mine")
SCOPE = UploadScope(MINE)


def mine(**changes: object) -> Upload:
    """An upload that was made outside of the engine."""
    return an_upload(client_id=CLIENT, upload_id=MINE.upload_id, **changes)


async def test_an_adopted_upload_is_committed_and_its_command_published() -> None:
    async with Rig() as rig:
        await rig.birth()
        assert await rig.engine.adopt(mine()) == mine()
        await rig.settle()
        assert rig.messenger.actions() == ["download_file"]
        with pytest.raises(KeyTaken):
            await rig.engine.adopt(mine())


async def test_an_engine_that_does_not_perform_stores_duties_and_publishes_nothing() -> None:
    async with Rig(performs=False) as rig:
        await rig.birth()
        await rig.engine.adopt(mine(state=State.DISPATCHED))
        created = MultipartCreated(now=rig.clock.now(), attempt=1, s3_upload_id="s3-1")
        assert (await rig.engine.uploads.submit(MINE, created)).s3_upload_id == "s3-1"
        await rig.hello()
        await rig.settle(1_000)
        assert rig.messenger.actions() == []
        assert len(await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(MINE)))) == 1


async def test_resume_performs_every_duty_of_the_state_at_once() -> None:
    async with Rig() as rig:
        await rig.birth()
        await rig.database.write(lambda records: records.uploads.add(mine(state=State.DISPATCHED, litter=("s3-9",))))
        rig.objects.multipart["s3-9"] = (mine().s3_key, "token")
        await rig.engine.resume(MINE)
        await rig.settle()
        assert rig.messenger.actions() == ["download_file"]
        assert rig.objects.multipart == {}


async def test_resume_deletes_no_stray_object_before_its_last_url_expired() -> None:
    """Deleted sooner, it could be written once more, and no duty would be left to delete it."""
    async with Rig() as rig:
        await rig.birth()
        stray = Stray("old/key", "token", after=rig.clock.now() + 60)
        await rig.database.write(lambda records: records.uploads.add(mine(strays=(stray,))))
        rig.objects.objects["old/key"] = ObjectInfo(1, "etag", {TOKEN_METADATA: "token"})
        await rig.engine.resume(MINE)
        await rig.settle()
        assert rig.messenger.actions() == ["download_file"]
        assert "old/key" in rig.objects.objects
        await rig.settle(61)
        assert (rig.objects.objects, (await rig.upload(MINE.upload_id)).strays) == ({}, ())


async def test_release_publishes_the_close_again_and_sets_the_event() -> None:
    async with Rig() as rig:
        await rig.birth()
        await rig.database.write(lambda records: records.uploads.add(mine(state=State.COMPLETED)))
        released = rig.engine.released(MINE)
        assert not released.is_set()
        await rig.engine.release(MINE)
        await asyncio.wait_for(released.wait(), 60)
        assert rig.messenger.actions() == ["close_upload"]


async def test_resume_and_release_of_an_unknown_upload_are_errors() -> None:
    async with Rig() as rig:
        with pytest.raises(UnknownUpload):
            await rig.engine.resume(MINE)
        with pytest.raises(UnknownUpload):
            await rig.engine.release(MINE)


async def test_a_scoped_engine_answers_its_own_upload() -> None:
    async with Rig(scope=SCOPE) as rig:
        await rig.birth()
        await rig.engine.adopt(mine())
        await rig.settle()
        await rig.respond(rig.offer(MINE.upload_id, file_path=mine().file_path), sequence=1)
        assert rig.messenger.actions() == ["download_file", "grant_parts"]


async def test_a_scoped_engine_neither_closes_nor_observes_other_uploads() -> None:
    async with Rig(scope=SCOPE) as rig:
        await rig.birth()
        await rig.respond(rig.offer("theirs"), "success", sequence=3)
        await rig.respond(rig.offer("theirs", owner="cli-9"), sequence=1)
        config = UploadConfig(upload_id="theirs", owner="cli-9", key="uploads/x", presigned_urls=())
        begun = Command("m1", "download_file", DownloadFile(upload_config=config, file_path="/a"))
        await rig.deliver(Channel.COMMAND, encode(begun))
        assert rig.messenger.actions() == []
        with pytest.raises(UnknownUpload):
            await rig.upload("theirs")


async def test_a_scoped_engine_answers_only_its_own_entry_of_a_hello() -> None:
    async with Rig(scope=SCOPE) as rig:
        await rig.birth()
        theirs = ActiveUpload("theirs", 1, 3, "success", owner=None)
        await rig.hello(theirs, ActiveUpload(MINE.upload_id, 1, 3, "success", owner=None))
        ((_, command),) = rig.messenger.sent
        assert isinstance(command.payload, CloseUpload)
        assert command.payload.about == MINE.upload_id


async def test_a_scoped_engine_commits_only_the_progress_of_its_own_upload() -> None:
    async with Rig(scope=SCOPE) as rig:
        await rig.birth()
        await rig.engine.adopt(mine(state=State.IN_PROGRESS))
        both = (CurrentUpload("theirs", bytes_sent=7), CurrentUpload(MINE.upload_id, bytes_sent=7))
        await rig.deliver(Channel.STATUS, encode(Status("uploading", CLIENT, uploads=both)))
        assert (await rig.upload(MINE.upload_id)).bytes_sent == 7
        assert rig.counted("message.fault") == 0


async def test_a_scoped_engine_still_matches_responses_to_its_queries() -> None:
    async with Rig(scope=SCOPE) as rig:
        await rig.birth()
        query = asyncio.create_task(rig.engine.client_service.files(OPERATOR, CLIENT, ListFiles("/data/*")))
        await rig.settle()
        ((_, command),) = rig.messenger.sent
        files = FileList((FileEntry("/data/a", 1, 2),))
        await rig.deliver(Channel.RESPONSE, encode(Response(command.message_id, "list_files", "success", files)))
        assert await query == files
