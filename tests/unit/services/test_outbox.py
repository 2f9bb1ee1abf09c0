"""Performing duties: how many at once, and what their entries hold after a failure and after a success."""

import asyncio

import pytest

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import answer
from control_plane.domain.uploads.model import Upload
from control_plane.services.engine import build_engine
from control_plane.services.errors import (
    DatabaseUnavailable,
    MessengerDown,
    ObjectStoreDown,
    ObjectStoreForbids,
    ServiceError,
)
from control_plane.services.ports.database import OutboxEntry, Subject
from control_plane.services.uploads import outbox
from control_plane.services.uploads.outbox import reason_of
from control_plane.services.uploads.writer import Decision
from schemas.topics import Channel
from tests.support.fakes import OPERATOR, FakeMessenger, Rig


async def entries(rig: Rig, upload: Upload) -> list[OutboxEntry]:
    """The stored duties of an upload."""
    return list(await rig.database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))))


async def stuck(_self: FakeMessenger, _channel: Channel, _client_id: str, _payload: bytes) -> None:
    """A broker that never acknowledges."""
    await asyncio.Event().wait()


async def test_a_flood_of_repeats_is_dropped_and_running_duties_end_with_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each repeat is answered from the state, up to a bound while the broker is stuck."""
    monkeypatch.setattr(outbox, "MAX_RUNNING", 5)
    before = asyncio.all_tasks()
    async with Rig() as rig:
        upload = await rig.granted()
        monkeypatch.setattr(FakeMessenger, "publish", stuck)
        for _ in range(8):
            rig.engine.outbox.perform(Decision(upload.key, upload, answer(upload, rig.clock.now())))
        assert rig.counted("duty.shed") == 3
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_the_error_of_a_duty_is_in_its_entry_and_every_replica_shows_it() -> None:
    async with Rig() as rig:
        await rig.birth()
        rig.messenger.down = True
        upload = (await rig.trigger()).upload
        (entry,) = await entries(rig, upload)
        assert entry.last_error is not None
        assert entry.last_error.reason == Reason(ReasonCode.BROKER_UNAVAILABLE, "the broker is away")
        assert entry.last_error.at == rig.clock.now()
        other = build_engine(rig.ports, lambda *_: None, rig.policy)
        assert (await other.upload_service.upload(OPERATOR, upload.upload_id)).reason == entry.last_error.reason


async def test_a_published_command_clears_the_error_of_its_entry() -> None:
    async with Rig() as rig:
        rig.objects.fails = {"create_multipart": [ObjectStoreDown("503")]}
        upload = await rig.granted()
        (entry,) = await entries(rig, upload)
        assert entry.last_error is not None
        rig.messenger.down = True
        await rig.settle(60)
        (grant,) = await entries(rig, upload)
        assert grant.last_error is not None
        assert grant.last_error.reason.code == ReasonCode.BROKER_UNAVAILABLE
        rig.messenger.down = False
        await rig.birth(sequence=1)
        await rig.settle(20)
        (sent,) = await entries(rig, upload)
        assert (sent.duty, sent.last_error) == (grant.duty, None)
        assert rig.messenger.actions()[-1] == "grant_parts"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MessengerDown("x"), ReasonCode.BROKER_UNAVAILABLE),
        (DatabaseUnavailable("x"), ReasonCode.DATABASE_UNAVAILABLE),
        (ObjectStoreDown("x"), ReasonCode.OBJECT_STORE_UNAVAILABLE),
        (ObjectStoreForbids("x"), ReasonCode.OBJECT_STORE_REFUSED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ServiceError) else "",
)
def test_each_error_has_its_code(error: ServiceError, code: ReasonCode) -> None:
    assert reason_of(error) == Reason(code, "x")
