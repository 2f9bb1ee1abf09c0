"""The device's connection with real brokers: the common cases.

Rule: a test waits for an event, with a limit; it never sleeps for a guessed time.
"""

import queue
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.process import Broker
from device_agent.mqtt.connection import AckToken
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.topics import Channel
from tests.support.brokers import any_broker, mosquitto, started
from tests.support.connections import TIMEOUT, TOPICS, Device, online
from tests.support.mqtt_packets import Connect, Property
from tests.support.mqtt_wire import Wire, connected

__all__ = ["any_broker", "mosquitto"]


@pytest.fixture
def operator(any_broker: Broker) -> Iterator[Wire]:
    with connected(any_broker.address.port, Connect(f"operator-{uuid.uuid4().hex[:12]}")) as wire:
        yield wire


def test_commands_arrive_after_connected(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        assert made.connection.connected
        operator.publish(made.topic, b"do")
        assert made.command()[0] == b"do"


def test_the_birth_of_a_control_plane_arrives(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        operator.publish(TOPICS.birth(), b"born")
        assert made.births.get(timeout=TIMEOUT) == b"born"


def test_each_channel_is_published_as_in_the_table(mosquitto: Broker) -> None:
    """On mosquitto alone: the embedded broker delivers with the QoS of the subscription."""
    who = Connect(f"operator-{uuid.uuid4().hex[:12]}")
    with connected(mosquitto.address.port, who) as operator, online(mosquitto) as made:
        operator.subscribe(f"{TOPICS.root}/{made.id}/+")
        for channel in (Channel.RESPONSE, Channel.STATUS, Channel.PRESENCE):
            assert made.connection.publish(channel, channel.encode(), expiry=120)
        packets = [operator.receive() for _ in range(3)]
        seen = {packet.topic: (packet.payload, packet.qos) for packet in packets}
        assert seen == {
            TOPICS.response(made.id): (b"response", 1),
            TOPICS.status(made.id): (b"status", 0),
            TOPICS.presence(made.id): (b"presence", 1),
        }
        assert all(Property.MESSAGE_EXPIRY in packet.properties for packet in packets)


def test_presence_is_retained(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        made.connection.publish(Channel.PRESENCE, b"here")
    operator.subscribe(TOPICS.presence(made.id))
    packet = operator.receive()
    assert (packet.payload, packet.retain) == (b"here", True)


def test_an_unacknowledged_command_is_delivered_again(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        operator.publish(made.topic, b"first")
        operator.publish(made.topic, b"second")
        _, first = made.command()
        made.command()
        made.connection.ack(first)
        made.connection.publish(Channel.RESPONSE, b"behind the acknowledgement")
        round_trip(made)
        cut(made)
        made.expect("disconnected")
        data, again = made.command()
        assert data == b"second"
        assert again.connection > first.connection
        made.connection.ack(first)
        made.connection.ack(again)


def round_trip(made: Device) -> None:
    """Wait until the broker has processed all earlier packets."""
    session = made.connection._session
    assert session is not None
    session.wait_acknowledged(TIMEOUT)


def cut(made: Device) -> None:
    """Cut the network of the connection."""
    session = made.connection._session
    assert session is not None
    client = session._client._client  # type: ignore[attr-defined]
    client.socket().shutdown(socket.SHUT_RDWR)


def test_commands_wait_for_an_offline_device(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        identity = made.id
    operator.publish(made.topic, b"meanwhile")
    with online(any_broker, client_id=identity) as back:
        assert back.command()[0] == b"meanwhile"


def test_a_graceful_stop_publishes_offline_and_no_will(any_broker: Broker, operator: Wire) -> None:
    made = Device(any_broker.address.url)
    operator.subscribe(TOPICS.presence(made.id))
    made.connection.start()
    made.expect("connected")
    made.connection.stop(b"offline")
    assert made.expect("disconnected")
    assert not made.connection.connected
    assert not made.connection._thread.is_alive()
    assert operator.receive().payload == b"offline"


def test_it_reconnects_after_the_broker_was_killed(tmp_path: Path) -> None:
    with started(tmp_path, "mosquitto") as broker, online(broker) as made:
        for _ in range(3):
            broker.kill()
            made.expect("disconnected")
            assert not made.connection.publish(Channel.RESPONSE, b"nobody hears this")
            broker.start()
            made.expect("connected")
        with connected(broker.address.port, Connect("operator-1")) as operator:
            operator.publish(made.topic, b"do")
            assert made.command()[0] == b"do"


def test_a_publish_that_is_too_large_never_reaches_the_broker(any_broker: Broker) -> None:
    with online(any_broker) as made:
        assert not made.connection.publish(Channel.RESPONSE, bytes(MAX_MESSAGE_SIZE + 1))
        assert made.connection.publish(Channel.RESPONSE, bytes(MAX_MESSAGE_SIZE))
        assert made.connection.connected


def test_a_callback_that_raises_disturbs_nothing(
    any_broker: Broker, operator: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    received: queue.Queue[bytes] = queue.Queue()

    def on_command(data: bytes, _token: AckToken, _retained: bool, _trace: str | None, _signed: object) -> None:  # noqa: FBT001 (called by position)
        received.put(data)
        raise ValueError(data)

    with online(any_broker, on_command=on_command) as made:
        for number in range(20):
            operator.publish(made.topic, b"%d" % number)
        assert [received.get(timeout=TIMEOUT) for _ in range(20)] == [b"%d" % number for number in range(20)]
        operator.publish(TOPICS.birth(), b"born")
        assert made.births.get(timeout=TIMEOUT) == b"born"
        assert made.connection.faults == 20
        assert made.connection.connected


def test_many_threads_publish_over_one_connection(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        operator.subscribe(TOPICS.response(made.id))

        def talk(name: int) -> None:
            for number in range(50):
                while not made.connection.publish(Channel.RESPONSE, b"%d-%d-" % (name, number) + bytes(5000)):
                    pass

        threads = [threading.Thread(target=talk, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        received = []
        for _ in range(200):
            packet = operator.receive()
            operator.acknowledge(packet)
            received.append(packet.payload)
        for thread in threads:
            thread.join()
        assert {payload.rstrip(b"\0") for payload in received} == {
            b"%d-%d-" % (name, number) for name in range(4) for number in range(50)
        }
