"""Messages of the fleet and their effects: offers started by hand, other owners, hellos, invalid messages."""

import asyncio
import json

import pytest

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import State
from control_plane.services.errors import (
    ClientSilent,
    NotOurs,
)
from control_plane.services.ports.messenger import Delivered
from schemas.codec import encode
from schemas.messages import (
    ActiveUpload,
    CloseUpload,
    Command,
    CurrentUpload,
    DownloadFile,
    FileEntry,
    FileList,
    Hello,
    ListFiles,
    Presence,
    Response,
    Status,
    UploadConfig,
    UploadReport,
)
from schemas.topics import Channel
from schemas.values import Outcome
from tests.support.fakes import CLIENT, OPERATOR, Rig


async def test_progress_restarts_the_step_timer() -> None:
    """A status with more bytes is a sign of life."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        rig.clock.time += 290
        await rig.birth(sequence=1)
        status = Status("uploading", CLIENT, uploads=(CurrentUpload(upload.upload_id, bytes_sent=7),))
        await rig.deliver(Channel.STATUS, encode(status))
        await rig.settle(20)
        assert rig.messenger.actions() == []
        assert (await rig.upload(upload.upload_id)).bytes_sent == 7


async def test_a_reported_wait_restarts_the_step_timer() -> None:
    """No byte moves while the object store requests a pause, and the reason stays the same."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        waiting = CurrentUpload(upload.upload_id, bytes_sent=7, reason="the store asked for a pause")
        for _ in range(400):
            rig.clock.time += 1
            rig.engine.inbox.receive(
                Delivered(rig.topics.status(CLIENT), encode(Status("waiting", CLIENT, uploads=(waiting,))))
            )
        await rig.birth(epoch=2)
        await rig.settle(1)
        upload = await rig.upload(upload.upload_id)
        assert (upload.strikes, upload.reason) == (0, Reason(ReasonCode.CLIENT_REPORTED, "the store asked for a pause"))
        assert upload.version < 15


async def test_a_reported_end_of_an_unknown_upload_is_answered_with_a_close() -> None:
    """So that the client can delete its record."""
    async with Rig() as rig:
        await rig.birth()
        await rig.respond(rig.offer("who"), "success", sequence=3)
        (_, command), *_ = rig.messenger.sent
        assert isinstance(command.payload, CloseUpload)
        assert (command.payload.outcome, command.payload.about) == (Outcome.UNKNOWN, "who")


async def test_progress_of_an_unknown_upload_is_not_answered() -> None:
    """A status names no owner: it may be a direct CLI's upload, started by a command that was not observed."""
    async with Rig() as rig:
        await rig.birth()
        await rig.deliver(
            Channel.STATUS, encode(Status("uploading", CLIENT, uploads=(CurrentUpload("theirs", bytes_sent=7),)))
        )
        assert rig.messenger.actions() == []


async def test_uploads_of_other_owners_are_observed_and_not_acted_on() -> None:
    """A direct CLI at work: command, reports, close."""
    async with Rig() as rig:
        await rig.birth()
        config = UploadConfig(upload_id="cli1", attempt=1, owner="cli-7", key="uploads/x", presigned_urls=())
        command = Command("m1", "download_file", DownloadFile(upload_config=config, file_path="/a"))
        await rig.deliver(Channel.COMMAND, encode(command))
        await rig.respond(rig.offer("cli1", owner="cli-7", wanted_parts=()), sequence=1)
        await rig.respond(rig.offer("cli1", owner="cli-7"), "success", sequence=2)
        assert (await rig.upload("cli1")).state is State.COMPLETING
        close = Command("m2", "close_upload", CloseUpload(upload_id="cli1", attempt=1, outcome="completed"))
        await rig.deliver(Channel.COMMAND, encode(close))
        upload = await rig.upload("cli1")
        assert (upload.state, upload.s3_key, upload.owner) == (State.COMPLETED, "uploads/x", "cli-7")
        assert rig.messenger.actions() == []
        with pytest.raises(NotOurs, match="cli-7"):
            await rig.engine.upload_service.cancel(OPERATOR, "cli1")


async def test_a_too_long_key_of_an_observed_upload_is_not_stored() -> None:
    """PostgreSQL could not index it, and the whole batch would fail."""
    async with Rig() as rig:
        config = UploadConfig(upload_id="cli1", owner="cli-7", key="x" * 50_000, presigned_urls=())
        await rig.deliver(Channel.COMMAND, encode(Command("m", "download_file", DownloadFile(upload_config=config))))
        assert (await rig.upload("cli1")).s3_key == f"unknown/{CLIENT}/cli1"


