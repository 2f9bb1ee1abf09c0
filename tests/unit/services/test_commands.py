"""Commands to clients: their content, their size, and the URLs in them."""

import msgspec
import pytest

from control_plane.domain.reasons import ReasonCode
from control_plane.domain.uploads.model import PartRecord, State, Upload
from control_plane.services.commands import build_bare_cancel, build_bare_download, build_granted_download
from control_plane.services.errors import BrokerRefused, ObjectStoreDown
from control_plane.services.ports.object_store import Grantable
from schemas.codec import GRANT_FILL_SIZE, encode
from schemas.messages import CancelUpload, DownloadFile, GrantParts
from schemas.parts import MAX_PARTS
from schemas.values import DigestName, PresignedPart, UploadOptions
from tests.support.fakes import FakeMessenger, FakeObjects, Rig
from tests.support.uploads import CHUNK, an_upload, wanted


def fragmented() -> Upload:
    """Every other part of the largest plan is stored, and a hundred of the others are wanted."""
    size = MAX_PARTS * CHUNK
    return an_upload(
        state=State.IN_PROGRESS,
        s3_upload_id="s3-1",
        file_size=size,
        part_size=CHUNK,
        parts={number: PartRecord(etag='"e"') for number in range(2, MAX_PARTS + 1, 2)},
        wanted=wanted(size, *range(1, 200, 2)),
    )


def long_url(_self: object, _key: str, _id: str, part: Grantable, _digest: object) -> PresignedPart:
    return PresignedPart(part.part_number, "http://s3/" + "x" * 1_800)


async def test_a_grant_with_many_completed_ranges_fits_into_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five thousand ranges take more than half of a message."""
    monkeypatch.setattr(FakeObjects, "presign_part", long_url)
    async with Rig() as rig:
        upload, commands = fragmented(), rig.engine.commands
        await commands.publish(
            upload.client_id, commands.build_grant(upload, rig.engine.signer.grant(upload, commands.room))
        )
        grant = rig.last_grant()
        assert (len(grant.completed_parts), len(grant.urls)) == (5_000, 14)
        assert len(encode(rig.messenger.sent[-1][1])) <= GRANT_FILL_SIZE + 1024


async def test_a_grant_for_a_broker_of_small_packets_has_fewer_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the broker announces is obeyed: a grant that is too large would end the connection of every client."""
    monkeypatch.setattr(FakeObjects, "presign_part", long_url)
    async with Rig() as rig:
        rig.messenger.max_message_size = 6000
        upload = msgspec.structs.replace(fragmented(), client_id="c" * 64, upload_id="u" * 64, parts={})
        commands = rig.engine.commands
        command = commands.build_grant(upload, rig.engine.signer.grant(upload, commands.room))
        assert isinstance(command.payload, GrantParts)
        config = command.payload.upload_config
        assert config is not None
        assert len(config.presigned_urls or ()) == 2
        assert len(encode(command)) <= 6000


async def test_a_command_that_does_not_fit_waits_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_self: object, *_: object, **_named: object) -> None:
        message = "a message of 5000 bytes for client-1: the broker takes 4000 bytes at most"
        raise BrokerRefused(message)

    async with Rig() as rig:
        await rig.birth()
        monkeypatch.setattr(FakeMessenger, "publish", refuse)
        upload = (await rig.trigger()).upload
        reason = await rig.reason(upload.upload_id)
        assert (reason.code, "4000 bytes at most" in reason.text) == (ReasonCode.BROKER_REFUSED, True)


async def test_expired_credentials_sign_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent refuses a lifetime of zero seconds as `bad_request`, which would end the upload."""
    async with Rig() as rig:
        monkeypatch.setattr(FakeObjects, "url_lifetime", lambda _self, _wanted: 0.0)
        upload = await rig.granted()
        assert rig.messenger.actions() == ["download_file"]
        reason = await rig.reason(upload.upload_id)
        assert (reason.code, "credentials" in reason.text) == (ReasonCode.OBJECT_STORE_REFUSED, True)


async def test_a_granted_download_has_the_first_urls_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """No digest is known before the file is read, so none is signed."""
    monkeypatch.setattr(FakeObjects, "presign_part", long_url)
    async with Rig() as rig:
        upload = an_upload(
            state=State.DISPATCHED,
            s3_upload_id="s3-1",
            digest=DigestName.NONE,
            file_size=MAX_PARTS * CHUNK,
            part_size=CHUNK,
        )
        command = build_granted_download(upload, rig.engine.signer.pre_grant(upload), "bucket")
        assert isinstance(command.payload, DownloadFile)
        config = command.payload.upload_config
        assert config is not None
        assert (config.upload_id, config.bucket, config.key) == (upload.upload_id, "bucket", upload.s3_key)
        numbers = [part.part_number for part in config.presigned_urls or ()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert GRANT_FILL_SIZE * 0.9 < len(encode(command)) < GRANT_FILL_SIZE + 4096


async def test_no_url_is_signed_before_the_first_good_probe() -> None:
    async with Rig() as rig:
        rig.engine.probe._seen = None
        with pytest.raises(ObjectStoreDown):
            rig.engine.signer.grant(fragmented(), rig.engine.commands.room)
        with pytest.raises(ObjectStoreDown):
            rig.engine.signer.pre_grant(fragmented())


def test_a_bare_download_names_no_owner() -> None:
    command = build_bare_download("u1", "/data/a.bin", UploadOptions(priority=2), {"why": "test"})
    assert isinstance(command.payload, DownloadFile)
    assert (command.message_id, command.payload.upload_config) == ("u1", None)
    assert (command.payload.file_path, command.payload.options.priority) == ("/data/a.bin", 2)


def test_a_bare_cancel_names_no_attempt() -> None:
    command = build_bare_cancel("u1")
    assert isinstance(command.payload, CancelUpload)
    assert (command.payload.upload_id, command.payload.attempt) == ("u1", None)
