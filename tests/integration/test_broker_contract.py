"""The behaviour of brokers that Backhaul relies on, shown on each broker that it can start.

Rule: every expectation is checked on both kinds. Where the embedded broker differs, the test states how, and the
x
"""

import struct
import time
import uuid
from pathlib import Path
from typing import Final, TypedDict, Unpack

import pytest

from broker.process import Broker
from tests.support.brokers import Open, any_broker, open_wire, started
from tests.support.mqtt_packets import Connect, Kind, Property, Value, Will, encode_text, frame
from tests.support.mqtt_wire import SOON, Closed, Wire

__all__ = ["any_broker", "open_wire"]

NO_LOCAL: Final = 4
MESSAGE_LIMIT: Final = 131_072
QUEUE: Final = 200
FLEET: Final = 400
LEAVE_WITH_WILL: Final = 0x04
NOBODY_LISTENS: Final = 0x10
TOO_LARGE: Final = 0x95
QOS_UNSUPPORTED: Final = 0x9B


class Options(TypedDict, total=False):
    """The facts that a test asserts about a connection."""

    clean_start: bool
    keepalive: int
    will: Will | None
    properties: dict[int, Value]


class Table:
    """One broker, and names that no other test uses."""

    def __init__(self, broker: Broker, open_wire: Open) -> None:
        self.embedded = broker.kind == "embedded"
        self.topic = f"contract/{uuid.uuid4().hex}"
        self._port = broker.address.port
        self._open = open_wire

    def client(self, name: str, **options: Unpack[Options]) -> Wire:
        """A client without an earlier life."""
        return self._open(self._port, Connect(self._id(name), **options))

    def durable(self, name: str, *, expiry: int = 600, receive_maximum: int = 16, will: Will | None = None) -> Wire:
        """A client that takes up its session."""
        properties: dict[int, Value] = {
            Property.SESSION_EXPIRY: expiry,
            Property.RECEIVE_MAXIMUM: receive_maximum,
        }
        return self.client(name, clean_start=False, will=will, properties=properties)

    def away(self, name: str, expiry: int = 600) -> None:
        """Leave behind a session that subscribes to the topic."""
        wire = self.durable(name, expiry=expiry)
        wire.subscribe(self.topic)
        lose(wire)

    def found(self, name: str, count: int = 1) -> list[bytes]:
        """The retained messages that a client meets on the topic; it waits for `count`."""
        wire = self.client(name)
        wire.subscribe(self.topic)
        return [packet.payload for packet in wire.gathered(count) if packet.retain]

    def _id(self, name: str) -> str:
        return f"{name}-{self.topic[-12:]}"


def lose(wire: Wire) -> None:
    """Cut a connection, and give the broker time to notice."""
    wire.drop()
    time.sleep(0.1)


@pytest.fixture
def table(any_broker: Broker, open_wire: Open) -> Table:
    return Table(any_broker, open_wire)


def test_a_retained_message_reaches_later_subscribers_with_its_properties(table: Table) -> None:
    table.client("writer").publish(table.topic, b"online", retain=True, message_expiry=60, user=[("k", "v")])
    late = table.client("late")
    late.subscribe(table.topic)
    packet = late.receive()
    assert (packet.payload, packet.retain, packet.qos) == (b"online", True, 1)
    assert packet.properties[Property.USER] == [("k", "v")]
    assert packet.properties[Property.MESSAGE_EXPIRY] in range(50, 61)


@pytest.mark.slow
def test_a_retained_message_disappears_when_it_expires(table: Table) -> None:
    writer, lasting = table.client("writer"), f"{table.topic}/lasting"
    # Mosquitto counts in whole seconds: a message may die almost one too early, and one too late.
    writer.publish(table.topic, b"online", retain=True, message_expiry=1)
    writer.publish(lasting, b"lasting", retain=True, message_expiry=600)
    time.sleep(2.1)
    later = table.client("later")
    later.subscribe(table.topic, lasting)
    assert [packet.payload for packet in later.gathered(1)] == [b"lasting"]


