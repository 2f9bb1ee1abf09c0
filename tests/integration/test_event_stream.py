"""`GET /events` from a real server: frames, resumption, the ends of a stream."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx
import pytest
import uvicorn

from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.api.events import stream as routes
from control_plane.api.events.frames import FRAMES
from control_plane.api.server import server_config
from control_plane.domain.changes import UploadCreated, UploadStateChanged
from control_plane.domain.uploads.model import State
from control_plane.observability import Metrics
from control_plane.services.events import streams as module
from control_plane.services.events.streams import EventStreams
from control_plane.settings import Settings
from tests.support.databases import an_upload
from tests.support.fake_services import SECRET, FakeServices, api_over
from tests.support.patience import came_true

PATIENCE: Final = 60.0


@dataclass
class Site:
    """A running server, and what is behind it."""

    port: int
    server: uvicorn.Server
    database: MemoryDatabase
    streams: EventStreams

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    async def add(self, upload_id: str = "u1", error: str | None = None) -> None:
        """Commit a change."""
        change = UploadStateChanged(
            at=1_761_991_200.25,
            client_id="a",
            upload_id=upload_id,
            attempt=1,
            was=State.QUEUED,
            state=State.FAILED,
            error=error,
        )
        await self.database.write(lambda records: records.changes.append([change]))


async def until(condition: Callable[[], object]) -> None:
    """Wait for a fact."""
    assert await asyncio.to_thread(came_true, condition, PATIENCE, 0.01)


@asynccontextmanager
async def serving(**settings: str) -> AsyncIterator[Site]:
    database, metrics = MemoryDatabase(), Metrics()
    streams = EventStreams(database, SystemClock(), metrics, FRAMES)
    api = api_over(FakeServices(), Settings.load(settings), metrics, streams=streams)
    server = uvicorn.Server(server_config(api, "127.0.0.1", 0))
    feeding = asyncio.create_task(streams.run())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield Site(listening.getsockname()[1], server, database, streams)
        finally:
            server.should_exit = True
            await task
            feeding.cancel()


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(module, "PROGRESS_EVERY", 0.05)
    async with serving() as one:
        yield one


@asynccontextmanager
async def following(site: Site, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """The frames of a stream, as their fields."""
    async with (
        httpx.AsyncClient(timeout=PATIENCE) as http,
        http.stream("GET", site.url + query, headers=headers) as got,
    ):
        assert got.status_code == 200
        assert got.headers["content-type"].startswith("text/event-stream")
        yield frames(got)


async def frames(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    frame: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            frame[name] = value
        elif frame:
            yield frame
            frame = {}


async def test_a_change_is_one_frame_with_its_number_as_id(site: Site) -> None:
    async with following(site) as events:
        assert await anext(events) == {"retry": "2000", "id": "0"}
        await site.add(error="line\nbreak")
        frame = await anext(events)
    assert (frame["id"], frame["event"]) == ("1", "upload.state_changed")
    assert json.loads(frame["data"]) == {
        "at": "2025-11-01T10:00:00.250Z",
        "client_id": "a",
        "upload_id": "u1",
        "attempt": 1,
        "was": "queued",
        "state": "failed",
        "error": "line\nbreak",
        "job_id": None,
    }


async def test_a_caller_resumes_after_its_last_event(site: Site) -> None:
    for number in range(4):
        await site.add(f"u{number}")
    async with following(site, **{"Last-Event-ID": "2"}) as events:
        assert [(await anext(events))["id"] for _ in range(3)] == ["2", "3", "4"]


async def test_a_caller_whose_last_event_is_gone_is_told_to_read_again(site: Site) -> None:
    await site.add()
    async with following(site, **{"Last-Event-ID": "99"}) as events:
        frame = await anext(events)
        assert (frame["event"], frame["id"], json.loads(frame["data"])) == ("resync", "1", {"after": 1})


async def test_filters_and_progress(site: Site) -> None:
    async with following(site, "?upload=u1&client=a&type=upload.*") as events:
        await anext(events)
        await site.add("u2")
        upload = an_upload(upload_id="u1", client_id="a", state=State.IN_PROGRESS)
        await site.database.write(lambda records: records.uploads.add(upload))
        frame = await anext(events)
    assert (frame["event"], "id" in frame) == ("upload.progress", False)
    assert json.loads(frame["data"])["upload_id"] == "u1"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?type=upload.creatd", {}),
        ("?client=+", {}),
        ("?colour=red", {}),
        ("", {"Last-Event-ID": "one"}),
        ("?" + "&".join(f"upload=u{number}" for number in range(101)), {}),
    ],
)
async def test_a_wrong_filter_is_refused(site: Site, query: str, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.get(site.url + query, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


async def test_a_head_request_is_answered_and_opens_no_stream(site: Site) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        answer = await http.head(site.url)
    assert (answer.status_code, answer.content, len(site.streams._open)) == (200, b"", 0)


async def test_a_stream_needs_a_token() -> None:
    async with serving(JWT_SECRET=SECRET) as site, httpx.AsyncClient() as http:
        assert (await http.get(site.url)).status_code == 401


async def test_a_stream_ends_with_its_caller(site: Site) -> None:
    async with following(site) as events:
        await anext(events)
        assert len(site.streams._open) == 1
    await until(lambda: not site.streams._open)


async def test_the_server_stops_without_waiting_for_its_streams() -> None:
    async with serving() as site, following(site) as events:
        await anext(events)
        site.server.should_exit = True
        async with asyncio.timeout(PATIENCE / 3):
            assert [one async for one in events] == []


async def test_a_stream_ends_after_its_life(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_LIFE", 0.05)
    async with following(site) as events:
        assert len([one async for one in events]) == 1


async def test_a_caller_that_does_not_read_is_cut(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffers in the kernel are small, so that bytes wait in this process soon."""
    monkeypatch.setattr(module, "MAX_BUFFER", 500_000)
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.settimeout(0)
        await asyncio.get_running_loop().sock_connect(caller, ("127.0.0.1", site.port))
        await asyncio.get_running_loop().sock_sendall(caller, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: any(stream.live for stream in site.streams._open))
        async with asyncio.timeout(PATIENCE), following(site) as events:
            await anext(events)
            while len(site.streams._open) == 2:
                await site.add(error="x" * 200_000)
                await anext(events)
        await until(lambda: not site.server.server_state.connections)
    assert not site.streams._open


async def test_created_changes_have_the_same_form(site: Site) -> None:
    change = UploadCreated(at=0.0, client_id="a", upload_id="u", job_id="j")
    await site.database.write(lambda records: records.changes.append([change]))
    async with following(site, **{"Last-Event-ID": "0"}) as events:
        await anext(events)
        frame = await anext(events)
    assert json.loads(frame["data"]) == {
        "at": "1970-01-01T00:00:00.000Z",
        "client_id": "a",
        "upload_id": "u",
        "job_id": "j",
    }


async def test_a_caller_of_http_1_0_gets_the_frames_without_chunks(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"\n\n") == b"retry: 2000\nid: 0\n\n"
        await until(lambda: any(stream.live for stream in site.streams._open))
        await site.add()
        while (frame := await reader.readuntil(b"\n\n")).startswith(b":"):
            continue
        assert frame.startswith(b"id: 1\nevent: upload.state_changed\ndata: {")
    writer.close()
