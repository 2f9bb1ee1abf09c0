"""What is said to clients: messages that fit, and URLs that live."""

import pytest

from control_plane.domain.uploads.model import PartRecord, State, Upload
from control_plane.services.ports.object_store import Grantable
from schemas.codec import GRANT_FILL_SIZE, encode
from schemas.parts import MAX_PARTS
from schemas.values import PresignedPart
from tests.support.fakes import FakeObjects, Rig
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


async def test_a_grant_fits_whatever_is_stored_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five thousand ranges take more than half of a message."""

    def long(_self: object, _key: str, _id: str, part: Grantable, _digest: object) -> PresignedPart:
        return PresignedPart(part.part_number, "http://s3/" + "x" * 1_800)

    monkeypatch.setattr(FakeObjects, "presign_part", long)
    async with Rig() as rig:
        upload, commands = fragmented(), rig.engine.commands
        await commands.publish(upload.client_id, commands.build_grant(upload, rig.engine.signer.grant(upload)))
        grant = rig.last_grant()
        assert (len(grant.completed_parts), len(grant.urls)) == (5_000, 14)
        assert len(encode(rig.messenger.sent[-1][1])) <= GRANT_FILL_SIZE + 1024


async def test_nothing_is_granted_with_credentials_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent refuses a life of no seconds as `bad_request`, which would end the upload."""
    monkeypatch.setattr(FakeObjects, "url_lifetime", lambda _self, _wanted: 0.0)
    async with Rig() as rig:
        upload = await rig.granted()
        assert rig.messenger.actions() == ["download_file"]
        assert "credentials" in (await rig.reason(upload.upload_id)).text
