"""Signatures on the wire, with a scripted broker: each message and the will, duplicate properties, the keys' topic."""

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.codec import MAX_MESSAGE_SIZE
from schemas.signing.canonical import KID, SIGNATURE, SIGNED_ROOM, Signature, SignedKind, read_signature
from schemas.topics import Channel
from tests.support.connections import TIMEOUT, TOPICS, Device, device
from tests.support.fake_broker import FakeBroker, Visitor
from tests.support.mqtt_packets import Kind, Property, encode_properties, frame
from tests.unit.device_agent.trust.fleet import PLANE, key

DEVICE = key("device")
LARGEST = 10_000


class Signed:
    """A device that signs, and what its callbacks received."""

    def __init__(self) -> None:
        self.signatures: queue.Queue[Signature | None] = queue.Queue()
        self.births: queue.Queue[Signature | None] = queue.Queue()
        self.stored: queue.Queue[Signature | None] = queue.Queue()
        self.keys: queue.Queue[bytes] = queue.Queue()
        self.options: dict[str, Any] = {
            "sign": self.sign,
            "on_command": lambda _data, _token, _retained, _trace, signature: self.signatures.put(signature),
            "on_birth": lambda _data, signature: self.births.put(signature),
            "on_retained_presence": self.read,
            "on_keys": self.keys.put,
        }
        self.id = ""

    def sign(self, channel: Channel, data: bytes) -> list[tuple[str, str]]:
        return DEVICE.sign(SignedKind(channel.value), TOPICS.of(self.id, channel), data).properties()

    def read(self, _data: bytes, signature: Signature | None) -> bool:
        self.stored.put(signature)
        return False


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as running:
        yield running


@pytest.fixture
def signed() -> Signed:
    return Signed()


def welcome(visitor: Visitor, **properties: int) -> tuple[bytes, bytes]:
    """Take the device in; its two SUBSCRIBEs."""
    visitor.connack(properties={Property[name].value: value for name, value in properties.items()})
    bodies = []
    for codes in ((0, 1), (1, 1)):
        body = visitor.frame(Kind.SUBSCRIBE)
        visitor.send(frame(Kind.SUBACK, body[:2] + encode_properties({}) + bytes(codes)))
        bodies.append(body)
    return bodies[0], bodies[1]


def test_the_will_and_each_message_are_signed_as_they_are_published(fake: FakeBroker, signed: Signed) -> None:
    made = Device(fake.url, **signed.options)
    signed.id = made.id
    made.connection.start()
    with fake.visitor() as visitor:
        greeting = visitor.greeting()
        will = read_signature(greeting.will_properties[Property.USER])  # type: ignore[arg-type]
        presence = TOPICS.presence(made.id)
        assert will is not None
        assert DEVICE.verifier.verifies(will, SignedKind.PRESENCE, presence, greeting.will)
        welcome(visitor)
        made.expect("connected")
        trace = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
        for channel in (Channel.RESPONSE, Channel.PRESENCE):
            assert made.connection.publish(channel, b"{}", traceparent=trace)
            packet = visitor.published()
            visitor.puback(packet)
            properties = packet.properties[Property.USER]
            assert ("traceparent", trace) in properties  # type: ignore[operator]
            found = read_signature(properties)  # type: ignore[arg-type]
            assert found is not None
            assert DEVICE.verifier.verifies(found, SignedKind(channel.value), packet.topic, packet.payload)
    made.connection.stop()


def test_the_signature_has_its_room_in_a_packet(fake: FakeBroker, signed: Signed) -> None:
    rooms = []
    for options in ({}, signed.options):
        with device(fake.url, **options) as made, fake.visitor() as visitor:
            signed.id = made.id
            visitor.greeting()
            visitor.connack(properties={Property.MAXIMUM_PACKET_SIZE: LARGEST})
            visitor.frame(Kind.SUBSCRIBE)
            rooms.append(made.connection.room)
    assert rooms[0] - rooms[1] == SIGNED_ROOM
    size = sum(5 + len(name) + len(value) for name, value in DEVICE.sign(SignedKind.BIRTH, "", b"").properties())
    assert size <= SIGNED_ROOM
    assert rooms[0] < LARGEST < MAX_MESSAGE_SIZE


def test_the_keys_are_read_with_the_own_presence_before_any_command(fake: FakeBroker, signed: Signed) -> None:
    made = Device(fake.url, **signed.options)
    signed.id = made.id
    made.connection.start()
    with fake.visitor() as visitor:
        visitor.greeting()
        first, second = welcome(visitor)
        assert TOPICS.keys().encode() in first
        assert TOPICS.command(made.id).encode() in second
        made.expect("connected")
        visitor.publish(TOPICS.keys().encode(), b"stored", 1, retained=True)
        visitor.publish(TOPICS.keys().encode(), b"live", 2)
        assert [signed.keys.get(timeout=TIMEOUT) for _ in range(2)] == [b"stored", b"live"]
    made.connection.stop()


def test_an_unsigned_device_does_not_subscribe_to_the_keys(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.greeting()
        visitor.connack()
        assert TOPICS.keys().encode() not in visitor.frame(Kind.SUBSCRIBE)
        assert made.topic


def test_what_arrives_has_its_signature_unless_a_property_comes_twice(fake: FakeBroker, signed: Signed) -> None:
    made = Device(fake.url, **signed.options)
    signed.id = made.id
    made.connection.start()
    good = PLANE.sign(SignedKind.COMMAND, made.topic, b"{}")
    kid, signature = good.properties()
    assert (kid[0], signature[0]) == (KID, SIGNATURE)
    with fake.visitor() as visitor:
        visitor.greeting()
        welcome(visitor)
        made.expect("connected")
        cases = [[kid, signature], [kid, signature, kid], [kid, signature, signature], [kid], [signature], []]
        for number, user in enumerate(cases, start=1):
            visitor.publish(made.topic.encode(), b"{}", number, user=user)
        found = [signed.signatures.get(timeout=TIMEOUT) for _ in cases]
        assert found == [good, None, None, None, None, None]
        visitor.publish(TOPICS.birth().encode(), b"{}", 8, user=[kid, signature])
        assert signed.births.get(timeout=TIMEOUT) == good
        visitor.publish(TOPICS.presence(made.id).encode(), b"{}", 0, qos=0, retained=True, user=[kid, signature])
        assert signed.stored.get(timeout=TIMEOUT) == good
    made.connection.stop()
