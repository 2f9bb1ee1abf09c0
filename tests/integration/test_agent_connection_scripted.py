"""The device's connection with a scripted broker: the rare cases.

Rule: a test waits for an event, with a limit; it never sleeps for a guessed time.
"""

import gc
import logging
import queue
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from device_agent import tls
from device_agent.mqtt.reconnect import ReconnectBackoff
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.errors import SchemaError
from schemas.topics import Channel
from tests.support.connections import TIMEOUT, TOPICS, Device, device
from tests.support.fake_broker import FakeBroker, Visitor
from tests.support.mqtt_packets import Kind, Property, Value, encode_properties, frame
from tests.support.self_signed import self_signed


class Noted(ReconnectBackoff):
    """Records which pauses were for a permanent failure."""

    def __init__(self) -> None:
        super().__init__(first=0.01, longest=0.02)
        self.permanent: list[bool] = []

    def next(self, *, stable: bool = False, permanent: bool = False) -> float:
        self.permanent.append(permanent)
        return super().next(stable=stable, permanent=permanent)


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as broker:
        yield broker


def test_every_connect_has_the_identity_and_a_new_will(fake: FakeBroker) -> None:
    with device(fake.url, username="me", password="secret") as made:
        for number in (1, 2, 3):
            with fake.visitor() as visitor:
                greeting = visitor.welcome()
                made.expect("connected")
            made.expect("disconnected")
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
        made.expect("connected")
        session = made.connection._session
        assert session is not None
        sock = session._client._client.socket()  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("reason", "text"), [(0x86, "Bad user name or password"), (0x87, "Not authorized")])
def test_a_refused_connection_is_one_log_line_and_tried_again(
    fake: FakeBroker, caplog: pytest.LogCaptureFixture, reason: int, text: str
) -> None:
    with caplog.at_level(logging.INFO), device(fake.url) as made:
        with fake.visitor() as visitor:
            visitor.greeting()
            visitor.connack(reason)
        with fake.visitor() as visitor:
            visitor.welcome()
            made.expect("connected")
            assert [record.message for record in caplog.records if text in record.message] == [
                record.message for record in caplog.records
            ]
            assert len(caplog.records) == 1


def test_short_connections_are_logged_as_a_possible_takeover(
    fake: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), device(fake.url) as made:
        for _ in range(3):
            with fake.visitor() as visitor:
                visitor.welcome()
                made.expect("connected")
            made.expect("disconnected")
        with fake.visitor() as visitor:
            visitor.greeting()
    hints = [record.message for record in caplog.records if "does another device use CLIENT_ID" in record.message]
    assert len(hints) == 1
    assert "3 times in a row" in hints[0]


def test_a_takeover_leads_to_a_long_pause(fake: FakeBroker, caplog: pytest.LogCaptureFixture) -> None:
    backoff = Noted()
    with caplog.at_level(logging.WARNING), device(fake.url, backoff=backoff) as made:
        with fake.visitor() as visitor:
            visitor.welcome()
            made.expect("connected")
            visitor.send(b"\xe0\x02\x8e\0")
        made.expect("disconnected")
        with fake.visitor() as visitor:
            visitor.greeting()
    # The end of the second connection has a pause too, which may begin before this line.
    assert backoff.permanent[0]
    assert "Session taken over" in caplog.records[0].message


def test_a_refused_subscription_is_not_a_connection(fake: FakeBroker) -> None:
    with device(fake.url) as made:
        with fake.visitor() as visitor:
            visitor.greeting()
            visitor.connack()
            visitor.suback(0x87, 1)
            visitor.frame(Kind.DISCONNECT)
        with fake.visitor() as visitor:
            visitor.welcome()
            made.expect("connected")
            assert made.connection.connected


