"""A small MQTT v5 client on a blocking socket, for tests about what a broker really puts on the wire.

Rule: it hides nothing. No reconnects, no threads, no automatic acknowledgements; every reason code is returned, and
`send` takes raw bytes.

    with connected(port, Connect("restaurant-1")) as wire:
        assert wire.publish("fleet/v1/restaurant-1/response", b"{}") == 0
"""

import itertools
import socket
import ssl
import struct
import time
from collections import deque
from typing import Final, Self

import pytest

from tests.support.mqtt_packets import (
    Connect,
    Kind,
    Packet,
    Property,
    Value,
    decode,
    encode_properties,
    encode_text,
    frame,
    take_frame,
)

TIMEOUT: Final = 60.0
"""Seconds to wait for an answer that has to come."""

SOON: Final = 0.25
"""Seconds within which a message that must not come would have come."""


class Closed(Exception):
    """The broker closed the connection without a DISCONNECT."""


class Wire:
    """One connection. Publishes that arrive while an answer is awaited are kept for `receive`."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._kept: deque[Packet] = deque()
        self._ids = itertools.cycle(range(1, 65536))
        self.connack: Packet | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def connect(self, connect: Connect) -> Packet:
        """Send CONNECT; the CONNACK, or the DISCONNECT of a broker that refuses."""
        self.send(connect.encode())
        self.connack = self._await(Kind.CONNACK)
        return self.connack

    @property
    def session_present(self) -> bool:
        """Whether the broker went on with an earlier session."""
        return self.connack is not None and self.connack.session_present

    def subscribe(self, *filters: str, qos: int = 1, options: int = 0) -> tuple[int, ...]:
        """Subscribe; the reason codes. `options` are the bits of 3.8.3.1 above the QoS."""
        body = struct.pack(">H", next(self._ids)) + encode_properties({})
        body += b"".join(encode_text(text) + bytes((qos | options,)) for text in filters)
        self.send(frame(Kind.SUBSCRIBE, body, flags=2))
        return self._await(Kind.SUBACK).codes

    def publish(self, topic: str, payload: bytes = b"", *, qos: int = 1, retain: bool = False, **named: Value) -> int:
        """Publish; the reason code of the PUBACK, or of the DISCONNECT that came instead; 0 at QoS 0.

        Further names are those of `Property` in lower case: `message_expiry=3`, `user=[("k", "v")]`.
        """
        properties = {Property[name.upper()].value: value for name, value in named.items()}
        packet_id = struct.pack(">H", next(self._ids)) if qos else b""
        body = encode_text(topic) + packet_id + encode_properties(properties) + payload
        self.send(frame(Kind.PUBLISH, body, flags=qos << 1 | retain))
        return self._await(Kind.PUBACK).reason if qos else 0

    def receive(self, timeout: float = TIMEOUT) -> Packet:
        """The next PUBLISH, not acknowledged; `TimeoutError` when none comes."""
        return self._kept.popleft() if self._kept else self._next(Kind.PUBLISH, timeout)

    def received(self, timeout: float, *, acknowledge: bool = True) -> list[Packet]:
        """Every PUBLISH that comes within `timeout` seconds."""
        deadline, packets = time.monotonic() + timeout, list[Packet]()
        while (left := deadline - time.monotonic()) > 0:
            try:
                packets.append(self.receive(left))
            except TimeoutError:
                break
            if acknowledge:
                self.acknowledge(packets[-1])
        return packets

    def gathered(self, count: int, *, acknowledge: bool = True) -> list[Packet]:
        """The next `count` PUBLISHes, however long each takes, and what comes soon after: too few, or too many."""
        packets = list[Packet]()
        while len(packets) < count:
            try:
                packets.append(self.receive())
            except TimeoutError:
                return packets
            if acknowledge:
                self.acknowledge(packets[-1])
        return packets + self.received(SOON, acknowledge=acknowledge)

    def acknowledge(self, packet: Packet, reason: int = 0) -> None:
        """PUBACK, where the packet requires one."""
        if packet.qos:
            self.send(frame(Kind.PUBACK, struct.pack(">HB", packet.packet_id, reason) + encode_properties({})))

    def ping(self) -> None:
        """A round trip: everything sent before has been handled by the broker, which keeps the connection."""
        self.send(frame(Kind.PINGREQ, b""))
        answer = self._await(Kind.PINGRESP)
        assert answer.kind is Kind.PINGRESP, answer

    @property
    def alive(self) -> bool:
        """Whether the broker still answers."""
        try:
            self.ping()
        except (AssertionError, Closed, ConnectionError):
            return False
        return True

    def disconnected(self, timeout: float = TIMEOUT) -> int | None:
        """Wait for the broker to end the connection; the reason of its DISCONNECT, None without one."""
        try:
            return self._next(Kind.DISCONNECT, timeout).reason
        except (Closed, ConnectionResetError):
            return None

    def disconnect(self, reason: int = 0) -> None:
        """Take leave, so that the will is not published, and close."""
        self.send(frame(Kind.DISCONNECT, bytes((reason,)) + encode_properties({})))
        self.drop()

    def drop(self) -> None:
        """Close without DISCONNECT, as a lost connection does."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Raw bytes."""
        self._socket.sendall(data)

    def _await(self, kind: Kind) -> Packet:
        return self._next(kind, TIMEOUT)

    def _next(self, kind: Kind, timeout: float) -> Packet:
        deadline = time.monotonic() + timeout
        while True:
            packet = self._read(deadline)
            if packet.kind in {kind, Kind.DISCONNECT}:
                return packet
            if packet.kind is Kind.PUBLISH:
                self._kept.append(packet)

    def _read(self, deadline: float) -> Packet:
        while (found := take_frame(self._buffer)) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(65536)
            if not data:
                raise Closed
            self._buffer += data
        first, body, self._buffer = found
        return decode(first, body)


def connected(port: int, connect: Connect) -> Wire:
    """An open connection that the broker accepted."""
    wire = Wire(port)
    answer = wire.connect(connect)
    if answer.kind is not Kind.CONNACK or answer.reason:
        wire.drop()
        pytest.fail(f"refused: {answer}")
    return wire
