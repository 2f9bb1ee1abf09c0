"""The private parts of aiomqtt that `PromptClient` and `DeliveringQueue` depend on.

Rule: a new version of aiomqtt that changes one of them fails here first, with the part's name.
"""

import asyncio
import inspect
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.client import MQTTMessage

from control_plane.adapters.mqtt.prompt_client import DeliveringQueue, PromptClient


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
