"""The MQTT 5 packets that an agent sends and receives, decoded to the last property.

Rule: pure. Section numbers are those of the OASIS MQTT 5.0 standard. A packet that is cut short raises `IndexError` or
`ValueError`.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from control_plane.cli.simulate.packets import read_length

EXPIRY: Final = 0x02
SESSION_EXPIRY: Final = 0x11
WILL_DELAY: Final = 0x18
RECEIVE_MAXIMUM: Final = 0x21

_NUMBERS: Final = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
"""Properties that are numbers, and how many bytes they have (2.2.2.2)."""

_SUBSCRIPTION: Final = 0x0B
_USER: Final = 0x26

Properties = dict[int, int]
"""The numbers among the properties; texts and binary data are skipped."""


@dataclass(frozen=True, slots=True)
class WillFacts:
    """The will of a CONNECT."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    properties: Properties


@dataclass(frozen=True, slots=True)
class ConnectFacts:
    """A CONNECT (3.1)."""

    level: int
    client_id: str
    username: str | None
    clean_start: bool
    keep_alive: int
    properties: Properties
    will: WillFacts | None


@dataclass(frozen=True, slots=True)
class Subscription:
    """One topic filter of a SUBSCRIBE with its options (3.8.3.1)."""

    topic: str
    qos: int
    no_local: bool
    retain_handling: int


@dataclass(frozen=True, slots=True)
class SubscribeFacts:
    """A SUBSCRIBE (3.8)."""

    filters: tuple[Subscription, ...]


@dataclass(frozen=True, slots=True)
class PublishFacts:
    """A PUBLISH (3.3), in either direction; `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    repeated: bool
    packet_id: int = 0
    properties: Properties = field(default_factory=dict)


def read_connect(body: bytes) -> ConnectFacts:
    """Decode the body of a CONNECT."""
    _, at = _binary(body, 0)
    level, flags, keep_alive = struct.unpack_from(">BBH", body, at)
    properties, at = _properties(body, at + 4)
    client_id, at = _binary(body, at)
    will = None
    if flags & 0b100:
        will_properties, at = _properties(body, at)
        topic, at = _binary(body, at)
        payload, at = _binary(body, at)
        will = WillFacts(_text(topic), payload, flags >> 3 & 3, bool(flags & 0b100000), will_properties)
    username = _text(_binary(body, at)[0]) if flags & 0x80 else None
    return ConnectFacts(level, _text(client_id), username, bool(flags & 2), keep_alive, properties, will)


def read_subscribe(body: bytes) -> SubscribeFacts:
    """Decode the body of a SUBSCRIBE."""
    _, at = _properties(body, 2)
    filters = []
    while at < len(body):
        topic, at = _binary(body, at)
        options, at = body[at], at + 1
        filters.append(Subscription(_text(topic), options & 3, bool(options & 4), options >> 4 & 3))
    return SubscribeFacts(tuple(filters))


def read_publish(first: int, body: bytes) -> PublishFacts:
    """Decode a PUBLISH."""
    topic, at = _binary(body, 0)
    qos, packet_id = first >> 1 & 3, 0
    if qos:
        packet_id, at = int.from_bytes(body[at : at + 2]), at + 2
    properties, at = _properties(body, at)
    return PublishFacts(_text(topic), body[at:], qos, bool(first & 1), bool(first & 8), packet_id, properties)


def read_reason(body: bytes, at: int = 0) -> int:
    """The reason code of a PUBACK (`at` 2) or a DISCONNECT, 0 where it is left out."""
    return body[at] if len(body) > at else 0


def _properties(body: bytes, at: int) -> tuple[Properties, int]:
    """The numbers among the properties that begin at `at`, and where they end."""
    size, at = read_length(body, at)
    end, found = at + size, Properties()
    while at < end:
        name, at = body[at], at + 1
        if name in _NUMBERS:
            found[name] = int.from_bytes(body[at : at + _NUMBERS[name]])
            at += _NUMBERS[name]
        elif name == _SUBSCRIPTION:
            _, at = read_length(body, at)
        else:
            for _ in range(2 if name == _USER else 1):
                _, at = _binary(body, at)
    return found, end


def _binary(body: bytes, at: int) -> tuple[bytes, int]:
    """Length and bytes (1.5.6), and where they end."""
    end = at + 2 + int.from_bytes(body[at : at + 2])
    if end > len(body):
        message = "a packet is cut short"
        raise ValueError(message)
    return body[at + 2 : end], end


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
