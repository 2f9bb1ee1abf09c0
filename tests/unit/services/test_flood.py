"""One client floods the control plane, with every kind of message, beside a client that behaves.

Rule: the kind of fault is a device's input without a budget, and queues in which one client stands in front of all.
"""

import asyncio

import msgspec
import pytest

from control_plane.services.budget import MESSAGES
from control_plane.services.clients.resync import PAGES
from control_plane.services.ports.messenger import Delivered
from control_plane.services.uploads.outbox import RELEASES
from control_plane.services.uploads.service import TriggerRequest
from control_plane.services.uploads.writer import MAX_OF_ONE
from schemas.codec import encode
from schemas.messages import ActiveUpload, CurrentUpload, Hello, Response, Status, UploadReport
from schemas.topics import Channel
from tests.support.fakes import CLIENT, OPERATOR, Rig

LOUD = "loud-1"
MOST_TURNS = 100
"""Turns of the event loop from a trigger to its command: a handful, and some for each batch that is under way."""


def flood(rig: Rig, channel: Channel, payload: bytes) -> None:
    """One message of the loud client."""
    rig.engine.inbox.receive(Delivered(rig.topics.of(LOUD, channel), payload))


def report(number: int, status: str) -> bytes:
    """A response about an upload that no control plane knows."""
    about = UploadReport(upload_id=f"x{number}", owner="control-plane", file_path="/x")
    return encode(Response(f"m{number}", "download_file", status, about, sequence=1))


async def check_served(rig: Rig) -> None:
    """A trigger for the good client is answered and published, though the queues are full of the loud one's."""
    before = len(rig.messenger.sent)
    triggering = asyncio.create_task(rig.engine.upload_service.trigger(OPERATOR, TriggerRequest(CLIENT)))
    for _ in range(MOST_TURNS):
        await asyncio.sleep(0)
        if any(client == CLIENT for client, _ in rig.messenger.sent[before:]):
            break
    else:
        pytest.fail("the command waits behind another client's messages")
    await triggering


async def test_statuses_of_thousands_of_uploads_are_refused_before_they_cost_anything() -> None:
    async with Rig() as rig:
        await rig.birth()
        entries = [{"upload_id": f"u{number}"} for number in range(4_000)]
        large = msgspec.json.encode({"status": "uploading", "uploads": entries})
        for _ in range(32):
            flood(rig, Channel.STATUS, large)
        await check_served(rig)
        assert rig.counted("message.refused") == 32
        assert rig.counted("event.shed") == 0


async def test_full_statuses_are_taken_at_the_rate_of_an_agent() -> None:
    """And of their events no more wait than one client may have."""
    async with Rig() as rig:
        await rig.birth()
        for number in range(1_000):
            entries = tuple(CurrentUpload(f"u{number}-{one}", bytes_sent=7) for one in range(64))
            flood(rig, Channel.STATUS, encode(Status("uploading", uploads=entries)))
        taken = int(MESSAGES[Channel.STATUS].burst)
        assert rig.counted("message.shed") == 1_000 - taken
        assert rig.counted("event.shed") == taken * 64 - MAX_OF_ONE
        await check_served(rig)
        assert rig.engine.client_service._budget.noisy(LOUD)
        assert not rig.engine.client_service._budget.noisy(CLIENT)


async def test_hellos_of_unknown_uploads_close_a_bounded_number() -> None:
    async with Rig() as rig:
        await rig.birth()
        for number in range(100):
            listed = tuple(ActiveUpload(f"u{number}-{one}", 1, 1, "success", "control-plane") for one in range(500))
            hello = Response("m", "hello", "success", Hello("install", listed), epoch=1)
            flood(rig, Channel.RESPONSE, encode(hello))
        await check_served(rig)
        assert rig.counted("hello.shed") == 100 - PAGES.burst
        await rig.settle()
        closes = [command for client, command in rig.messenger.sent if client == LOUD]
        # One hello of a client waits at a time, so of a hundred in one moment the last one taken is answered.
        assert len(closes) == RELEASES.burst
        assert rig.counted("release.shed") == 500 - RELEASES.burst


@pytest.mark.parametrize("status", ["in_progress", "success", "error"])
async def test_responses_about_unknown_uploads_wait_in_a_lane_of_their_own(status: str) -> None:
    async with Rig() as rig:
        await rig.birth()
        for number in range(6_000):
            flood(rig, Channel.RESPONSE, report(number, status))
        await check_served(rig)
        assert rig.counted("message.shed") == 1_000
        assert rig.counted("event.shed") == 5_000 - MAX_OF_ONE
        await rig.settle()
        assert sum(client == LOUD for client, _ in rig.messenger.sent) <= RELEASES.burst


async def test_presence_beyond_any_agents_is_dropped() -> None:
    async with Rig() as rig:
        for number in range(1_000):
            presence = {"client_id": LOUD, "status": "online", "install_id": "i", "epoch": number, "sequence": 0}
            flood(rig, Channel.PRESENCE, msgspec.json.encode(presence))
        assert rig.counted("message.shed") == 1_000 - MESSAGES[Channel.PRESENCE].burst
        await rig.birth()
        await check_served(rig)


async def test_a_storm_of_clients_is_within_every_budget() -> None:
    """Two thousand clients connect in one moment: presence and hello of each are taken, and none is noisy."""
    async with Rig() as rig:
        for number in range(2_000):
            name = f"storm-{number}"
            presence = {"client_id": name, "status": "online", "install_id": name, "epoch": 1, "sequence": 0}
            hello = Response("m", "hello", "success", Hello(name, ()), epoch=1)
            for channel, payload in (
                (Channel.PRESENCE, msgspec.json.encode(presence)),
                (Channel.RESPONSE, encode(hello)),
            ):
                rig.engine.inbox.receive(Delivered(rig.topics.of(name, channel), payload))
        await asyncio.sleep(0.2)
        await rig.settle()
        assert [name for name, _ in rig.events if name.endswith(".shed")] == []
