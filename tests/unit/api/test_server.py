"""The settings of the HTTP server that depend on what is in front of it, and its signals."""

import asyncio
import re
import signal
import socket
from pathlib import Path

import uvicorn

from control_plane.api.server import WatchedServer, server_config
from tests.support.fake_services import FakeServices, make_api

CADDYFILE = Path(__file__).parents[3] / "deploy" / "production" / "Caddyfile"
NGINX_AND_LOAD_BALANCERS = 60


def config() -> uvicorn.Config:
    return server_config(make_api(FakeServices()), "127.0.0.1", 0)


def test_the_control_plane_keeps_an_idle_connection_longer_than_a_proxy_in_front_of_it() -> None:
    """A request that a proxy sends on a connection that the other end closes at that moment is answered 502."""
    found = re.search(r"transport http \{[^}]*\n\s*keepalive (\d+)s\n", CADDYFILE.read_text())
    assert found
    assert config().timeout_keep_alive > max(int(found[1]), NGINX_AND_LOAD_BALANCERS)


def test_the_event_loop_is_that_of_asyncio_even_where_uvloop_is_installed() -> None:
    """Uvloop calls no reader any more on a descriptor that reports POLLERR: the broker's connection would be deaf."""
    loop = config().get_loop_factory()
    assert loop is not None
    made = loop()
    made.close()
    assert isinstance(made, asyncio.SelectorEventLoop)


async def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head() -> None:
    """Head and body are two writes: with Nagle's algorithm each answer on a kept connection takes 40 ms more.

    The listening socket is made as `backhaul serve` makes it: asyncio itself sets the option only on sockets that name
    their protocol.
    """
    server = uvicorn.Server(config())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve([listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(60):
            await reader.readuntil(b"\r\n\r\n")
        (connection,) = server.server_state.connections
        assert connection.transport is not None
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        writer.close()
        server.should_exit = True
        await task


def test_the_second_signal_has_the_effect_of_the_system() -> None:
    server = WatchedServer(config())
    with server.capture_signals():
        server.handle_exit(signal.SIGTERM, None)
        assert server.should_exit
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        server._captured_signals.clear()
    assert handlers == [signal.SIG_DFL, signal.SIG_DFL]


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    """A shell ignores SIGINT for its background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with WatchedServer(config()).capture_signals():
            inside = signal.getsignal(signal.SIGINT)
        assert (inside, signal.getsignal(signal.SIGINT)) == (signal.SIG_IGN, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGINT, before)
