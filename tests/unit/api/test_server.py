"""The settings of the HTTP server that depend on what is in front of it, and its signals."""

import asyncio
import re
import signal
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