async def test_a_response_without_an_owner_does_not_change_an_observed_upload() -> None:
    """Such a response is for this owner, which knows nothing of the state of an observed upload."""
    async with Rig() as rig:
        await rig.birth()
        await rig.hear(DownloadFile(upload_config=UploadConfig(upload_id="cli1", owner="cli-7")))
        await rig.respond(rig.offer("cli1", owner="cli-7"), sequence=1)
        report = rig.offer("cli1", owner=None, wanted_parts=())
        await rig.respond(report, "error", sequence=2, error="source_changed")
        upload = await rig.upload("cli1")
        assert (upload.state, upload.attempt) == (State.IN_PROGRESS, 1)


async def test_a_devices_texts_are_clipped() -> None:
    """An unknown error code is kept with the message."""
    async with Rig() as rig:
        upload = await rig.granted()
        report = rig.offer(upload.upload_id, wanted_parts=())
        await rig.respond(report, "error", sequence=2, error="melted", message="x" * 100_000)
        upload = await rig.upload(upload.upload_id)
        assert (upload.error, (upload.message or "")[:9]) == ("unknown", "melted: x")
        assert len(upload.message or "") == 1_000


async def test_an_observed_close_does_not_change_an_upload_of_this_owner() -> None:
    """The embedded broker has no No Local, and anyone may publish a close."""
    async with Rig() as rig:
        upload = await rig.granted()
        close = Command("m", "close_upload", CloseUpload(upload_id=upload.upload_id, attempt=1, outcome="completed"))
        await rig.deliver(Channel.COMMAND, encode(close))
        assert (await rig.upload(upload.upload_id)).state is State.IN_PROGRESS


async def test_a_hello_is_answered_entry_by_entry() -> None:
    """Listed and open: from the state. Listed and over: close. Not listed: the command again."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        await rig.hello(ActiveUpload(upload.upload_id, 1, 1, "in_progress", "control-plane"))
        assert rig.messenger.actions() == ["grant_parts"]
        await rig.hello()
        assert rig.messenger.actions() == ["download_file"]
        await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
        await rig.respond(rig.offer(upload.upload_id, wanted_parts=()), "cancelled", sequence=2)
        rig.messenger.actions()
        await rig.hello(
            ActiveUpload(upload.upload_id, 1, 2, "cancelled", "control-plane"),
            ActiveUpload("lost", 1, 2, "success", "control-plane"),
            ActiveUpload("theirs", 1, 2, "success", "cli-1"),
        )
        assert rig.messenger.actions() == ["close_upload", "close_upload"]


async def test_an_offer_after_a_hello_is_not_taken_for_missing_from_it() -> None:
    """The offer arrived while the hello was waiting."""
    async with Rig() as rig:
        await rig.birth()
        view = await rig.trigger()
        rig.engine.resync.receive(CLIENT, 1, Hello("install", ()), page_of="m")
        rig.clock.time += 0.1
        rig.engine.inbox.receive(
            Delivered(
                rig.topics.response(CLIENT),
                encode(Response("m", "download_file", "in_progress", rig.offer(view.upload.upload_id), sequence=1)),
            )
        )
        rig.messenger.actions()
        await rig.settle()
        assert rig.messenger.actions() == ["grant_parts"]


async def test_the_pages_of_a_hello_count_as_one() -> None:
    """An upload on the second page is not missing."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        await rig.hello(ActiveUpload("other", 1, 0, "in_progress", "cli-9"), more=True)
        await rig.hello(ActiveUpload(upload.upload_id, 1, 1, "in_progress", "control-plane"))
        assert rig.messenger.actions() == ["grant_parts"]


