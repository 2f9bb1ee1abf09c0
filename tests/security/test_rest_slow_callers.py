"""Slow callers against a real uvicorn: each connection is closed, and other callers do not wait."""

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
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.api.server import MAX_HEAD, PromptProtocol, ProxiedProtocol, server_config
from control_plane.observability import Metrics
from control_plane.settings import Settings
from tests.support.fake_services import FakeServices, api_over

DEADLINE: Final = 0.4
LONG: Final = 60.0
"""Seconds: the deadline where something must happen before it."""

PATIENCE: Final = 60.0
HEAD: Final = b"POST /trigger-download/restaurant-1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """The port of a server with short deadlines."""
    async with serving(monkeypatch, DEADLINE) as bound:
        yield bound


@pytest.fixture
async def lenient(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """The port of a server with long deadlines."""
    async with serving(monkeypatch, LONG) as bound:
        yield bound


@asynccontextmanager
async def serving(
    monkeypatch: pytest.MonkeyPatch, deadline: float, app: ASGIApp | None = None, *, behind_proxy: bool = False
) -> AsyncIterator[int]:
    """The port of a running server of REST, or of `app`."""
    monkeypatch.setattr(PromptProtocol, "head_deadline", deadline)
    monkeypatch.setattr(PromptProtocol, "write_deadline", deadline)
    api = app or api_over(FakeServices(), Settings.load({}), Metrics(), receipt_deadline=deadline)
    server = uvicorn.Server(server_config(api, "127.0.0.1", 0, behind_proxy=behind_proxy))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def everything(reader: asyncio.StreamReader) -> bytes:
    """All bytes until the connection ends; a reset ends it too, when the caller still sends."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(4096):
            received += piece
    return received


