"""The device's connection: on real brokers what they do every day, on a scripted one what they do rarely.

Rule: a test waits for what happens, with a limit; it never sleeps for a guess.
"""

import itertools
import logging
import queue
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from broker.process import Broker
from device_agent import tls
from device_agent.backoff import Backoff
from device_agent.connection import AckToken, Connection
from device_agent.errors import SettingsError
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.topics import Channel, Topics
from tests.support.brokers import any_broker, mosquitto, started
from tests.support.fake_broker import FakeBroker, Visitor
from tests.support.mqtt_packets import Connect, Kind, Property
from tests.support.mqtt_wire import Wire, connected
from tests.support.self_signed import self_signed

__all__ = ["any_broker", "mosquitto"]

TIMEOUT: Final = 5.0
TOPICS: Final = Topics()


class Device:
    """A connection, and all that it said."""

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401 (options of Connection)
        self.id = f"device-{uuid.uuid4().hex[:12]}"
        self.said: queue.Queue[tuple[str, object]] = queue.Queue()
        self.commands: queue.Queue[tuple[bytes, AckToken]] = queue.Queue()
        self.births: queue.Queue[bytes] = queue.Queue()
        epochs = itertools.count(1)
        defaults: dict[str, Any] = {
            "url": url,
            "client_id": self.id,
            "username": None,
            "password": None,
            "topics": TOPICS,
            "will": lambda: b"will %d" % next(epochs),
            "on_connected": lambda: self.said.put(("connected", None)),
            "on_disconnected": lambda text: self.said.put(("disconnected", text)),
            "on_command": lambda data, token: self.commands.put((data, token)),
            "on_birth": self.births.put,
            "on_refused": lambda channel, text: self.said.put(("refused", (channel, text))),
            "backoff": Backoff(first=0.01, longest=0.02),
        }
        self.connection = Connection(**(defaults | options))
        self.topic = TOPICS.command(self.id)

    def hears(self, what: str) -> object:
        said, detail = self.said.get(timeout=TIMEOUT)
        assert said == what, (said, detail)
        return detail

    def command(self) -> tuple[bytes, AckToken]:
        return self.commands.get(timeout=TIMEOUT)


@contextmanager
def device(url: str, **options: Any) -> Iterator[Device]:  # noqa: ANN401 (options of Connection)
    made = Device(url, **options)
    made.connection.start()
    try:
        yield made
    finally:
        made.connection.stop()


@contextmanager
def online(broker: Broker, **options: Any) -> Iterator[Device]:  # noqa: ANN401 (options of Connection)
    with device(broker.address.url, **options) as made:
        made.hears("connected")
        yield made


@pytest.fixture
def operator(any_broker: Broker) -> Iterator[Wire]:
    with connected(any_broker.address.port, Connect(f"operator-{uuid.uuid4().hex[:12]}")) as wire:
        yield wire


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as broker:
        yield broker