def test_a_refused_publish_is_reported(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.expect("connected")
        assert made.connection.publish(Channel.RESPONSE, b"x")
        visitor.puback(visitor.published(), 0x87)
        assert made.expect("refused") == (Channel.RESPONSE, "Not authorized (0x87)")


def test_no_matching_subscribers_is_no_refusal(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.expect("connected")
        made.connection.publish(Channel.RESPONSE, b"x")
        visitor.puback(visitor.published(), 0x10)
        visitor.publish(made.topic.encode(), b"next", 1)
        assert made.command()[0] == b"next"
        assert made.events.empty()


def test_the_limits_of_the_broker_are_respected(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome({Property.MAXIMUM_PACKET_SIZE: 10_000, Property.RECEIVE_MAXIMUM: 2})
        made.expect("connected")
        assert not made.connection.publish(Channel.RESPONSE, bytes(10_000 - len(made.topic) - 16))
        assert made.connection.publish(Channel.RESPONSE, bytes(made.connection.room))
        assert made.connection.publish(Channel.RESPONSE, b"2")
        assert not made.connection.publish(Channel.RESPONSE, b"3")
        visitor.puback(visitor.published())
        visitor.publish(made.topic.encode(), b"later", 1)
        made.command()
        assert made.connection.publish(Channel.RESPONSE, b"3")


@pytest.mark.parametrize(
    ("terms", "lacks"), [({Property.MAXIMUM_QOS: 0}, "QoS 1"), ({Property.RETAIN_AVAILABLE: 0}, "retained messages")]
)
def test_a_broker_that_lacks_what_the_protocol_needs_is_named(
    fake: FakeBroker, caplog: pytest.LogCaptureFixture, terms: dict[int, Value], lacks: str
) -> None:
    """A publish beyond its terms would end each connection without a reason."""
    backoff = Noted()
    with caplog.at_level(logging.WARNING), device(fake.url, backoff=backoff) as made:
        with fake.visitor() as visitor:
            visitor.greeting()
            visitor.connack(properties=terms)
            visitor.frame(Kind.DISCONNECT)
        with fake.visitor() as visitor:
            visitor.welcome()
            made.expect("connected")
    assert backoff.permanent[0]
    assert f"the broker offers no {lacks}" in caplog.text


@pytest.mark.parametrize(("announced", "used"), [(10, 10), (3_600, 30), (None, 30)])
def test_the_shorter_keep_alive_is_used(fake: FakeBroker, announced: int | None, used: int) -> None:
    """A longer one would find a dead connection an hour later."""
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome({} if announced is None else {Property.SERVER_KEEP_ALIVE: announced})
        made.expect("connected")
        session = made.connection._session
        assert session is not None
        assert session._client._client._keepalive == used  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", [0x93, 0x95, 0x97, 0x9C, 0x9D])
def test_the_reason_of_an_end_is_logged_with_its_code_and_the_server_that_it_names(
    fake: FakeBroker, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """Without them a person knows neither why, nor where to go."""
    more = encode_properties({Property.REASON_STRING: "moved", Property.SERVER_REFERENCE: "other.example:8883"})
    with caplog.at_level(logging.WARNING), device(fake.url) as made:
        with fake.visitor() as visitor:
            visitor.welcome()
            made.expect("connected")
            visitor.send(frame(Kind.DISCONNECT, bytes((code,)) + more))
        made.expect("disconnected")
        with fake.visitor() as visitor:
            visitor.greeting()
            visitor.send(frame(Kind.CONNACK, bytes((0, 0x9D)) + more))
        with fake.visitor() as visitor:
            visitor.greeting()
    for reason in (code, 0x9D):
        assert f"(0x{reason:02X}): moved, it refers to other.example:8883" in caplog.text


@pytest.mark.parametrize("topic", [b"fleet/v1/other/command", b"\xff\xfe", b"a"])
def test_a_message_without_a_subscription_is_counted_and_acknowledged(fake: FakeBroker, topic: bytes) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.expect("connected")
        visitor.publish(topic, b"x", 7)
        assert visitor.frame(Kind.PUBACK)[:2] == b"\0\7"
        assert made.connection.faults == 1


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("channel", [Channel.COMMAND, Channel.BIRTH])
def test_a_message_of_any_qos_costs_no_connection(fake: FakeBroker, channel: Channel, qos: int) -> None:
    """An acknowledgement of a message that has none is a protocol error, for which a broker ends the connection."""
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.expect("connected")
        topic = made.topic if channel is Channel.COMMAND else TOPICS.birth()
        visitor.publish(topic.encode(), b"do", 5, qos=qos)
        if qos == 2:
            assert visitor.frame(Kind.PUBREC)[:2] == b"\0\5"
            visitor.send(frame(Kind.PUBREL, b"\0\5", flags=2))
        if channel is Channel.COMMAND:
            data, token = made.command()
            assert data == b"do"
            made.connection.ack(token)
        else:
            assert made.births.get(timeout=TIMEOUT) == b"do"
        # The next acknowledgement shows that none was sent for QoS 0.
        visitor.publish(made.topic.encode(), b"next", 9)
        made.connection.ack(made.command()[1])
        if qos == 2:
            assert visitor.frame(Kind.PUBCOMP)[:2] == b"\0\5"
        assert visitor.frame(Kind.PUBACK)[:2] == (b"\0\5" if qos == 1 else b"\0\x09")


def test_a_retained_command_is_marked_and_a_retained_birth_is_dropped(fake: FakeBroker) -> None:
    """A stored message is of any age, and a broker that ignores Retain Handling repeats it at each connect."""
    seen: queue.Queue[tuple[bytes, bool]] = queue.Queue()
    on_command = lambda data, _token, retained, _trace, _signed: seen.put((data, retained))  # noqa: E731
    with device(fake.url, on_command=on_command) as made, fake.visitor() as visitor:
        visitor.welcome()
        made.expect("connected")
        visitor.publish(TOPICS.birth().encode(), b"born", 3, retained=True)
        assert visitor.frame(Kind.PUBACK)[:2] == b"\0\3"
        visitor.publish(made.topic.encode(), b"old", 4, retained=True)
        visitor.publish(made.topic.encode(), b"new", 5)
        assert [seen.get(timeout=TIMEOUT) for _ in range(2)] == [(b"old", True), (b"new", False)]
        assert made.births.empty()


def test_the_subscriptions_ask_for_no_stored_commands_and_for_the_stored_presence(fake: FakeBroker) -> None:
    """Retain Handling 2 on command and birth; presence at QoS 0 with No Local, so that none of it is queued."""
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.greeting()
        visitor.connack()
        bodies = []
        for codes in ((0,), (1, 1)):
            bodies.append(visitor.frame(Kind.SUBSCRIBE))
            visitor.send(frame(Kind.SUBACK, bodies[-1][:2] + b"\0" + bytes(codes)))
        made.expect("connected")
        presence, rest = bodies
        assert presence.endswith(TOPICS.presence(made.id).encode() + bytes((0b100,)))
        options = {topic: rest[rest.index(topic.encode()) + len(topic)] for topic in (made.topic, TOPICS.birth())}
        assert options == {made.topic: 0b100001, TOPICS.birth(): 0b100001}


def test_a_broker_may_refuse_the_subscription_to_the_own_presence(fake: FakeBroker) -> None:
    """An access list of an earlier version grants no such right: the device works as before."""
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.greeting()
        visitor.connack()
        visitor.suback(presence=0x87)
        made.expect("connected")
        assert made.connection.connected


def test_a_later_presence_of_its_own_leads_to_a_new_connection_before_the_birth(fake: FakeBroker) -> None:
    """The will of a connection has its epoch, so a new epoch needs a new connection; the old will is withdrawn."""
    stored: queue.Queue[bytes] = queue.Queue()

    def read(data: bytes, _signed: object) -> bool:
        stored.put(data)
        return data == b"later"

    with device(fake.url, on_retained_presence=read) as made:
        with fake.visitor() as visitor:
            visitor.greeting()
            visitor.connack()
            visitor.publish(TOPICS.presence(made.id).encode(), b"later", 0, qos=0, retained=True)
            visitor.frame(Kind.DISCONNECT)
        with fake.visitor() as visitor:
            assert visitor.greeting().will == b"will 2"
            visitor.connack()
            visitor.publish(TOPICS.presence(made.id).encode(), b"earlier", 0, qos=0, retained=True)
            visitor.publish(TOPICS.presence(made.id).encode(), b"echo", 0, qos=0)
            visitor.suback()
            made.expect("connected")
        assert [stored.get_nowait() for _ in range(stored.qsize())] == [b"later", b"earlier"]


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
def test_it_reconnects_after_any_bytes_of_a_broker(
    fake: FakeBroker, garbage: Callable[[Visitor], None], *, welcomed: bool
) -> None:
    with device(fake.url) as made:
        with fake.visitor() as visitor:
            if welcomed:
                visitor.welcome()
                made.expect("connected")
            garbage(visitor)
        if welcomed:
            made.expect("disconnected")
        with fake.visitor() as visitor:
            visitor.welcome()
            made.expect("connected")
            assert made.connection.connected


def test_a_will_that_cannot_be_made_is_made_later(fake: FakeBroker) -> None:
    tries = iter((OSError("disk full"), OSError("disk full"), None))

    def will() -> bytes:
        if error := next(tries):
            raise error
        return b"will"

    with device(fake.url, will=will) as made, fake.visitor() as visitor:
        assert visitor.welcome().will == b"will"
        made.expect("connected")


def test_a_stop_without_an_answer_is_quick(fake: FakeBroker) -> None:
    with device(fake.url) as made, fake.visitor() as visitor:
        visitor.greeting()
        made.connection.stop(b"offline")
        assert not made.connection._thread.is_alive()


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls.context_of.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FakeBroker(context) as broker, device(broker.url) as made, broker.visitor() as visitor:
        visitor.welcome()
        made.expect("connected")
        made.connection.publish(Channel.RESPONSE, b"x")
        assert visitor.published().payload == b"x"
    tls.context_of.cache_clear()


@pytest.mark.parametrize(
    "url",
    ["", "mqtt://", "http://broker", "mqtt://broker:0", "mqtt://broker:99999", "mqtt://user:pw@broker", "mqtt://b/x"],
)
def test_a_wrong_url_is_reported_without_the_url(url: str) -> None:
    with pytest.raises(SchemaError, match="mqtt://host:1883") as wrong:
        Device(url)
    assert "pw@" not in str(wrong.value)


def test_sockets_of_ended_connections_are_closed(fake: FakeBroker) -> None:
    descriptors = Path("/proc/self/fd")
    # What earlier tests left to the collector would be closed in between.
    gc.collect()
    with device(fake.url) as made:
        counts = []
        for _ in range(5):
            with fake.visitor() as visitor:
                visitor.welcome()
                made.expect("connected")
                counts.append(len(list(descriptors.iterdir())))
            made.expect("disconnected")
    assert max(counts) == counts[0], counts
