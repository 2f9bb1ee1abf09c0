"""Which messages make an upload: a trigger, or a command that was received here; never a report of a device alone.

Rule: the kind of fault is to take what a device reports for what an operator commanded.
"""

import asyncio

import pytest

from control_plane.adapters.memory.records import MemoryUploads
from control_plane.domain.jobs.four_eyes import FourEyes
from control_plane.domain.selectors import parse
from control_plane.domain.uploads.model import Origin, State, UploadKey
from control_plane.services.errors import QuotaExceeded, UnknownUpload
from control_plane.services.policy import DAY, Policy
from control_plane.services.ports.database import PARKED, Subject
from schemas.messages import ActiveUpload, CloseUpload, DownloadFile, UploadConfig
from schemas.values import DigestName, PresignedPart, UploadOptions
from tests.support.fakes import CLIENT, Rig

BY_HAND = "by-hand-1"


async def test_a_command_typed_by_hand_is_adopted_when_it_is_received() -> None:
    """It has all that is known; the offer changes nothing of it, and a second offer is a repeat."""
    async with Rig() as rig:
        await rig.birth()
        options = UploadOptions(priority=3)
        await rig.hear(DownloadFile(file_path="/a", options=options, metadata={"why": "test"}), BY_HAND)
        upload = await rig.upload(BY_HAND)
        assert (upload.owner, upload.origin, upload.state) == ("control-plane", Origin.MQTT, State.DISPATCHED)
        assert (upload.file_path, upload.options, dict(upload.metadata)) == ("/a", options, {"why": "test"})
        assert rig.messenger.actions() == []
        offer = rig.offer(BY_HAND, file_path="/a", metadata={"a": "lie"})
        for _ in range(2):
            await rig.respond(offer, sequence=1)
            assert rig.messenger.actions() == ["grant_parts"]
        assert dict((await rig.upload(BY_HAND)).metadata) == {"why": "test"}


async def test_a_command_without_a_path_means_the_default_file() -> None:
    async with Rig() as rig:
        await rig.birth()
        await rig.hear(DownloadFile(), BY_HAND)
        upload = await rig.upload(BY_HAND)
        assert upload.file_path == "/data/test-file.bin"
        assert upload.s3_key.endswith("-test-file.bin")


@pytest.mark.parametrize("path", ["/data/secret/a.key", None])
async def test_a_command_for_what_a_second_person_must_approve_is_cancelled(path: str | None) -> None:
    """`mqtt trigger --ask-control-plane` is no way around four eyes; a job's own command is, as it was approved."""
    async with Rig(Policy(four_eyes=FourEyes(paths=("/data/secret/**",)))) as rig:
        await rig.birth()
        await rig.hear(DownloadFile(file_path=path), BY_HAND)
        await rig.settle()
        upload = await rig.upload(BY_HAND)
        assert (upload.state, upload.error) == (State.CANCELLED, None)
        assert "second person" in (upload.message or "")
        assert rig.messenger.actions() == ["cancel_upload"]
        await rig.respond(rig.offer(BY_HAND, file_path="/data/secret/a.key"), sequence=1)
        assert "grant_parts" not in rig.messenger.actions()
        await rig.hear(DownloadFile(file_path="/data/public"), "by-hand-2")
        assert (await rig.upload("by-hand-2")).state is State.DISPATCHED
        await rig.hear(DownloadFile(file_path="/data/secret/x"), "by-hand-2")
        assert (await rig.upload("by-hand-2")).state is State.DISPATCHED


async def test_no_command_is_adopted_where_a_second_person_must_approve_some_clients() -> None:
    """Also of a client that the selector does not select: its labels are not looked up for a command."""
    async with Rig(Policy(four_eyes=FourEyes(selector=parse("class=bank")))) as rig:
        await rig.birth()
        await rig.hear(DownloadFile(file_path="/data/a"), BY_HAND)
        await rig.settle()
        assert (await rig.upload(BY_HAND)).state is State.CANCELLED
        assert rig.messenger.actions() == ["cancel_upload"]


