"""The proxy causes the configured faults, and none when none is configured."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.support.patience import came_true
from tests.support.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back every byte that it receives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        # Ends the pending accept.
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as running:
        yield running


def opened(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def answered(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        got += connection.recv(65536)
    return got


def test_it_carries_both_ways_and_closes_with_its_ends(proxy: Proxy) -> None:
    with closing(opened(proxy)) as connection:
        data = bytes(range(256)) * 2000
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        got = b""
        while len(got) < len(data):
            got += connection.recv(65536)
        assert got == data
        assert proxy.carried == len(data)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_a_cut_resets_open_connections_and_accepts_new_ones(proxy: Proxy) -> None:
    with closing(opened(proxy)) as connection:
        assert answered(connection, b"before") == b"before"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with closing(opened(proxy)) as connection:
        assert answered(connection, b"after") == b"after"


def test_it_refuses_and_accepts_again_on_the_same_port(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        opened(proxy)
    proxy.accept()
    with closing(opened(proxy)) as connection:
        assert answered(connection, b"again") == b"again"


def test_stalled_bytes_are_delivered_when_it_flows_again(proxy: Proxy) -> None:
    with closing(opened(proxy)) as connection:
        assert answered(connection, b"before") == b"before"
        proxy.stall()
        connection.sendall(b"late")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(60)
        proxy.flow()
        assert connection.recv(10) == b"late"


def test_it_stalls_after_the_given_number_of_bytes(proxy: Proxy) -> None:
    proxy.stall_after(10)
    with closing(opened(proxy)) as connection:
        assert answered(connection, b"x" * 10) == b"x" * 10
        assert not proxy.stalled
        connection.sendall(b"y")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert came_true(lambda: proxy.stalled, 60)
        connection.settimeout(60)
        proxy.flow()
        assert connection.recv(10) == b"y"


def test_a_throttle_limits_the_rate(proxy: Proxy) -> None:
    proxy.throttle(200_000)
    with closing(opened(proxy)) as connection:
        began = time.monotonic()
        assert answered(connection, b"x" * 40_000) == b"x" * 40_000
        assert time.monotonic() - began > 0.15


def test_a_connection_is_reset_once_after_the_given_bytes(proxy: Proxy) -> None:
    proxy.reset_after(10)
    with closing(opened(proxy)) as connection:
        assert answered(connection, b"x" * 9) == b"x" * 9
        connection.sendall(b"y")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with closing(opened(proxy)) as connection:
        assert answered(connection, b"z" * 20) == b"z" * 20
