"""The client's end of a WebSocket: its handshake, its frames in pieces of any size, and frames that are not allowed."""

import base64
import hashlib
import math
import struct
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from device_agent.reach.websocket import PIECE, WebSocket, upgrade
from tests.unit.device_agent.reach.link import ScriptedLink

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE, PING = 0x82, 0x88, 0x89


def frame(first: int, data: bytes) -> bytes:
    """A frame of a server: not masked."""
    size = len(data)
    if size < 126:
        return bytes((first, size)) + data
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data


def unmasked(data: bytes) -> list[tuple[int, bytes]]:
    """The frames that a client sent; fails for one that is not masked."""
    frames = []
    while data:
        assert data[1] & 0x80, "RFC 6455 section 5.1: a client masks every frame"
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = struct.unpack_from("!H", data, 2)[0], 4
        mask, content = data[start : start + 4], data[start + 4 : start + 4 + size]
        frames.append((data[0], bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))))
        data = data[start + 4 + size :]
    return frames


def opened(*script: bytes | None, accepts: tuple[int | None, ...] = ()) -> tuple[WebSocket, ScriptedLink]:
    link = ScriptedLink(script, accepts)
    return WebSocket(cast("Any", link)), link


def read_all(websocket: WebSocket, size: int = 7) -> bytes:
    data = b""
    while True:
        try:
            more = websocket.recv(size)
        except BlockingIOError:
            continue
        if not more:
            return data
        data += more


@given(
    st.lists(st.binary(max_size=200), max_size=5),
    st.integers(1, 100),
    st.integers(1, 300),
)
@example([b"x" * size for size in (125, 126, 65_535, 65_536)], 1001, 3000)
def test_what_the_server_sends_is_one_stream(contents: list[bytes], cut: int, size: int) -> None:
    wire = b"".join(frame(BINARY, one) for one in contents)
    pieces: list[bytes | None] = []
    for at in range(0, len(wire), cut):
        pieces += [None, wire[at : at + cut]]
    websocket, _ = opened(*pieces)
    assert read_all(websocket, size) == b"".join(contents)


@given(st.binary(max_size=3 * PIECE), st.lists(st.none() | st.integers(1, 9000), max_size=30))
def test_what_is_sent_arrives_although_the_socket_takes_pieces(data: bytes, accepts: list[int | None]) -> None:
    websocket, link = opened(accepts=tuple(accepts))
    left = data
    while left:
        try:
            left = left[websocket.send(left) :]
        except BlockingIOError:
            continue
    frames = unmasked(bytes(link.sent))
    assert b"".join(content for _, content in frames) == data
    assert {first for first, _ in frames} <= {BINARY}
    assert all(len(content) <= PIECE for _, content in frames)


def test_a_ping_between_two_pieces_of_a_message_is_answered_with_a_masked_pong() -> None:
    websocket, link = opened(frame(0x02, b"one "), frame(PING, b"are you there"), frame(0x80, b"message"))
    assert read_all(websocket) == b"one message"
    assert unmasked(bytes(link.sent)) == [(0x8A, b"are you there")]


def test_of_many_pings_only_the_latest_is_answered_while_nothing_can_be_sent() -> None:
    pings = [frame(PING, b"%d" % number) for number in range(1000)]
    websocket, link = opened(*pings, accepts=(3, *[None] * 2000))
    read_all(websocket)
    assert len(websocket._out) < 200
    link._accepts.clear()
    websocket.send(b"x")
    assert unmasked(bytes(link.sent)) == [(0x8A, b"0"), (0x8A, b"999"), (BINARY, b"x")]


def test_a_pong_never_comes_into_the_middle_of_a_frame() -> None:
    websocket, link = opened(frame(PING, b"p"), None, accepts=(5, None, 1, None))
    with pytest.raises(BlockingIOError):
        websocket.send(b"message")
    with pytest.raises(BlockingIOError):
        websocket.recv(1)
    with pytest.raises(BlockingIOError):
        websocket.send(b"message")
    assert websocket.send(b"message") == 7
    assert unmasked(bytes(link.sent)) == [(BINARY, b"message"), (0x8A, b"p")]


