"""MQTT v5 packets as bytes: what the wire client of the tests sends and understands.

Rule: pure functions, and only the packets and properties that tests need. Section numbers are those of the OASIS
MQTT 5.0 standard.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

Value = int | str | bytes | list[tuple[str, str]]


class Kind(IntEnum):
    """Packet types (2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Property(IntEnum):
    """Properties (2.2.2.2): those that tests name."""

    MESSAGE_EXPIRY = 0x02
    SESSION_EXPIRY = 0x11
    SERVER_KEEP_ALIVE = 0x13
    WILL_DELAY = 0x18
    SERVER_REFERENCE = 0x1C
    RECEIVE_MAXIMUM = 0x21
    MAXIMUM_QOS = 0x24
    REASON_STRING = 0x1F
    RETAIN_AVAILABLE = 0x25
    USER = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_AVAILABLE = 0x28
    SHARED_AVAILABLE = 0x2A


_BYTE: Final = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}
_TWO: Final = {0x13, 0x21, 0x22, 0x23}
_FOUR: Final = {0x02, 0x11, 0x18, 0x27}
_BINARY: Final = {0x09, 0x16}
_NUMBERS: Final = {**dict.fromkeys(_BYTE, "B"), **dict.fromkeys(_TWO, ">H"), **dict.fromkeys(_FOUR, ">I")}
_VARIABLE: Final = 0x0B


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet as it came: fixed header flags and the fields that its type has."""

    kind: Kind
    flags: int = 0
    packet_id: int = 0
    reason: int = 0
    codes: tuple[int, ...] = ()
    topic: str = ""
    payload: bytes = b""
    properties: dict[int, Value] = field(default_factory=dict)

    @property
    def session_present(self) -> bool:
        """Of a CONNACK: the broker continues an earlier session."""
        return self.kind is Kind.CONNACK and bool(self.flags & 1)

    @property
    def qos(self) -> int:
        """Of a PUBLISH."""
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        """Of a PUBLISH: it was stored before we subscribed."""
        return bool(self.flags & 1)

    @property
    def duplicate(self) -> bool:
        """Of a PUBLISH: it was sent before."""
        return bool(self.flags & 8)


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker shall publish when the connection is lost; `delay` in seconds."""

    topic: str
    payload: bytes = b"lost"
    qos: int = 1
    retain: bool = True
    delay: int = 0
    pairs: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT packet."""

    client_id: str
    username: str | None = None
    password: str | None = None
    clean_start: bool = True
    keepalive: int = 60
    will: Will | None = None
    properties: dict[int, Value] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The whole packet."""
        will = self.will
        flags = self.clean_start << 1 | (self.username is not None) << 7 | (self.password is not None) << 6
        body = encode_text(self.client_id)
        if will is not None:
            flags |= 4 | will.qos << 3 | will.retain << 5
            options: dict[int, Value] = {Property.WILL_DELAY: will.delay} if will.delay else {}
            if will.pairs:
                options[Property.USER] = list(will.pairs)
            body += encode_properties(options) + encode_text(will.topic) + encode_binary(will.payload)
        body += b"".join(encode_text(text) for text in (self.username, self.password) if text is not None)
        header = encode_text("MQTT") + bytes((5, flags)) + struct.pack(">H", self.keepalive)
        return frame(Kind.CONNECT, header + encode_properties(self.properties) + body)


def take_frame(buffer: bytes) -> tuple[int, bytes, bytes] | None:
    """Split off one packet: first byte, body, rest; None while it is incomplete."""
    for end in range(2, min(6, len(buffer) + 1)):
        if buffer[end - 1] < 0x80:
            length = decode_length(buffer, 1)[0]
            body, rest = buffer[end : end + length], buffer[end + length :]
            return (buffer[0], body, rest) if len(body) == length else None
    return None


def decode(first: int, body: bytes) -> Packet:
    """One packet from its first byte and its body."""
    kind, flags = Kind(first >> 4), first & 15
    match kind:
        case Kind.CONNACK:
            return Packet(kind, body[0], reason=body[1], properties=decode_properties(body, 2)[0])
        case Kind.PUBLISH:
            return _decode_publish(flags, body)
        case Kind.PUBACK:
            return Packet(kind, flags, int.from_bytes(body[:2]), reason=body[2] if len(body) > 2 else 0)
        case Kind.SUBACK:
            return Packet(kind, flags, int.from_bytes(body[:2]), codes=tuple(body[decode_properties(body, 2)[1] :]))
        case Kind.DISCONNECT:
            return Packet(kind, flags, reason=body[0] if body else 0)
        case _:
            return Packet(kind, flags)


def _decode_publish(flags: int, body: bytes) -> Packet:
    topic, at = decode_binary(body, 0)
    packet_id = 0
    if flags >> 1 & 3:
        packet_id, at = int.from_bytes(body[at : at + 2]), at + 2
    properties, at = decode_properties(body, at)
    return Packet(Kind.PUBLISH, flags, packet_id, topic=topic.decode(), payload=body[at:], properties=properties)


def frame(kind: Kind, body: bytes, *, flags: int = 0) -> bytes:
    """A packet: first byte, remaining length, body."""
    return bytes((kind << 4 | flags,)) + encode_length(len(body)) + body


def encode_length(number: int) -> bytes:
    """Variable byte integer (1.5.5)."""
    digits = bytearray()
    while True:
        number, digit = number >> 7, number & 0x7F
        digits.append(digit | 0x80 if number else digit)
        if not number:
            return bytes(digits)


def decode_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends."""
    number, shift = 0, 0
    while True:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return number, at


def encode_binary(data: bytes) -> bytes:
    """Length and bytes (1.5.6)."""
    return struct.pack(">H", len(data)) + data


def encode_text(text: str) -> bytes:
    """UTF-8 string (1.5.4)."""
    return encode_binary(text.encode())


def decode_binary(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes with a length before them and where they end."""
    end = at + 2 + int.from_bytes(data[at : at + 2])
    return data[at + 2 : end], end


def encode_properties(properties: dict[int, Value]) -> bytes:
    """Properties with their length (2.2.2)."""
    body = b"".join(_encode_property(name, value) for name, value in properties.items())
    return encode_length(len(body)) + body


def _encode_property(name: int, value: Value) -> bytes:
    if isinstance(value, list):
        return b"".join(bytes((name,)) + encode_text(key) + encode_text(text) for key, text in value)
    if isinstance(value, int):
        return bytes((name,)) + (struct.pack(_NUMBERS[name], value) if name in _NUMBERS else encode_length(value))
    return bytes((name,)) + (encode_text(value) if isinstance(value, str) else encode_binary(value))


def decode_properties(data: bytes, at: int) -> tuple[dict[int, Value], int]:
    """Properties and where they end; user properties become one list of pairs."""
    length, at = decode_length(data, at)
    end, found, pairs = at + length, dict[int, Value](), list[tuple[str, str]]()
    while at < end:
        name, at = data[at], at + 1
        if name in _NUMBERS:
            (found[name],) = struct.unpack_from(_NUMBERS[name], data, at)
            at += struct.calcsize(_NUMBERS[name])
        elif name == _VARIABLE:
            found[name], at = decode_length(data, at)
        elif name == Property.USER:
            key, at = decode_binary(data, at)
            text, at = decode_binary(data, at)
            pairs.append((key.decode(), text.decode()))
            found[name] = pairs
        else:
            raw, at = decode_binary(data, at)
            found[name] = raw if name in _BINARY else raw.decode()
    return found, end
