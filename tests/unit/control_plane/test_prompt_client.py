"""The private parts of aiomqtt that `PromptClient` and `DeliveringQueue` depend on.

Rule: a new version of aiomqtt that changes one of them fails here first, with the part's name.
"""

import asyncio
import inspect
import ssl
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.client import DisconnectFlags, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from control_plane.adapters.mqtt.prompt_client import DeliveringQueue, PromptClient
from control_plane.adapters.mqtt.terms import reason_text


class _Socket:
    """A paho client at the end of a write: `left` says whether bytes remain, `error` is what the write raises."""

    def __init__(self, *, left: bool = False, error: Exception | None = None) -> None:
        self.left = left
        self.error = error
        self.writes = 0

    def loop_write(self) -> None:
        self.writes += 1
        if self.error is not None:
            raise self.error

    def socket(self) -> object:
        return self

    def want_write(self) -> bool:
        return self.left


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The sockets that aiomqtt's own method registers with the event loop."""
    sockets: list[object] = []
    monkeypatch.setattr(
        aiomqtt.Client, "_on_socket_register_write", lambda _self, _client, _userdata, sock: sockets.append(sock)
    )
    return sockets


def test_aiomqtt_has_the_callback_that_is_overridden() -> None:
    parameters = list(inspect.signature(aiomqtt.Client._on_socket_register_write).parameters)
    assert parameters == ["self", "client", "userdata", "sock"]
    assert list(inspect.signature(PromptClient._on_socket_register_write).parameters) == parameters


async def test_paho_calls_the_overridden_callback() -> None:
    client: Any = PromptClient("broker.example")
    assert client._client.on_socket_register_write == client._on_socket_register_write


async def test_aiomqtt_keeps_the_end_of_the_connection_in_a_future() -> None:
    assert isinstance(PromptClient("broker.example")._disconnected, asyncio.Future)


@pytest.mark.parametrize("context", [None, ssl.create_default_context()], ids=["tcp", "tls"])
async def test_a_connection_that_ends_before_its_connack_is_not_waited_for(context: ssl.SSLContext | None) -> None:
    """As that of a broker which requires a certificate: TLS 1.3 refuses after the handshake of the client."""
    client: Any = PromptClient("broker.example", tls_context=context)
    flags = DisconnectFlags(is_disconnect_packet_from_server=False)
    client._on_disconnect(client._client, None, flags, ReasonCode(PacketTypes.DISCONNECT, identifier=0x80))
    with pytest.raises(aiomqtt.MqttError, match="before it answered"):
        await client._wait_for(client._connected, 60)
    assert ("MQTT_CERTIFICATE" in client.ending) == (context is not None)


async def test_aiomqtt_queues_each_message_with_put_nowait() -> None:
    queue = DeliveringQueue()
    delivered: list[aiomqtt.Message] = []
    client: Any = PromptClient("broker.example", queue_type=lambda maxsize: queue)  # type: ignore[arg-type]
    message = MQTTMessage(mid=1, topic=b"topic")
    message.payload = b"first"
    client._on_message(client._client, None, message)
    assert queue.get_nowait().payload == b"first"
    queue.deliver = delivered.append
    client._on_message(client._client, None, message)
    assert [one.topic.value for one in delivered] == ["topic"]
    assert queue.empty()


async def test_the_next_packet_is_written_without_the_event_loop(registered: list[object]) -> None:
    client, paho = PromptClient("broker.example"), _Socket()
    client.write_next_now()
    client._on_socket_register_write(paho, None, "first")
    client._on_socket_register_write(paho, None, "second")
    assert paho.writes == 1
    assert registered == ["second"]


async def test_in_a_later_iteration_the_event_loop_writes(registered: list[object]) -> None:
    client, paho = PromptClient("broker.example"), _Socket()
    client.write_next_now()
    await asyncio.sleep(0)
    client._on_socket_register_write(paho, None, "first")
    assert (paho.writes, registered) == (0, ["first"])


async def test_the_rest_of_a_packet_is_left_to_the_event_loop(registered: list[object]) -> None:
    client, paho = PromptClient("broker.example"), _Socket(left=True)
    client.write_next_now()
    client._on_socket_register_write(paho, None, "first")
    assert (paho.writes, registered) == (1, ["first"])


async def test_a_write_that_fails_ends_the_connection(registered: list[object]) -> None:
    client, paho = PromptClient("broker.example"), _Socket(error=ConnectionResetError())
    client.write_next_now()
    client._on_socket_register_write(paho, None, "first")
    assert isinstance(client._disconnected.exception(), ConnectionResetError)
    assert registered == []


async def test_paho_has_the_parts_that_measure_an_answer_and_close_a_connection() -> None:
    client: Any = PromptClient("broker.example")
    assert client.answered
    client._client._ping_t = 1.0
    assert not client.answered
    assert callable(client._client._send_pingreq)
    assert client._client.keepalive == client._client._keepalive
    client._close()


@pytest.mark.parametrize(("announced", "used"), [(None, 60), (5, 5), (0, 60), (300, 60)])
async def test_the_shorter_keep_alive_counts_and_never_none(announced: int | None, used: int) -> None:
    """With 0 paho would end the connection at its first ping."""
    client: Any = PromptClient("broker.example", keepalive=60)
    properties = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
    if announced is not None:
        properties.ServerKeepAlive = announced
    client._on_connect(client._client, None, None, ReasonCode(PacketTypes.CONNACK, "Success"), properties)
    assert (client.keepalive, client._client._keepalive) == (used, used)


async def test_a_cancellation_that_meets_a_result_is_not_dropped() -> None:
    """`asyncio.wait_for` of Python 3.11 returns the result, and its caller goes on for ever."""
    client: Any = PromptClient("broker.example")
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client._wait_for(answer, None))
    await asyncio.sleep(0)
    answer.set_result(None)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()


async def test_an_end_that_fails_does_not_replace_the_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        message = "Operation timed out"
        raise aiomqtt.MqttError(message)

    monkeypatch.setattr(aiomqtt.Client, "__aexit__", fail)
    monkeypatch.setattr(aiomqtt.Client, "__aenter__", lambda self: asyncio.sleep(0, self))
    with pytest.raises(asyncio.CancelledError):
        async with PromptClient("broker.example"):
            raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("reason", "given", "text"),
    [
        ("Server busy", {}, "Server busy (0x89)"),
        ("Quota exceeded", {"ReasonString": "10 a minute"}, "Quota exceeded (0x97): 10 a minute"),
        ("Server moved", {"ServerReference": "b.example"}, "Server moved (0x9D), it refers to b.example"),
    ],
)
def test_a_reason_has_its_name_its_code_and_the_words_of_the_broker(
    reason: str, given: dict[str, str], text: str
) -> None:
    properties = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
    for name, value in given.items():
        setattr(properties, name, value)
    assert reason_text(ReasonCode(PacketTypes.CONNACK, reason), properties) == text