async def test_an_unsigned_agent_may_give_its_hellos_any_ids() -> None:
    """One of another language that counts them, say: `.2` is no second page."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        hello = Hello("install", (ActiveUpload(upload.upload_id, 1, 1, "in_progress", "control-plane"),))
        await rig.deliver(Channel.RESPONSE, encode(Response("hello.2", "hello", "success", hello)))
        assert rig.messenger.actions() == ["grant_parts"]


async def test_a_hello_with_too_many_uploads_is_refused() -> None:
    """Its pages would fill the memory."""
    async with Rig() as rig:
        page = Hello("install", tuple(ActiveUpload(f"u{n}", 1) for n in range(500)), more=True)
        for _ in range(11):
            rig.engine.resync.receive(CLIENT, 1, page, page_of="m")
        assert rig.counted("hello.refused") == 1


async def test_a_query_gets_its_response_or_the_client_is_silent() -> None:
    """Matched by `message_id`."""
    async with Rig() as rig:
        await rig.birth()
        query = asyncio.create_task(rig.engine.client_service.files(OPERATOR, CLIENT, ListFiles("/data/*")))
        await rig.settle()
        (_, command), *_ = rig.messenger.sent
        files = FileList((FileEntry("/data/a", 1, 2),))
        await rig.deliver(Channel.RESPONSE, encode(Response(command.message_id, "list_files", "success", files)))
        assert await query == files
        rig.engine.client_service._queries._patience = 0.01
        with pytest.raises(ClientSilent):
            await rig.engine.client_service.files(OPERATOR, CLIENT, ListFiles("/data/*"))


async def test_an_answer_that_nothing_waits_for_is_counted_and_answers_nothing() -> None:
    """One to another question, one of another client, and one that comes again after its question was answered."""
    async with Rig() as rig:
        await rig.birth()
        query = asyncio.create_task(rig.engine.client_service.files(OPERATOR, CLIENT, ListFiles("/data/*")))
        await rig.settle()
        (_, command), *_ = rig.messenger.sent
        lie, files = FileList((FileEntry("/data/lie", 1, 2),)), FileList((FileEntry("/data/a", 1, 2),))
        asked, other = (Response(one, "list_files", "success", lie) for one in (command.message_id, "m" * 32))
        await rig.deliver(Channel.RESPONSE, encode(other))
        rig.engine.inbox.receive(Delivered(rig.topics.response("till-2"), encode(asked)))
        await rig.settle()
        assert not query.done()
        await rig.deliver(Channel.RESPONSE, encode(Response(command.message_id, "list_files", "success", files)))
        await rig.deliver(Channel.RESPONSE, encode(asked))
        assert await query == files
        assert rig.counted("response.unasked") == 3


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("fleet/v1/restaurant-1/response", b"{"),
        ("fleet/v1/restaurant-1/response", b'"x"'),
        ("fleet/v1/restaurant-1/status", b"\xff"),
        ("fleet/v1/restaurant-1/presence", b'{"client_id":"other","status":"online"}'),
        ("fleet/v1/restaurant-1/presence", json.dumps({"client_id": "restaurant-1"}).encode()),
        ("fleet/v1/restaurant-1/command", b"[" * 5000),
        ("fleet/v1/a/b/response", b"{}"),
        ("elsewhere", b"{}"),
        ("fleet/v1/restaurant-1/response", b"x" * 200_000),
        (
            "fleet/v1/restaurant-1/response",
            b'{"message_id":"a b","action":"download_file","status":"in_progress","payload":{"owner":"control-plane"}}',
        ),
        (
            "fleet/v1/restaurant-1/response",
            b'{"message_id":"m","action":"download_file","status":"new-word","payload":{"upload_id":"u"}}',
        ),
    ],
)
async def test_an_invalid_message_is_counted_and_disturbs_nothing(topic: str, payload: bytes) -> None:
    """One message, one count, and the next message is processed."""
    async with Rig() as rig:
        rig.engine.inbox.receive(Delivered(topic, payload))
        assert rig.counted("message.refused") == 1
        await rig.birth()
        assert (await rig.engine.client_service.client(OPERATOR, CLIENT)).client_id == CLIENT


@pytest.mark.parametrize("channel", [Channel.RESPONSE, Channel.STATUS, Channel.COMMAND])
async def test_a_stored_message_has_no_effect(channel: Channel) -> None:
    """A hello of a revoked device, stored by the broker, once made a fresh control plane publish to it."""
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        hello = Response("h", "hello", "success", Hello("install"), epoch=2)
        cancelled = Response("m", "download_file", "cancelled", UploadReport(upload_id=upload.upload_id), sequence=2)
        for payload in (encode(hello), encode(cancelled)):
            topic = rig.topics.of(CLIENT, channel)
            rig.engine.inbox.receive(Delivered(topic, payload, retained=True))
            await rig.settle()
        assert rig.counted("message.retained") == 2
        assert rig.counted("message.refused") == 0
        assert rig.messenger.actions() == []
        assert (await rig.upload(upload.upload_id)).state is State.IN_PROGRESS


@pytest.mark.parametrize(("left", "connected"), [(120, True), (31, True), (30, False), (None, False), (86_400, False)])
async def test_a_stored_online_connects_only_while_its_expiry_shows_that_it_is_recent(
    left: int | None, *, connected: bool
) -> None:
    """A device that was revoked, or an attacker, may have left one that never expires."""
    async with Rig() as rig:
        presence = encode(Presence(CLIENT, "online", "i", 1, 0))
        message = Delivered(rig.topics.presence(CLIENT), presence, retained=True, expires_in=left)
        rig.engine.inbox.receive(message)
        await asyncio.sleep(0.07)
        await rig.settle()
        client = await rig.engine.client_service.client(OPERATOR, CLIENT)
        assert client.connected(rig.clock.time) is connected


async def test_the_first_hello_of_a_new_installation_is_answered() -> None:
    """Its epochs begin again, and the hello comes before its presence is applied: the command was lost with the old."""
    async with Rig() as rig:
        await rig.birth(epoch=57)
        view = await rig.trigger()
        born = Presence(CLIENT, "online", "new", 1, 0)
        hello = Response("h", "hello", "success", Hello("new"), epoch=1)
        rig.engine.inbox.receive(Delivered(rig.topics.presence(CLIENT), encode(born)))
        rig.engine.inbox.receive(Delivered(rig.topics.response(CLIENT), encode(hello)))
        await rig.settle()
        assert [command.message_id for _, command in rig.messenger.sent] == [view.upload.message_id] * 2