def test_a_retained_message_is_replaced_and_cleared(table: Table) -> None:
    writer = table.client("writer")
    writer.publish(table.topic, b"online", retain=True)
    writer.publish(table.topic, b"offline", retain=True)
    assert table.found("before") == [b"offline"]
    writer.publish(table.topic, b"", retain=True)
    assert table.found("after", 0) == []


def test_user_properties_pass_through_in_order(table: Table) -> None:
    pairs = [("traceparent", "00-1"), ("k", "v"), ("k", "ü")]
    reader = table.client("reader")
    reader.subscribe(table.topic)
    table.client("writer").publish(table.topic, b"x", user=pairs)
    assert reader.receive().properties[Property.USER] == pairs


def test_a_lost_connection_publishes_its_will_retained(table: Table) -> None:
    reader = table.client("reader")
    reader.subscribe(table.topic)
    table.client("device", will=Will(table.topic, b"offline")).drop()
    packet = reader.receive()
    assert (packet.payload, packet.qos, packet.retain) == (b"offline", 1, False)
    assert table.found("late") == [b"offline"]


@pytest.mark.slow
def test_a_connection_without_a_sign_of_life_publishes_its_will(table: Table) -> None:
    reader = table.client("reader")
    reader.subscribe(table.topic)
    table.client("device", keepalive=1, will=Will(table.topic, b"offline"))
    assert reader.receive().payload == b"offline"


def test_a_disconnect_discards_the_will(table: Table) -> None:
    reader = table.client("reader")
    reader.subscribe(table.topic)
    table.client("device", will=Will(table.topic)).disconnect()
    assert reader.received(SOON) == []


def test_a_disconnect_with_will_publishes_it(table: Table) -> None:
    reader = table.client("reader")
    reader.subscribe(table.topic)
    table.client("device", will=Will(table.topic)).disconnect(LEAVE_WITH_WILL)
    arrive = 0 if table.embedded else 1
    assert len(reader.gathered(arrive)) == arrive


def test_a_delayed_will_waits(table: Table) -> None:
    reader = table.client("reader")
    reader.subscribe(table.topic)
    lost_at = time.monotonic()
    table.durable("device", will=Will(table.topic, delay=1)).drop()
    reader.receive()
    # Mosquitto looks once a second, so it may be late, never early.
    assert time.monotonic() - lost_at > 0.9


@pytest.mark.slow
def test_a_delayed_will_is_withdrawn_when_the_session_comes_back(table: Table) -> None:
    reader = table.client("reader")
    reader.subscribe(table.topic)
    # So long that a busy machine is back in time.
    will = Will(table.topic, delay=6)
    lose(table.durable("device", will=will))
    assert table.durable("device", will=will).session_present
    assert reader.received(7.5) == []


def test_a_session_keeps_its_subscriptions_and_queues_for_them(table: Table) -> None:
    table.away("device")
    writer = table.client("writer")
    assert [writer.publish(table.topic, b"%d" % number) for number in range(3)] == [0, 0, 0]
    device = table.durable("device")
    assert device.session_present
    assert [packet.payload for packet in device.gathered(3)] == [b"0", b"1", b"2"]


def test_a_long_queue_arrives_in_order_through_a_small_window(table: Table) -> None:
    table.away("device")
    writer = table.client("writer")
    payloads = [b"%d" % number for number in range(100)]
    for payload in payloads:
        writer.publish(table.topic, payload)
    device = table.durable("device", receive_maximum=2)
    assert [packet.payload for packet in device.gathered(len(payloads))] == payloads


def test_a_full_queue_drops_the_newest_without_an_error(table: Table) -> None:
    table.away("device")
    writer = table.client("writer")
    assert {writer.publish(table.topic, b"%d" % number) for number in range(QUEUE + 5)} == {0}
    kept = QUEUE + 5 if table.embedded else QUEUE
    arrived = [int(packet.payload) for packet in table.durable("device").gathered(kept)]
    assert arrived == list(range(kept))


