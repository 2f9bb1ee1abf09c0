"""Callers that never finish a sentence, against a real uvicorn: each is cut off, and nobody else waits for them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx
import pytest
import uvicorn

from control_plane.api.server import MAX_HEAD, PromptProtocol, server_config
from control_plane.observability import Metrics
from control_plane.settings import Settings
from tests.support.fake_services import FakeServices, api_over

DEADLINE: Final = 0.4
LONG: Final = 3.0
"""The deadline (s) where something has to happen before it."""

STALL: Final = 4.0
"""How late (s) a busy machine may be; a deadline that every byte puts off would cost a whole head's time more."""

PATIENCE: Final = 15.0
HEAD: Final = b"POST /trigger-download/restaurant-1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Where REST is served, with deadlines short enough to wait for."""
    async with serving(monkeypatch, DEADLINE) as bound:
        yield bound


@pytest.fixture
async def lenient(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """The same with deadlines that are far away."""
    async with serving(monkeypatch, LONG) as bound:
        yield bound


@asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch, deadline: float) -> AsyncIterator[int]:
    """A running server's port."""
    monkeypatch.setattr(PromptProtocol, "head_deadline", deadline)
    api = api_over(FakeServices(), Settings.load({}), Metrics(), receipt_deadline=deadline)
    server = uvicorn.Server(server_config(api, "127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def everything(reader: asyncio.StreamReader) -> bytes:
    """All that is said before the connection ends; whoever talks on after that is reset, which ends it too."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(4096):
            heard += piece
    return heard


async def told(port: int, *pieces: bytes, pause: float = 0.05) -> tuple[bytes, float]:
    """What a caller hears that sends these pieces slowly, and after how many seconds the connection is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    heard = asyncio.create_task(everything(reader))
    try:
        async with asyncio.timeout(PATIENCE):
            for piece in pieces:
                if heard.done():
                    break
                writer.write(piece)
                await asyncio.wait([heard], timeout=pause)
            return await heard, time.monotonic() - began
    finally:
        heard.cancel()
        writer.close()


def check_cut(answer: bytes, seconds: float) -> None:
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert DEADLINE * 0.9 <= seconds < DEADLINE + STALL


async def test_a_caller_that_says_nothing_is_cut_off(port: int) -> None:
    check_cut(*await told(port))


async def test_a_head_that_trickles_is_cut_off(port: int) -> None:
    check_cut(*await told(port, *(bytes([letter]) for letter in HEAD)))


async def test_headers_without_end_are_cut_off(port: int) -> None:
    check_cut(*await told(port, HEAD, *(b"X-%d: y\r\n" % n for n in range(500))))


async def test_a_body_that_trickles_is_cut_off(port: int) -> None:
    answer, seconds = await told(port, HEAD + b"Content-Length: 1000\r\n\r\n", *([b" "] * 500))
    check_cut(answer, seconds)
    assert b"application/problem+json" in answer


async def test_chunks_that_trickle_are_cut_off(port: int) -> None:
    check_cut(*await told(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *([b"1\r\n \r\n"] * 500)))


async def test_a_second_request_that_trickles_is_cut_off(port: int) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer, seconds = await told(port, whole, *(bytes([letter]) for letter in HEAD))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer
    assert seconds < DEADLINE + STALL


async def test_a_body_without_end_is_cut_off_by_its_size(lenient: int) -> None:
    pieces = [b"2000\r\n" + b" " * 8192 + b"\r\n"] * 20
    answer, _ = await told(lenient, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *pieces, pause=0.005)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_head_without_end_is_cut_off_by_its_size(lenient: int) -> None:
    answer, seconds = await told(lenient, HEAD + b"X: " + b"y" * (2 * MAX_HEAD), pause=0.01)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert seconds < LONG


async def test_a_caller_that_pauses_between_requests_is_served(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        first = await http.get("/health")
        await asyncio.sleep(DEADLINE * 2)
        second = await http.post("/trigger-download/restaurant-1", json={})
    assert (first.status_code, second.status_code) == (200, 200)


async def test_nobody_waits_for_slow_callers(lenient: int) -> None:
    slow = [asyncio.create_task(told(lenient, *(bytes([letter]) for letter in HEAD))) for _ in range(50)]
    await asyncio.sleep(0.1)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{lenient}", trust_env=False) as http:
        answer = await http.get("/clients")
        cut_off = [caller for caller in slow if caller.done()]
    answers = await asyncio.gather(*slow)
    assert answer.status_code == 200
    assert cut_off == []
    assert {heard[:12] for heard, _ in answers} == {b"HTTP/1.1 408"}