async def test_a_command_to_a_client_that_is_offline_is_published_again_when_it_connects() -> None:
    async with Rig() as rig:
        await rig.hear(DownloadFile(file_path="/a"), BY_HAND)
        subject = Subject.of_upload(UploadKey(CLIENT, BY_HAND))
        entries = await rig.database.read(lambda records: records.outbox.of(subject))
        assert [entry.due_at for entry in entries] == [PARKED]
        await rig.birth()
        await rig.settle()
        assert rig.messenger.actions() == ["download_file"]


@pytest.mark.parametrize("owner", ["control-plane", None])
async def test_an_offer_whose_command_was_not_received_makes_no_upload(owner: str | None) -> None:
    """A device could make `completed` uploads without any command. A close ends the upload on the device."""
    async with Rig() as rig:
        await rig.birth()
        await rig.respond(rig.offer(BY_HAND, owner=owner), sequence=1)
        (command,) = [command for _, command in rig.messenger.sent]
        assert isinstance(command.payload, CloseUpload)
        await rig.hello(ActiveUpload(BY_HAND, 1, 1, "in_progress", owner))
        with pytest.raises(UnknownUpload):
            await rig.upload(BY_HAND)
        assert rig.objects.multipart == {}


@pytest.mark.parametrize("owner", ["control-plane", "cli-7", None])
async def test_a_device_cannot_take_the_id_of_a_later_command(owner: str | None) -> None:
    """Nor by a report of another owner's upload: the record of that would stand in the command's way."""
    async with Rig() as rig:
        await rig.birth()
        for status in ("in_progress", "success", "error", "cancelled"):
            await rig.respond(rig.offer(BY_HAND, owner=owner, file_path="/lie"), status, sequence=1)
        await rig.hear(DownloadFile(file_path="/a"), BY_HAND)
        upload = await rig.upload(BY_HAND)
        assert (upload.owner, upload.file_path, upload.state) == ("control-plane", "/a", State.DISPATCHED)


@pytest.mark.parametrize("by_hand", [True, False])
async def test_an_offer_of_another_file_than_the_one_asked_is_refused(by_hand: bool) -> None:  # noqa: FBT001
    async with Rig() as rig:
        await rig.birth()
        if by_hand:
            await rig.hear(DownloadFile(file_path="/data/test-file.bin"), BY_HAND)
            upload_id = BY_HAND
        else:
            upload_id = (await rig.trigger()).upload.upload_id
        rig.messenger.actions()
        await rig.respond(rig.offer(upload_id, file_path="/etc/passwd"), sequence=1)
        upload = await rig.upload(upload_id)
        assert (upload.state, upload.error) == (State.FAILED, "bad_request")
        assert "'/etc/passwd' in place of '/data/test-file.bin'" in (upload.message or "")
        assert rig.messenger.actions() == ["cancel_upload"]
        assert (rig.objects.multipart, dict(upload.parts)) == ({}, {})


async def test_a_request_without_a_path_is_granted() -> None:
    """No path is no other path: a request need not describe the file again."""
    async with Rig() as rig:
        await rig.birth()
        upload_id = (await rig.trigger()).upload.upload_id
        rig.messenger.actions()
        await rig.respond(rig.offer(upload_id, file_path=None), sequence=1)
        assert rig.messenger.actions() == ["grant_parts"]


async def test_a_command_that_is_received_twice_or_from_another_replica_changes_nothing() -> None:
    async with Rig() as rig:
        upload = await rig.granted()
        config = UploadConfig(upload_id=upload.upload_id, attempt=1, owner="control-plane", digest=DigestName.MD5)
        await rig.hear(DownloadFile(upload_config=config, file_path="/other"), "again")
        assert await rig.upload(upload.upload_id) == upload


async def test_a_command_with_urls_in_the_name_of_this_owner_is_not_adopted() -> None:
    """This owner publishes none, and could not complete what another sender granted."""
    async with Rig() as rig:
        urls = (PresignedPart(1, "http://s3/x"),)
        config = UploadConfig(upload_id=BY_HAND, owner="control-plane", presigned_urls=urls)
        await rig.hear(DownloadFile(upload_config=config, file_path="/a"))
        with pytest.raises(UnknownUpload):
            await rig.upload(BY_HAND)


