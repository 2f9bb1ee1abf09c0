"""A broker that sends what a test scripts: for packets that a real one sends rarely, or never.

Rule: it is driven from the test, packet by packet; nothing is answered on its own.
"""

import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from tests.support.mqtt_packets import (
    Kind,
    Packet,
    Property,
    Value,
    decode,
    decode_binary,
    decode_properties,
    encode_properties,
    encode_text,
    frame,
    take_frame,
)

TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Greeting:
    """A CONNECT taken apart."""

    flags: int
    keepalive: int
    properties: dict[int, Value]
    client_id: str
    will_properties: dict[int, Value]
    will_topic: str
    will: bytes
    credentials: tuple[str, ...]

    @property
    def clean_start(self) -> bool:
        """Whether an earlier session is thrown away."""
        return bool(self.flags & 2)


class Visitor:
    """One connection of a client."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        self.connection = connection
        self._buffer = b""

    def frame(self, kind: Kind) -> bytes:
        """The body of the next packet of this kind; pings are answered, everything else is skipped."""
        while True:
            while (found := take_frame(self._buffer)) is None:
                data = self.connection.recv(65536)
                if not data:
                    raise ConnectionResetError
                self._buffer += data
            first, body, self._buffer = found
            if first >> 4 == kind:
                return body
            if first >> 4 == Kind.PINGREQ:
                self.send(frame(Kind.PINGRESP, b""))

    def greeting(self) -> Greeting:
        """The CONNECT, which has to have a will."""
        return _greeting(self.frame(Kind.CONNECT))

    def published(self) -> Packet:
        """The next PUBLISH of QoS 1."""
        return decode(Kind.PUBLISH << 4 | 2, self.frame(Kind.PUBLISH))

    def send(self, data: bytes) -> None:
        """Raw bytes."""
        self.connection.sendall(data)

    def connack(self, reason: int = 0, properties: dict[int, Value] | None = None) -> None:
        """Answer a CONNECT."""
        self.send(frame(Kind.CONNACK, bytes((0, reason)) + encode_properties(properties or {})))

    def suback(self, *reasons: int, presence: int = 0) -> None:
        """Wait for the two SUBSCRIBEs and answer them: the device's own presence, then command and birth."""
        for codes in ((presence,), reasons or (1, 1)):
            body = self.frame(Kind.SUBSCRIBE)
            self.send(frame(Kind.SUBACK, body[:2] + encode_properties({}) + bytes(codes)))

    def puback(self, packet: Packet, reason: int = 0) -> None:
        """Answer a PUBLISH."""
        self.send(frame(Kind.PUBACK, struct.pack(">HB", packet.packet_id, reason) + encode_properties({})))

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        packet_id: int,
        *,
        qos: int = 1,
        retained: bool = False,
        user: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Send a PUBLISH; without a packet id at QoS 0. `user` are its user properties."""
        properties: dict[int, Value] = {Property.USER: list(user)} if user else {}
        head = struct.pack(">H", len(topic)) + topic + (struct.pack(">H", packet_id) if qos else b"")
        self.send(frame(Kind.PUBLISH, head + encode_properties(properties) + payload, flags=qos << 1 | retained))

    def welcome(self, properties: dict[int, Value] | None = None) -> Greeting:
        """Take the client in, and let it subscribe."""
        greeting = self.greeting()
        self.connack(properties=properties)
        self.suback()
        return greeting


class FakeBroker:
    """Listens on a free port of loopback."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self._tls = tls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def url(self) -> str:
        """The value for `MQTT_URL`."""
        return f"{'mqtts' if self._tls else 'mqtt'}://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def visitor(self) -> Iterator[Visitor]:
        """The next client that connects, until the block ends."""
        connection, _ = self._listener.accept()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            yield Visitor(connection)


def _greeting(body: bytes) -> Greeting:
    start = len(encode_text("MQTT")) + 1
    flags, keepalive = body[start], int.from_bytes(body[start + 1 : start + 3])
    properties, at = decode_properties(body, start + 3)
    client_id, at = decode_binary(body, at)
    will_properties, at = decode_properties(body, at)
    will_topic, at = decode_binary(body, at)
    will, at = decode_binary(body, at)
    credentials = []
    while at < len(body):
        text, at = decode_binary(body, at)
        credentials.append(text.decode())
    return Greeting(
        flags,
        keepalive,
        properties,
        client_id.decode(),
        will_properties,
        will_topic.decode(),
        will,
        tuple(credentials),
    )


__all__ = ["FakeBroker", "Greeting", "Property", "Visitor"]