async def answer_to(port: int, *pieces: bytes, pause: float = 0.05) -> tuple[bytes, float]:
    """Send the pieces slowly; the answer, and the seconds until the connection was closed.

    It has to be closed before the last piece is sent: a deadline that every byte extends closes it after. The server
    is in the same event loop, so that a busy machine delays both.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    received = asyncio.create_task(everything(reader))
    try:
        async with asyncio.timeout(PATIENCE):
            for piece in pieces:
                writer.write(piece)
                if (await asyncio.wait([received], timeout=pause))[0]:
                    break
            else:
                assert not pieces, "every piece was taken"
            return await received, time.monotonic() - began
    finally:
        received.cancel()
        writer.close()


def check_closed(answer: bytes, seconds: float) -> None:
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert seconds >= DEADLINE * 0.9


async def test_a_silent_connection_is_closed(port: int) -> None:
    check_closed(*await answer_to(port))


async def test_a_slow_head_is_closed(port: int) -> None:
    check_closed(*await answer_to(port, *(bytes([letter]) for letter in HEAD)))


async def test_endless_headers_are_closed(port: int) -> None:
    check_closed(*await answer_to(port, HEAD, *(b"X-%d: y\r\n" % n for n in range(500))))


async def test_a_slow_body_is_closed(port: int) -> None:
    answer, seconds = await answer_to(port, HEAD + b"Content-Length: 1000\r\n\r\n", *([b" "] * 500))
    check_closed(answer, seconds)
    assert b"application/problem+json" in answer


async def test_a_slow_chunked_body_is_closed(port: int) -> None:
    check_closed(*await answer_to(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *([b"1\r\n \r\n"] * 500)))


async def test_a_slow_second_request_is_closed(port: int) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer, _ = await answer_to(port, whole, *(bytes([letter]) for letter in HEAD))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


async def test_an_endless_body_is_closed_at_its_limit(lenient: int) -> None:
    pieces = [b"2000\r\n" + b" " * 8192 + b"\r\n"] * 10_000
    answer, _ = await answer_to(lenient, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *pieces, pause=0.005)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_an_endless_head_is_closed_at_its_limit(lenient: int) -> None:
    answer, _ = await answer_to(lenient, HEAD + b"X: " + b"y" * (2 * MAX_HEAD), pause=PATIENCE)
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_caller_that_pauses_between_requests_is_served(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        first = await http.get("/health")
        await asyncio.sleep(DEADLINE * 2)
        second = await http.post("/trigger-download/restaurant-1", json={})
    assert (first.status_code, second.status_code) == (200, 200)


async def test_other_callers_do_not_wait_for_slow_ones(lenient: int) -> None:
    async with idle_callers(lenient, 50, HEAD) as callers:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{lenient}", trust_env=False) as http:
            answer = await http.get("/clients")
        assert answer.status_code == 200
        assert not any(caller.at_eof() for caller in callers), "they still send"


# Callers that do not read their answer.

HUGE: Final = 24 * 1024 * 1024
"""Bytes: more than the buffers of both kernels take."""


async def huge_answer(scope: Scope, receive: Receive, send: Send) -> None:
    """An application whose answers are huge; it has no lifespan."""
    if scope["type"] == "http":
        await Response(bytes(HUGE))(scope, receive, send)


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_caller_that_does_not_read_its_answer_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, connection: str
) -> None:
    """A deadline for what is received is no deadline for what is sent: each direction needs its own."""
    lost = asyncio.Event()
    end = PromptProtocol.connection_lost

    def connection_lost(self: PromptProtocol, error: Exception | None) -> None:
        lost.set()
        end(self, error)

    monkeypatch.setattr(PromptProtocol, "connection_lost", connection_lost)
    async with serving(monkeypatch, DEADLINE, huge_answer) as port:
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.settimeout(0)
            request = f"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"
            await asyncio.get_running_loop().sock_sendall(caller, request.encode())
            received = 0
            async with asyncio.timeout(PATIENCE):
                await lost.wait()
                with contextlib.suppress(ConnectionError):
                    while piece := await asyncio.get_running_loop().sock_recv(caller, 1 << 20):
                        received += len(piece)
    assert received < HUGE


async def test_a_caller_that_reads_slowly_gets_its_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch, LONG, huge_answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        # Longer than a busy machine stands still, and shorter than the whole answer takes.
        monkeypatch.setattr(PromptProtocol, "write_deadline", 1.0)
        size = 0
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(1 << 18):
                size += len(piece)
                await asyncio.sleep(0.015)
        writer.close()
    assert size > HUGE


# Callers with many connections.


@asynccontextmanager
async def idle_callers(port: int, count: int, sent: bytes = b"") -> AsyncIterator[list[asyncio.StreamReader]]:
    """The readers of connections that send this and no more, in the order in which they connected."""
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(sent)
            readers.append(reader)
        yield readers


async def status_of(port: int, path: str, method: str = "GET") -> int:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        return (await http.request(method, path)).status_code


@pytest.mark.parametrize("limit", ["most", "most_of_peer"])
async def test_idle_connections_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """A limit that all callers share must not be filled by one of them: who has waited longest gives its place."""
    monkeypatch.setattr(PromptProtocol, limit, 5)
    async with serving(monkeypatch, LONG) as port, idle_callers(port, 20) as callers:
        assert [await status_of(port, path) for path in ("/health", "/clients")] == [200, 200]
        async with asyncio.timeout(PATIENCE):
            closed = [await everything(caller) for caller in callers[:15]]
        assert closed == [b""] * 15
        assert not any(caller.at_eof() for caller in callers[-3:])


async def test_where_every_connection_has_a_request_only_health_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptProtocol, "most_of_peer", 5)
    async with serving(monkeypatch, LONG) as port, contextlib.AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        while await status_of(port, "/clients") != 503:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        assert [await status_of(port, "/health", method) for method in ("GET", "HEAD")] == [200, 200]
        await stack.aclose()
        while await status_of(port, "/clients") != 200:  # noqa: ASYNC110 - the fact is in another program
            await asyncio.sleep(0.05)


async def test_behind_a_proxy_one_address_is_every_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptProtocol, "most_of_peer", 5)
    assert ProxiedProtocol.most_of_peer is None
    async with serving(monkeypatch, LONG, behind_proxy=True) as port, idle_callers(port, 20) as callers:
        assert await status_of(port, "/clients") == 200
        assert not any(caller.at_eof() for caller in callers)