@pytest.mark.slow
def test_a_message_that_expired_in_the_queue_is_not_delivered(table: Table) -> None:
    table.away("device")
    writer = table.client("writer")
    writer.publish(table.topic, b"old", message_expiry=1)
    writer.publish(table.topic, b"fresh")
    time.sleep(2)
    assert [packet.payload for packet in table.durable("device").gathered(1)] == [b"fresh"]


def test_a_clean_start_forgets_the_session(table: Table) -> None:
    table.away("device")
    table.client("writer").publish(table.topic, b"x")
    device = table.client("device")
    assert not device.session_present
    assert device.received(SOON) == []


def test_a_session_without_expiry_ends_with_its_connection(table: Table) -> None:
    table.away("device", expiry=0)
    table.client("writer").publish(table.topic, b"x")
    device = table.durable("device", expiry=0)
    assert device.session_present is table.embedded
    arrive = 1 if table.embedded else 0
    assert len(device.gathered(arrive)) == arrive


@pytest.mark.slow
def test_a_session_expires(table: Table) -> None:
    table.away("device", expiry=1)
    time.sleep(2.5)
    assert table.durable("device").session_present is table.embedded


def test_an_unacknowledged_message_is_delivered_again_after_a_reconnect(table: Table) -> None:
    device = table.durable("device")
    device.subscribe(table.topic)
    writer = table.client("writer")
    writer.publish(table.topic, b"one")
    writer.publish(table.topic, b"two")
    one, two = device.receive(), device.receive()
    device.acknowledge(one)
    assert device.alive
    lose(device)
    (again,) = table.durable("device").gathered(1)
    assert again.payload == two.payload
    # Neither the flag nor the packet id marks a repeat; `message_id` does.
    assert again.duplicate is not table.embedded
    assert (again.packet_id == two.packet_id) is not table.embedded


@pytest.mark.slow
def test_an_unacknowledged_message_is_not_repeated_on_the_same_connection(table: Table) -> None:
    device = table.durable("device")
    device.subscribe(table.topic)
    table.client("writer").publish(table.topic, b"one")
    device.receive()
    with pytest.raises(TimeoutError):
        device.receive(timeout=2)


def test_a_second_connection_of_a_client_takes_over_without_a_will(table: Table) -> None:
    reader = table.client("reader")
    reader.subscribe(table.topic)
    first = table.durable("device", will=Will(table.topic))
    second = table.durable("device", will=Will(table.topic))
    assert second.session_present
    assert first.disconnected() is None
    assert reader.received(SOON) == []
    assert second.alive


def test_the_window_of_a_client_is_respected(table: Table) -> None:
    device = table.durable("device", receive_maximum=2)
    device.subscribe(table.topic)
    writer = table.client("writer")
    for number in range(5):
        writer.publish(table.topic, b"%d" % number)
    window = 5 if table.embedded else 2
    assert len(device.gathered(window, acknowledge=False)) == window


def test_acknowledgements_may_come_in_any_order(table: Table) -> None:
    device = table.durable("device")
    device.subscribe(table.topic)
    writer = table.client("writer")
    writer.publish(table.topic, b"one")
    writer.publish(table.topic, b"two")
    one, two = device.receive(), device.receive()
    device.acknowledge(two)
    if table.embedded:
        assert device.disconnected() is None
        return
    device.acknowledge(one)
    assert device.alive


def test_a_publish_without_subscribers_is_acknowledged_so(table: Table) -> None:
    assert table.client("writer").publish(table.topic, b"x") == (0 if table.embedded else NOBODY_LISTENS)


def test_no_local_keeps_own_messages_away(table: Table) -> None:
    wire = table.client("both")
    wire.subscribe(table.topic, options=NO_LOCAL)
    wire.publish(table.topic, b"x")
    arrive = 1 if table.embedded else 0
    assert len(wire.gathered(arrive)) == arrive