def test_a_command_arrives_once_it_says_connected(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        assert made.connection.connected
        operator.publish(made.topic, b"do")
        assert made.command()[0] == b"do"


def test_the_birth_of_a_control_plane_arrives(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        operator.publish(TOPICS.birth(), b"born")
        assert made.births.get(timeout=TIMEOUT) == b"born"


def test_each_channel_goes_out_as_the_table_has_it(mosquitto: Broker) -> None:
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


def test_a_command_that_was_not_acknowledged_comes_again(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        operator.publish(made.topic, b"first")
        operator.publish(made.topic, b"second")
        _, first = made.command()
        made.command()
        made.connection.ack(first)
        made.connection.publish(Channel.RESPONSE, b"behind the acknowledgement")
        round_trip(made)
        cut(made)
        made.hears("disconnected")
        data, again = made.command()
        assert data == b"second"
        assert again.connection > first.connection
        made.connection.ack(first)
        made.connection.ack(again)


def round_trip(made: Device) -> None:
    """The broker has worked off what was sent before."""
    session = made.connection._session
    assert session is not None
    session.settle(TIMEOUT)


def cut(made: Device) -> None:
    """The network goes away under the connection."""
    session = made.connection._session
    assert session is not None
    client = session._wire._client  # type: ignore[attr-defined]
    client.socket().shutdown(socket.SHUT_RDWR)


def test_commands_wait_for_a_device_that_was_away(any_broker: Broker, operator: Wire) -> None:
    with online(any_broker) as made:
        identity = made.id
    operator.publish(made.topic, b"meanwhile")
    with online(any_broker, client_id=identity) as back:
        assert back.command()[0] == b"meanwhile"


def test_a_graceful_stop_says_offline_and_leaves_no_will(any_broker: Broker, operator: Wire) -> None:
    made = Device(any_broker.address.url)
    operator.subscribe(TOPICS.presence(made.id))
    made.connection.start()
    made.hears("connected")
    made.connection.stop(b"offline")
    assert made.hears("disconnected")
    assert not made.connection.connected
    assert not made.connection._thread.is_alive()
    assert operator.receive().payload == b"offline"


def test_it_comes_back_after_the_broker_was_killed(tmp_path: Path) -> None:
    with started(tmp_path, "mosquitto") as broker, online(broker) as made:
        for _ in range(3):
            broker.kill()
            made.hears("disconnected")
            assert not made.connection.publish(Channel.RESPONSE, b"nobody hears this")
            broker.start()
            made.hears("connected")
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
    heard: queue.Queue[bytes] = queue.Queue()

    def on_command(data: bytes, _token: AckToken) -> None:
        heard.put(data)
        raise ValueError(data)

    with online(any_broker, on_command=on_command) as made:
        for number in range(20):
            operator.publish(made.topic, b"%d" % number)
        assert [heard.get(timeout=TIMEOUT) for _ in range(20)] == [b"%d" % number for number in range(20)]
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


def test_every_connect_says_who_it_is_with_a_new_will(fake: FakeBroker) -> None:
    with device(fake.url, username="me", password="secret") as made:
        for number in (1, 2, 3):
            with fake.visitor() as visitor:
                greeting = visitor.welcome()
                made.hears("connected")
            made.hears("disconnected")
            assert greeting.will == f"will {number}".encode()
        assert not greeting.clean_start
        assert greeting.client_id == made.id
        assert greeting.keepalive == 30
        assert greeting.credentials == ("me", "secret")
        assert greeting.properties == {
            Property.SESSION_EXPIRY: 600,
            Property.RECEIVE_MAXIMUM: 16,
            Property.MAXIMUM_PACKET_SIZE: MAX_MESSAGE_SIZE + 8192,
        }
        assert greeting.will_topic == TOPICS.presence(made.id)
        assert greeting.will_properties == {Property.WILL_DELAY: 10}
        assert greeting.flags >> 3 & 7 == 0b101, "a will of QoS 1, retained"


def test_nagles_algorithm_is_off(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.hears("connected")
        session = made.connection._session
        assert session is not None
        sock = session._wire._client.socket()  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("reason", "text"), [(0x86, "Bad user name or password"), (0x87, "Not authorized")])
def test_a_refusal_is_one_clear_line_and_tried_again(
    fake: FakeBroker, caplog: pytest.LogCaptureFixture, reason: int, text: str
) -> None:
    with caplog.at_level(logging.INFO), device(fake.url) as made:
        with fake.visitor() as visitor:
            visitor.greeting()
            visitor.connack(reason)
        with fake.visitor() as visitor:
            visitor.welcome()
            made.hears("connected")
            assert [record.message for record in caplog.records if text in record.message] == [
                record.message for record in caplog.records
            ]
            assert len(caplog.records) == 1


def test_a_refused_subscription_is_not_a_connection(fake: FakeBroker) -> None:
    with device(fake.url) as made:
        with fake.visitor() as visitor:
            visitor.greeting()
            visitor.connack()
            visitor.suback(0x87, 1)
            visitor.frame(Kind.DISCONNECT)
        with fake.visitor() as visitor:
            visitor.welcome()
            made.hears("connected")
            assert made.connection.connected


def test_a_publish_that_the_broker_refuses_is_told(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.hears("connected")
        assert made.connection.publish(Channel.RESPONSE, b"x")
        visitor.puback(visitor.published(), 0x87)
        assert made.hears("refused") == (Channel.RESPONSE, "Not authorized")


def test_nobody_listening_is_no_refusal(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.hears("connected")
        made.connection.publish(Channel.RESPONSE, b"x")
        visitor.puback(visitor.published(), 0x10)
        visitor.publish(made.topic.encode(), b"next", 1)
        assert made.command()[0] == b"next"
        assert made.said.empty()


def test_what_the_broker_takes_is_respected(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome({Property.MAXIMUM_PACKET_SIZE: 10_000, Property.RECEIVE_MAXIMUM: 2})
        made.hears("connected")
        assert not made.connection.publish(Channel.RESPONSE, bytes(9_500))
        assert made.connection.publish(Channel.RESPONSE, bytes(5_000))
        assert made.connection.publish(Channel.RESPONSE, b"2")
        assert not made.connection.publish(Channel.RESPONSE, b"3")
        visitor.puback(visitor.published())
        visitor.publish(made.topic.encode(), b"later", 1)
        made.command()
        assert made.connection.publish(Channel.RESPONSE, b"3")


@pytest.mark.parametrize("topic", [b"fleet/v1/other/command", b"\xff\xfe", b"a"])
def test_a_message_that_nobody_asked_for_is_counted_and_put_away(fake: FakeBroker, topic: bytes) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.hears("connected")
        visitor.publish(topic, b"x", 7)
        assert visitor.frame(Kind.PUBACK)[:2] == b"\0\7"
        assert made.connection.faults == 1


GARBAGE: Final = {
    "nonsense": lambda visitor: visitor.send(b"\0\0\xff\xff\xff\xff\xff\xff" * 100),
    "a packet type that does not exist": lambda visitor: visitor.send(b"\xf0\0"),
    "an empty PUBLISH": lambda visitor: visitor.send(b"\x32\0"),
    "a PUBACK of nothing": lambda visitor: visitor.send(b"\x40\0"),
    "an HTTP answer": lambda visitor: visitor.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "DISCONNECT": lambda visitor: visitor.send(b"\xe0\x02\x8e\0"),
    "a length without an end": lambda visitor: visitor.send(b"\x30\xff\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("welcomed", [True, False])
def test_it_comes_back_whatever_a_broker_says(
    fake: FakeBroker, garbage: Callable[[Visitor], None], *, welcomed: bool
) -> None:
    with device(fake.url) as made:
        with fake.visitor() as visitor:
            if welcomed:
                visitor.welcome()
                made.hears("connected")
            garbage(visitor)
        if welcomed:
            made.hears("disconnected")
        with fake.visitor() as visitor:
            visitor.welcome()
            made.hears("connected")
            assert made.connection.connected


def test_a_will_that_cannot_be_made_is_made_later(fake: FakeBroker) -> None:
    tries = iter((OSError("disk full"), OSError("disk full"), None))

    def will() -> bytes:
        if error := next(tries):
            raise error
        return b"will"

    with device(fake.url, will=will) as made, fake.visitor() as visitor:
        assert visitor.welcome().will == b"will"
        made.hears("connected")


def test_stopping_while_nobody_answers_is_quick(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.greeting()
        made.connection.stop(b"offline")
        assert not made.connection._thread.is_alive()


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls.client_context.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FakeBroker(context) as broker, device(broker.url) as made, broker.visitor() as visitor:
        visitor.welcome()
        made.hears("connected")
        made.connection.publish(Channel.RESPONSE, b"x")
        assert visitor.published().payload == b"x"
    tls.client_context.cache_clear()


@pytest.mark.parametrize(
    "url",
    ["", "mqtt://", "http://broker", "mqtt://broker:0", "mqtt://broker:99999", "mqtt://user:pw@broker", "mqtt://b/x"],
)
def test_a_wrong_url_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="MQTT_URL") as wrong:
        Device(url)
    assert "pw@" not in str(wrong.value)


def test_sockets_of_ended_connections_are_given_back(fake: FakeBroker) -> None:
    descriptors = Path("/proc/self/fd")
    with device(fake.url) as made:
        counts = []
        for _ in range(5):
            with fake.visitor() as visitor:
                visitor.welcome()
                made.hears("connected")
                counts.append(len(list(descriptors.iterdir())))
            made.hears("disconnected")
    assert counts == [counts[0]] * 5