def test_a_close_frame_is_the_end() -> None:
    websocket, link = opened(frame(BINARY, b"a"), frame(CLOSE, b"\x03\xe8"), frame(BINARY, b"b"))
    assert read_all(websocket) == b"a"
    websocket.close()
    assert (unmasked(bytes(link.sent)), link.closed) == ([(CLOSE, b"\x03\xe8")], True)


def test_frames_without_content_do_not_keep_the_reader() -> None:
    websocket, _ = opened(*[frame(BINARY, b"")] * 1000, frame(BINARY, b"a"))
    calls = 0
    while True:
        calls += 1
        try:
            assert websocket.recv(1) == b"a"
            break
        except BlockingIOError:
            continue
    assert 10 < calls < 100


@pytest.mark.parametrize(
    "wire",
    [
        frame(0x81, b"text"),
        frame(0x83, b"reserved"),
        frame(0x8B, b"reserved"),
        frame(0xC2, b"compressed"),
        bytes((0x82, 0x81, 1, 2, 3, 4, 5)),
        frame(PING, b"x" * 126),
        frame(CLOSE, b"x" * 70_000),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_a_frame_that_is_not_allowed_ends_the_connection(wire: bytes) -> None:
    websocket, _ = opened(wire)
    with pytest.raises(ConnectionError, match="frame that is not allowed"):
        websocket.recv(1)


def test_a_frame_of_any_size_costs_what_the_reader_asks_for() -> None:
    websocket, _ = opened(struct.pack("!BBQ", BINARY, 127, 2**62), b"x" * 1000)
    assert websocket.recv(10) == b"x" * 10
    assert not websocket._head


class Server(ScriptedLink):
    """Answers the request for a WebSocket with what `answer` makes of its key."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._answer = answer

    def sendall(self, data: bytes) -> None:
        super().sendall(data)
        [key] = [line[19:] for line in data.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: ")]
        self._script.append(self._answer(key))


def accepted(key: bytes, more: bytes = b"Sec-WebSocket-Protocol: mqtt\r\n") -> bytes:
    value = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    return b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: %s\r\n%s\r\n" % (value, more)


def ask(answer: Callable[[bytes], bytes], host: str = "broker.example") -> tuple[WebSocket, str]:
    server = Server(answer)
    return upgrade(cast("Any", server), host, 443, "/mqtt", math.inf), server.sent.decode()


def test_the_handshake_asks_for_mqtt_and_leaves_what_follows() -> None:
    websocket, request = ask(lambda key: accepted(key) + frame(BINARY, b"first"))
    assert websocket.recv(5) == b"first"
    assert request.startswith("GET /mqtt HTTP/1.1\r\nHost: broker.example:443\r\n")
    assert "\r\nSec-WebSocket-Protocol: mqtt\r\n" in request


def test_an_address_of_ipv6_has_brackets_in_the_handshake() -> None:
    assert "\r\nHost: [::1]:443\r\n" in ask(accepted, "::1")[1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: b"HTTP/1.1 404 Not Found\r\n\r\n", "no WebSocket at /mqtt: the server answers HTTP 404"),
        (lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", "answers HTTP 302"),
        (lambda _: b"HTTP/1.1 200 OK\r\n\r\n<html>", "answers HTTP 200"),
        (lambda _: b"\x20\x02\x00\x00\x00", "does not speak HTTP"),
        (lambda _: b"", "closed at once"),
        (lambda _: accepted(b"another"), "does not know the key"),
        (lambda _: b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "does not know the key"),
        (lambda key: accepted(key, b"Sec-WebSocket-Protocol: chat\r\n"), "not for MQTT"),
        (lambda _: b"HTTP/1.1 101 S\r\n" + b"A: b\r\n" * 10_000, "has no end"),
    ],
)
def test_a_server_that_is_no_websocket_for_mqtt_is_named(answer: Callable[[bytes], bytes], reason: str) -> None:
    with pytest.raises(ConnectionError, match=reason.replace("(", r"\(")):
        ask(answer)
