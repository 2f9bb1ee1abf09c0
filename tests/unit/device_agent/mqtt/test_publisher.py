"""What the agent publishes to a broker that takes small messages only."""

import logging
from pathlib import Path

import pytest

from device_agent.inbox import Connected, EffectDone
from device_agent.transfer.events import Digested, Opened
from schemas.codec import decode, decode_response
from schemas.messages import FileEntry, FileList, Hello, Nothing, Presence, Response, Status, UploadReport
from schemas.parts import MIB
from schemas.topics import Channel
from tests.unit.device_agent.agent_loop import AgentLoop
from tests.unit.device_agent.device import fingerprint

SMALL = 4096
LARGE_FILE = fingerprint(500 * MIB)


def responses(loop: AgentLoop) -> list[Response]:
    """The published responses."""
    return [decode_response(data) for data in loop.network.published if b'"action"' in data]


def test_a_request_is_made_with_fewer_parts(tmp_path: Path) -> None:
    """An owner grants what is requested, and the agent requests the rest later."""
    loop = AgentLoop(tmp_path)
    loop.network.room = SMALL
    loop.agent.turn([Connected(), loop.command("download_file", file_path="/d/a", upload_config=tiny_parts())])
    run = loop.agent.uploads.get("u1")
    assert run is not None
    loop.agent.turn([EffectDone(run, run.session, Opened(now=1.0, fingerprint=LARGE_FILE), "open")])
    digests = dict.fromkeys(range(1, 101), "x" * 400)
    loop.agent.turn([EffectDone(run, run.session, Digested(now=1.0, digests=digests), "digest")])
    assert max(map(len, loop.network.published)) <= SMALL
    offer = responses(loop)[-1]
    assert isinstance(offer.payload, UploadReport)
    assert (offer.status, offer.error) == ("in_progress", None)
    asked = [part.part_number for part in offer.payload.wanted_parts]
    assert asked == list(range(1, len(asked) + 1))
    assert run.transfer.request is not None
    assert 1 <= len(asked) < len(run.transfer.request.numbers)


def tiny_parts() -> dict[str, object]:
    """The smallest parts, so that a window has many."""
    return {"upload_id": "u1", "chunk_size": 5 * MIB}


def test_a_hello_and_a_status_are_made_to_fit(tmp_path: Path) -> None:
    """Long paths, many uploads: more pages of a hello, fewer entries of a status."""
    loop = AgentLoop(tmp_path)
    loop.network.room = SMALL
    path = "/d/" + "x" * 3_000
    many = [loop.command("download_file", n, upload_id=f"{n:064}", file_path=path) for n in range(1, 65)]
    loop.agent.turn(many)
    loop.agent.turn([Connected()])
    for _ in range(3):
        loop.now += 1.0
        loop.agent.turn([])
    assert max(map(len, loop.network.published)) <= SMALL
    pages = [one.payload for one in responses(loop) if isinstance(one.payload, Hello)]
    assert sum(len(page.active) for page in pages) == 64
    assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]
    statuses = [decode(Status, data) for data in loop.network.published if b'"current_upload"' in data]
    assert statuses
    assert all(status.current_upload is not None for status in statuses)


def test_what_cannot_be_made_smaller_fails_with_its_reason_and_stops_nothing(tmp_path: Path) -> None:
    """A listing, for example; the next response is published."""
    loop = AgentLoop(tmp_path)
    loop.network.room = SMALL
    loop.agent.turn([Connected()])
    files = FileList(tuple(FileEntry(f"/d/{number}", 1, 1) for number in range(1_000)))
    publisher = loop.agent._publisher
    publisher.enqueue(Response("q1", "list_files", "success", files))
    publisher.enqueue(Response("q2", "list_files", "success", FileList()))
    loop.agent.turn([])
    failed, fine = responses(loop)[-2:]
    assert (failed.message_id, failed.status, failed.error) == ("q1", "error", "internal")
    assert failed.message == f"the answer is too large: the broker takes at most {SMALL} bytes"
    assert isinstance(failed.payload, Nothing | FileList)
    assert (fine.message_id, fine.status) == ("q2", "success")


def test_a_presence_that_the_broker_does_not_take_stops_no_response(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is dropped, and tried again with the next beat; the connection logs its size."""
    loop = AgentLoop(tmp_path)
    loop.network.room = 150
    refused: list[Channel] = []

    def publish(channel: Channel, data: bytes, *, expiry: int | None = None, traceparent: str | None = None) -> bool:
        if len(data) > loop.network.room:
            refused.append(channel)
            return False
        loop.network.published.append(data)
        return True

    loop.network.publish = publish  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        loop.agent.turn([Connected()])
        loop.agent.turn([])
    assert refused == [Channel.PRESENCE]
    assert not any(b'"install_id"' in data and b'"online"' in data for data in loop.network.published)
    loop.network.room = SMALL
    loop.now += 31.0
    loop.agent.turn([])
    assert decode(Presence, loop.network.published[-1]).status == "online"