async def test_a_command_with_an_id_and_without_an_owner_is_of_the_owner_that_the_agent_names() -> None:
    """The agent and the control plane read the owner from a command alike: without URLs it is the control plane."""
    async with Rig() as rig:
        await rig.hear(DownloadFile(upload_config=UploadConfig(upload_id=BY_HAND), file_path="/a"))
        assert (await rig.upload(BY_HAND)).owner == "control-plane"


async def test_open_uploads_of_a_client_are_limited() -> None:
    """For triggers and for commands of others alike; what ends makes room."""
    async with Rig(Policy(max_uploads=2)) as rig:
        await rig.birth()
        first = (await rig.trigger(file_path="/a")).upload
        await rig.hear(DownloadFile(file_path="/b"), BY_HAND)
        with pytest.raises(QuotaExceeded, match="2 open uploads"):
            await rig.trigger(file_path="/c")
        await rig.hear(DownloadFile(file_path="/d"), "by-hand-2")
        assert rig.counted("upload.refused") == 1
        await rig.respond(rig.offer(first.upload_id, file_path="/a", wanted_parts=()), "rejected", sequence=1)
        assert (await rig.trigger(file_path="/e")).upload.file_path == "/e"


async def test_the_bytes_of_a_client_far_from_its_limit_are_counted_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kind: a cost that grows with the history, paid by each message. A device may offer a file each second."""
    counts: list[str] = []

    def counted(_: MemoryUploads, client_id: str, _owner: str, _since: float) -> int:
        counts.append(client_id)
        return 0

    monkeypatch.setattr(MemoryUploads, "bytes_offered", counted)
    async with Rig(Policy(max_bytes=2**40)) as rig:
        await rig.birth()
        for number in range(4):
            upload_id = (await rig.trigger()).upload.upload_id
            await rig.respond(rig.offer(upload_id), sequence=1)
            assert (await rig.upload(upload_id)).state is State.IN_PROGRESS
            rig.clock.time += 25.0 * (number >= 1)
        assert counts == [CLIENT]
        rig.clock.time += 60.0
        await rig.birth(sequence=1)
        await rig.respond(rig.offer((await rig.trigger()).upload.upload_id), sequence=1)
        assert counts == [CLIENT, CLIENT]


async def test_offers_of_one_commit_are_counted_together() -> None:
    """The offers of a batch are in the database only after its last one."""
    async with Rig(Policy(max_bytes=25 * 1024 * 1024)) as rig:
        await rig.birth()
        ids = [(await rig.trigger()).upload.upload_id for _ in range(6)]
        await asyncio.gather(*(rig.respond(rig.offer(upload_id), sequence=1) for upload_id in ids))
        ended = [(await rig.upload(one)).error for one in ids]
        assert ended == [None, None, *["quota_exceeded"] * 4]


async def test_bytes_of_a_day_are_limited() -> None:
    """Each offer has 12 MiB. The upload ends, its client gets a cancel, and a day later there is room again."""
    async with Rig(Policy(max_bytes=25 * 1024 * 1024)) as rig:
        await rig.birth()
        ids = [(await rig.trigger()).upload.upload_id for _ in range(3)]
        for upload_id in ids:
            await rig.respond(rig.offer(upload_id), sequence=1)
        ended = await rig.upload(ids[2])
        assert (ended.state, ended.error) == (State.FAILED, "quota_exceeded")
        assert [(await rig.upload(one)).state for one in ids[:2]] == [State.IN_PROGRESS] * 2
        assert len(rig.objects.multipart) == 2
        rig.clock.time += DAY + 1
        await rig.birth(sequence=1)
        later = (await rig.trigger()).upload.upload_id
        await rig.respond(rig.offer(later), sequence=1)
        assert (await rig.upload(later)).state is State.IN_PROGRESS
