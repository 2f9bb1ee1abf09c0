"""MQTT v5 packets as bytes: those that a client sends, and those that a broker sends to it.

Rule: pure functions. Section numbers are those of the OASIS MQTT 5.0 standard.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class PacketType(IntEnum):
    """Packet types (2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


PROTOCOL_LEVEL: Final = 5
DISCONNECT: Final = bytes((PacketType.DISCONNECT << 4, 0))
REFUSED: Final = 0x80
"""Reason codes from here on are failures (2.4)."""

UNLIMITED: Final = 65_535
"""Receive Maximum of a broker that states none (3.2.2.3.3)."""

# Identifiers of properties (2.2.2.2), and how many bytes the values of those have that a broker may send.
_EXPIRY: Final = 0x02
_SESSION_EXPIRY: Final = 0x11
_WILL_DELAY: Final = 0x18
_RECEIVE_MAXIMUM: Final = 0x21
_MAXIMUM_PACKET: Final = 0x27
_SIZES: Final = {
    0x01: 1,
    0x02: 4,
    0x11: 4,
    0x13: 2,
    0x21: 2,
    0x22: 2,
    0x23: 2,
    0x24: 1,
    0x25: 1,
    0x27: 4,
    0x28: 1,
    0x29: 1,
    0x2A: 1,
}
_USER: Final = 0x26
_SUBSCRIPTION: Final = 0x0B

UserProperties = Sequence[tuple[str, str]]

_LENGTH_BYTES: Final = 4
_CONTINUES: Final = 0x80
_WIDE: Final = frozenset({_EXPIRY, _SESSION_EXPIRY, _WILL_DELAY, _MAXIMUM_PACKET})


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, QoS 1 and retained, `delay` seconds after the connection is lost."""

    topic: str
    payload: bytes
    delay: int = 0
    properties: UserProperties = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """A CONNECT. `maximum_packet` 0 sets no limit; the times are in seconds."""

    client_id: str
    username: str | None = None
    password: str | None = None
    clean_start: bool = False
    keepalive: int = 30
    session_expiry: int = 0
    receive_maximum: int = UNLIMITED
    maximum_packet: int = 0
    will: Will | None = None

    def encode(self) -> bytes:
        """The whole packet."""
        flags = self.clean_start << 1 | (self.username is not None) << 7 | (self.password is not None) << 6
        numbers = {_SESSION_EXPIRY: self.session_expiry, _RECEIVE_MAXIMUM: self.receive_maximum}
        if self.maximum_packet:
            numbers[_MAXIMUM_PACKET] = self.maximum_packet
        body = text(self.client_id)
        if self.will is not None:
            flags |= 0b0010_1100
            body += _properties({_WILL_DELAY: self.will.delay}, self.will.properties)
            body += text(self.will.topic) + binary(self.will.payload)
        body += b"".join(text(value) for value in (self.username, self.password) if value is not None)
        head = text("MQTT") + struct.pack(">BBH", PROTOCOL_LEVEL, flags, self.keepalive)
        return frame(PacketType.CONNECT << 4, head + _properties(numbers) + body)


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH that came in; `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    packet_id: int
    retained: bool
    properties: UserProperties = ()


@dataclass(frozen=True, slots=True)
class TopicFilter:
    """One topic filter of a SUBSCRIBE; `no_local` keeps our own messages from coming back (3.8.3.1).

    `retain_handling` 2 keeps stored messages from coming.
    """

    topic: str
    qos: int = 1
    no_local: bool = False
    retain_handling: int = 0


def publish(
    topic: bytes,
    payload: bytes,
    *,
    packet_id: int = 0,
    retain: bool = False,
    expiry: int = 0,
    properties: UserProperties = (),
) -> bytes:
    """A PUBLISH to a topic as `text` encodes it: QoS 1 with a packet id, else QoS 0; `expiry` in seconds."""
    first = PacketType.PUBLISH << 4 | (2 if packet_id else 0) | retain
    number = struct.pack(">H", packet_id) if packet_id else b""
    options = _properties({_EXPIRY: expiry} if expiry else {}, properties)
    return frame(first, b"".join((topic, number, options, payload)))


def subscribe(packet_id: int, filters: Sequence[TopicFilter]) -> bytes:
    """A SUBSCRIBE."""
    body = b"".join(
        text(one.topic) + bytes((one.qos | one.no_local << 2 | one.retain_handling << 4,)) for one in filters
    )
    return frame(PacketType.SUBSCRIBE << 4 | 2, struct.pack(">H", packet_id) + b"\x00" + body)


def puback(packet_id: int) -> bytes:
    """A PUBACK with reason success."""
    return struct.pack(">BBH", PacketType.PUBACK << 4, 2, packet_id)


def read_publish(first: int, body: bytes) -> Publish:
    """Decode a PUBLISH; of its properties only those of the user are read."""
    at = 2 + int.from_bytes(body[:2])
    topic = body[2:at].decode()
    packet_id = 0
    if first & 0b110:
        packet_id, at = int.from_bytes(body[at : at + 2]), at + 2
    size = body[at]
    if size >= _CONTINUES:
        size, at = read_length(body, at)
        at -= 1
    end = at + 1 + size
    return Publish(topic, body[end:], packet_id, bool(first & 1), _read_user_properties(body[at + 1 : end]))


def read_acknowledgement(body: bytes) -> tuple[int, int]:
    """Packet id and reason of a PUBACK, which omits a reason of 0 (3.4.2.1)."""
    return int.from_bytes(body[:2]), body[2] if len(body) > 2 else 0  # noqa: PLR2004


def read_grants(body: bytes) -> tuple[int, list[int]]:
    """Packet id and one reason code for each filter of a SUBACK."""
    size, at = read_length(body, 2)
    return int.from_bytes(body[:2]), list(body[at + size :])


def read_receive_maximum(body: bytes) -> int:
    """How many QoS 1 messages the broker takes before it has acknowledged any, from its CONNACK."""
    size, at = read_length(body, 2)
    for name, value, _ in _each_property(body[at : at + size]):
        if name == _RECEIVE_MAXIMUM:
            return int.from_bytes(value)
    return UNLIMITED


class PacketReader:
    """Splits a stream into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """First byte and body of every packet that `data` completes; `ValueError` when it is not MQTT."""
        data = self._rest + data if self._rest else data
        found: list[tuple[int, bytes]] = []
        start = 0
        while (whole := _whole(data, start)) is not None:
            body, end = whole
            found.append((data[start], data[body:end]))
            start = end
        self._rest = data[start:]
        return found


def _whole(data: bytes, start: int) -> tuple[int, int] | None:
    """Where the body of the packet at `start` begins and ends; None while it is incomplete."""
    size = shift = 0
    for at in range(start + 1, min(start + 1 + _LENGTH_BYTES, len(data))):
        byte = data[at]
        size |= (byte & 0x7F) << shift
        if byte < _CONTINUES:
            end = at + 1 + size
            return (at + 1, end) if end <= len(data) else None
        shift += 7
    if len(data) > start + _LENGTH_BYTES:
        message = "the broker sends something that is not MQTT"
        raise ValueError(message)
    return None


def frame(first: int, body: bytes) -> bytes:
    """A packet: first byte, remaining length, body."""
    return bytes((first,)) + length(len(body)) + body


def length(number: int) -> bytes:
    """Variable byte integer (1.5.5).

    >>> length(321).hex()
    'c102'
    """
    digits = bytearray()
    while number >= _CONTINUES:
        digits.append(number & 0x7F | _CONTINUES)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < _CONTINUES:
            return number, at


def binary(data: bytes) -> bytes:
    """Length and bytes (1.5.6)."""
    return struct.pack(">H", len(data)) + data


def text(value: str) -> bytes:
    """UTF-8 string (1.5.4)."""
    return binary(value.encode())


def _properties(numbers: Mapping[int, int], pairs: UserProperties = ()) -> bytes:
    body = b"".join(struct.pack(">BI" if name in _WIDE else ">BH", name, value) for name, value in numbers.items())
    body += b"".join(bytes((_USER,)) + text(name) + text(value) for name, value in pairs)
    return length(len(body)) + body


def _read_user_properties(data: bytes) -> UserProperties:
    """The pairs among the properties of a PUBLISH (3.3.2.3)."""
    return [(name.decode(), value.decode()) for kind, name, value in _each_property(data) if kind == _USER]


def _each_property(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Identifier and value of each property of a CONNACK or a PUBLISH; the name and the value of a user's."""
    at = 0
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == _SUBSCRIPTION:
            _, at = read_length(data, at)
            continue
        if kind in _SIZES:
            at += _SIZES[kind]
            yield kind, data[at - _SIZES[kind] : at], b""
            continue
        first, at = _text_at(data, at)
        second, at = _text_at(data, at) if kind == _USER else (b"", at)
        yield kind, first, second


def _text_at(data: bytes, at: int) -> tuple[bytes, int]:
    """The string or binary data that begins here, and where it ends."""
    end = at + 2 + int.from_bytes(data[at : at + 2])
    return data[at + 2 : end], end
