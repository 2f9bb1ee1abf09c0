"""The messenger on a real broker: what it delivers, and how much of it at once.

Rule: the device is a plain aiomqtt client, so that only the messenger is under test.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.server import Broker
from control_plane.adapters.mqtt.messenger import MqttMessenger, MqttSettings
from control_plane.services.ports.messenger import Delivered
from control_plane.services.trust.keyring import ControlPlaneKey
from schemas.names import TRACEPARENT
from schemas.signing.canonical import SignedKind, read_signature
from schemas.signing.ed25519 import Signer
from schemas.topics import CONTROL_PLANE, Channel, Topics
from schemas.values import PRESENCE_EXPIRY
from tests.support.brokers import any_broker
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import connected

__all__ = ["any_broker"]

TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MANY: Final = 150
"""More than aiomqtt expects to be under way, and fewer than Mosquitto queues for one plain client."""


@asynccontextmanager
async def running(broker: Broker, topics: Topics) -> AsyncIterator[tuple[MqttMessenger, list[Delivered]]]:
    received: list[Delivered] = []
    messenger = MqttMessenger(MqttSettings(url=broker.address.url, announces=False), topics, lambda *_: None)
    loop = asyncio.create_task(messenger.run(received.append))
    try:
        await messenger.up()
        yield messenger, received
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


def device(broker: Broker) -> aiomqtt.Client:
    address = broker.address
    return aiomqtt.Client(
        address.host, address.port, identifier="messaging-device", protocol=aiomqtt.ProtocolVersion.V5
    )


async def until(received: list[Delivered], count: int) -> None:
    async with asyncio.timeout(60):
        while len(received) < count:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.01)


async def test_messages_are_delivered_once_each_and_in_order(any_broker: Broker) -> None:
    topics = Topics("messaging/order")
    async with running(any_broker, topics) as (_, received), device(any_broker) as client:
        for number in range(MANY):
            await client.publish(topics.response("one"), str(number), qos=1)
        await until(received, MANY)
    assert [message.payload for message in received] == [str(number).encode() for number in range(MANY)]
    assert {message.topic for message in received} == {topics.response("one")}


async def test_a_retained_message_is_delivered_as_retained(any_broker: Broker) -> None:
    topics = Topics("messaging/retained")
    async with device(any_broker) as client:
        for number in range(50):
            await client.publish(topics.presence(f"device-{number}"), b"{}", qos=1, retain=True)
        async with running(any_broker, topics) as (_, received):
            await until(received, 50)
            assert all(message.retained for message in received)
        for number in range(50):
            await client.publish(topics.presence(f"device-{number}"), b"", qos=1, retain=True)


async def test_a_stored_message_comes_on_presence_only_and_with_what_is_left_of_its_expiry(any_broker: Broker) -> None:
    """Retain Handling 2 on the other channels: what a broker has stored there may be of any age."""
    topics = Topics("messaging/stored")
    left = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    left.MessageExpiryInterval = PRESENCE_EXPIRY
    stored = [topics.of("one", channel) for channel in (Channel.COMMAND, Channel.RESPONSE, Channel.STATUS)]
    async with device(any_broker) as client:
        for topic in stored:
            await client.publish(topic, b"{}", qos=1, retain=True)
        await client.publish(topics.presence("one"), b"{}", qos=1, retain=True, properties=left)
        async with running(any_broker, topics) as (_, received):
            await until(received, 1)
            await client.publish(topics.response("one"), b"later", qos=1)
            async with asyncio.timeout(60):
                while received[-1].payload != b"later":  # noqa: ASYNC110 - a list has no event
                    await asyncio.sleep(0.01)
        for topic in (*stored, topics.presence("one")):
            await client.publish(topic, b"", qos=1, retain=True)
    # The embedded broker does not know Retain Handling, and the services drop what is marked as retained.
    first, later = (one for one in received if one.topic == topics.presence("one") or not one.retained)
    assert (first.topic, first.retained, later.payload) == (topics.presence("one"), True, b"later")
    assert first.expires_in is not None
    assert PRESENCE_EXPIRY - 30 < first.expires_in <= PRESENCE_EXPIRY


async def test_user_properties_pass_in_both_directions_as_they_are(any_broker: Broker) -> None:
    """Also one that stands twice: whoever verifies must see both."""
    topics = Topics("messaging/properties")
    given = (("kid", "one"), ("signature", "two"), ("kid", "three"))
    user = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    user.UserProperty = list(given)
    async with running(any_broker, topics) as (messenger, received), device(any_broker) as client:
        await client.subscribe(topics.every(Channel.COMMAND), qos=1)
        await client.publish(topics.response("one"), b"{}", qos=1, properties=user)
        await until(received, 1)
        await messenger.publish(Channel.COMMAND, "one", b"{}", traceparent=TRACE, properties=given)
        async with asyncio.timeout(60):
            arrived = await anext(client.messages)
    assert received[0].properties == given
    assert tuple(getattr(arrived.properties, "UserProperty", ())) == (*given, (TRACEPARENT, TRACE))


async def test_a_birth_is_signed_and_follows_what_is_published_at_each_connect(any_broker: Broker) -> None:
    topics = Topics("messaging/birth")
    signer = Signer(bytes(32))
    settings = MqttSettings(url=any_broker.address.url)
    messenger = MqttMessenger(settings, topics, lambda *_: None, sign=ControlPlaneKey(signer).sign)
    messenger.on_connected(lambda: messenger.publish(Channel.KEYS, CONTROL_PLANE, b"{}"))
    async with device(any_broker) as client:
        await client.subscribe([(topics.keys(), 1), (topics.birth(), 1)])
        running = asyncio.create_task(messenger.run(lambda _: None))
        async with asyncio.timeout(60):
            first, birth = await anext(client.messages), await anext(client.messages)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await client.publish(topics.keys(), b"", qos=1, retain=True)
    assert (first.topic.value, birth.topic.value) == (topics.keys(), topics.birth())
    signature = read_signature(getattr(birth.properties, "UserProperty", None))
    assert signature is not None
    assert signer.verifier.verifies(signature, SignedKind.BIRTH, topics.birth(), birth.payload)


async def test_many_publishes_at_once_log_no_warning(any_broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    topics = Topics("messaging/many")
    caplog.set_level(logging.WARNING)
    async with device(any_broker) as client, running(any_broker, topics) as (messenger, _):
        await client.subscribe(topics.every(Channel.COMMAND), qos=1)
        publishes = [messenger.publish(Channel.COMMAND, f"device-{number}", b"{}") for number in range(MANY)]
        await asyncio.gather(*publishes)
        got = set()
        async with asyncio.timeout(60):
            async for message in client.messages:
                got.add(message.topic.value)
                if len(got) == MANY:
                    break
    assert got == {topics.command(f"device-{number}") for number in range(MANY)}
    assert caplog.records == []


async def test_a_message_is_written_before_the_event_loop_runs_anything_else(any_broker: Broker) -> None:
    """The blocking receive below keeps the loop from running until the message has arrived."""
    topics = Topics("messaging/prompt")
    hello = Connect(client_id="messaging-wire")
    async with running(any_broker, topics) as (messenger, _):
        with connected(any_broker.address.port, hello) as wire:
            wire.subscribe(topics.command("one"))
            publishing = asyncio.create_task(messenger.publish(Channel.COMMAND, "one", b"now"))
            await asyncio.sleep(0)
            assert not publishing.done()
            assert wire.receive().payload == b"now"
            await publishing


async def test_bytes_that_the_socket_does_not_take_at_once_follow(any_broker: Broker) -> None:
    """The broker is stopped while the message is written, and the buffers between are small.

    Which call of the client writes the first bytes is left open: an earlier packet that the kernel still holds can
    fill the small buffer at first. The broker's kernel may take the rest soon, so each turn of the loop looks.
    """
    topics, payload = Topics("messaging/full"), b"x" * 120_000
    async with running(any_broker, topics) as (messenger, _):
        with connected(any_broker.address.port, Connect(client_id="messaging-wire")) as wire:
            wire.subscribe(topics.command("one"))
            ours: Any = messenger._client
            client = ours._client
            client.socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            any_broker.send(signal.SIGSTOP)
            try:
                os.waitid(os.P_PID, any_broker.pid, os.WSTOPPED | os.WNOWAIT)  # noqa: ASYNC222 - it stops at once
                publishing = asyncio.create_task(messenger.publish(Channel.COMMAND, "one", payload))
                async with asyncio.timeout(60):
                    while not (client._out_packet and client._out_packet[0]["pos"] > 0):  # noqa: ASYNC110 - paho has no event
                        await asyncio.sleep(0)
                assert client._out_packet[0]["pos"] < len(payload), "part of it was written, and the rest waits"
            finally:
                any_broker.send(signal.SIGCONT)
            await publishing
            assert wire.receive().payload == payload


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example"])
async def test_a_host_name_that_cannot_be_encoded_is_reported_as_an_unreachable_broker(host: str) -> None:
    """The messenger goes on: encoding such a name raises no `OSError`."""
    failures: asyncio.Queue[str] = asyncio.Queue()

    def log(event: str, facts: Mapping[str, object]) -> None:
        failures.put_nowait(f"{event}: {facts['error']}")

    messenger = MqttMessenger(MqttSettings(url=f"mqtt://{host}"), Topics(), log)
    loop = asyncio.create_task(messenger.run(lambda _: None))
    failed = asyncio.create_task(failures.get())
    await asyncio.wait({loop, failed}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    still_runs = not loop.done()
    for task in (loop, failed):
        task.cancel()
    await asyncio.gather(loop, failed, return_exceptions=True)
    assert still_runs
    assert "broker.failed" in failed.result()
