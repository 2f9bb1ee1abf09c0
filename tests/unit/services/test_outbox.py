"""Doing what uploads oblige to: no more at once than fits, and nothing left behind."""

import asyncio

import pytest

from control_plane.domain.uploads.duties import answer
from control_plane.services.uploads import outbox
from control_plane.services.uploads.decision import Decision
from schemas.topics import Channel
from tests.support.fakes import FakeMessenger, Rig


async def stuck(_self: FakeMessenger, _channel: Channel, _client_id: str, _payload: bytes) -> None:
    """A broker that does not answer."""
    await asyncio.Event().wait()


async def test_a_flood_of_repeats_is_shed_and_what_was_begun_ends_with_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each repeat is answered from the state, but not without bound while the broker is stuck."""
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