def test_a_retained_message_comes_with_a_subscription_not_with_a_session(table: Table) -> None:
    table.away("reader")
    table.client("writer").publish(table.topic, b"online", retain=True)
    assert len(table.durable("reader").gathered(1)) == 1
    reader = table.durable("reader")
    assert reader.received(SOON) == []
    reader.subscribe(table.topic)
    arrive = 0 if table.embedded else 1
    assert len(reader.gathered(arrive)) == arrive


def test_a_message_over_the_limit_is_refused_and_its_sender_stays(table: Table) -> None:
    writer = table.client("writer")
    reader = table.client("reader")
    reader.subscribe(table.topic)
    assert writer.publish(table.topic, b"x" * MESSAGE_LIMIT) == 0
    assert writer.publish(table.topic, b"x" * (MESSAGE_LIMIT + 1)) == (0 if table.embedded else TOO_LARGE)
    assert writer.alive
    arrive = 2 if table.embedded else 1
    assert len(reader.gathered(arrive)) == arrive


def test_quality_of_service_two_is_refused(table: Table) -> None:
    writer = table.client("writer")
    writer.send(frame(Kind.PUBLISH, encode_text(table.topic) + b"\0\1\0x", flags=2 << 1))
    if table.embedded:
        assert writer.alive
    else:
        assert writer.disconnected() == QOS_UNSUPPORTED


def test_the_broker_publishes_its_own_statistics(table: Table) -> None:
    reader = table.client("reader")
    if table.embedded:
        with pytest.raises(Closed):
            reader.subscribe("$SYS/#")
    else:
        reader.subscribe("$SYS/broker/version")
        assert reader.receive().payload.startswith(b"mosquitto version 2.")


@pytest.mark.parametrize(("receive_maximum", "arrive"), [(None, 20 + QUEUE), (65_535, FLEET)])
def test_a_service_has_to_announce_a_window_for_its_whole_fleet(
    table: Table, receive_maximum: int | None, arrive: int
) -> None:
    """Without one Mosquitto sends 20 and queues 200 of the retained messages, and drops the rest in silence."""
    writer = table.client("writer")
    for number in range(FLEET):
        writer.publish(f"{table.topic}/{number}", b"online", retain=True)
    properties: dict[int, Value] = {} if receive_maximum is None else {Property.RECEIVE_MAXIMUM: receive_maximum}
    reader = table.client("reader", properties=properties)
    reader.subscribe(f"{table.topic}/+")
    arrive = 100 if table.embedded else arrive
    assert len(reader.gathered(arrive)) == arrive


def test_a_burst_fits_into_an_announced_window(table: Table) -> None:
    reader, writer = table.client("reader", properties={Property.RECEIVE_MAXIMUM: 65_535}), table.client("writer")
    reader.subscribe(table.topic)
    packets = (
        frame(Kind.PUBLISH, encode_text(table.topic) + struct.pack(">HB", number, 0) + b"x", flags=1 << 1)
        for number in range(1, FLEET + 1)
    )
    writer.send(b"".join(packets))
    assert len(reader.gathered(FLEET)) == FLEET


def test_the_development_broker_accepts_an_empty_client_id(any_broker: Broker) -> None:
    """`mosquitto_pub` sends none without `-i`; the shipped configuration refuses that."""
    with Wire(any_broker.address.port) as wire:
        assert wire.connect(Connect("")).reason == 0


def test_all_state_may_be_lost_in_a_restart(any_broker: Broker, tmp_path: Path, open_wire: Open) -> None:
    with started(tmp_path, any_broker.kind) as broker:
        table = Table(broker, open_wire)
        table.away("device")
        table.client("writer").publish(table.topic, b"online", retain=True)
        broker.restart()
        assert not table.durable("device").session_present
        assert table.found("late", 0) == []
