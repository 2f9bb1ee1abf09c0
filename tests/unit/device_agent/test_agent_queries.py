"""Queries about the device: as many run or wait as the device chose, however many arrive."""

from pathlib import Path

import msgspec
import pytest

from device_agent.agent import MAX_QUERIES
from device_agent.inbox import MAX_UNLIMITED, BirthArrived, CommandArrived, Connected, EventQueue, QueryAnswered
from device_agent.mqtt.connection import AckToken
from device_agent.mqtt.publisher import MAX_WAITING, MAX_WAITING_BYTES, Outbound, SendQueue
from schemas.codec import MAX_MESSAGE_SIZE, decode_response
from schemas.messages import Nothing, Response
from schemas.topics import Channel
from schemas.values import ResponseStatus
from tests.unit.device_agent.agent_loop import AgentLoop


def query(number: int) -> CommandArrived:
    message = {"message_id": f"q{number}", "action": "list_files", "payload": {"pattern": "/**"}}
    return CommandArrived(msgspec.json.encode(message), AckToken(1, 1 + number % 16))


def test_a_flood_of_queries_is_answered_busy_and_holds_no_memory(tmp_path: Path) -> None:
    """The kind: a queue without a limit that another program fills. After an answer a query is accepted again."""
    loop = AgentLoop(tmp_path)
    loop.agent.turn([Connected()])
    loop.network.published.clear()
    for number in range(1_000):
        loop.agent.turn([query(number)])
    answers = [decode_response(data) for data in loop.network.published]
    assert {(one.action, one.error) for one in answers} == {("list_files", "busy")}
    assert [one.message_id for one in answers] == [f"q{number}" for number in range(MAX_QUERIES, 1_000)]
    loop.agent.turn([QueryAnswered(Response("q0", "list_files", ResponseStatus.SUCCESS, Nothing()))])
    loop.network.published.clear()
    loop.agent.turn([query(1_000), query(1_001)])
    assert [decode_response(data).message_id for data in loop.network.published] == ["q1001"]


def test_a_flood_of_qos_0_holds_no_memory_and_takes_the_place_of_no_command_that_the_broker_keeps() -> None:
    """The kind: a queue that Receive Maximum bounds, and a message that Receive Maximum does not count."""
    inbox = EventQueue()
    for _ in range(10_000):
        inbox.put(CommandArrived(b"x", AckToken(1, 0, 0)))
    inbox.put(CommandArrived(b"kept", AckToken(1, 1)))
    inbox.put(BirthArrived())
    waiting = inbox.take(0.0)
    assert (len(waiting), inbox.refused) == (MAX_UNLIMITED + 2, 10_000 - MAX_UNLIMITED)
    assert waiting[-2:] == [CommandArrived(b"kept", AckToken(1, 1)), BirthArrived()]


@pytest.mark.parametrize(("size", "kept"), [(10, MAX_WAITING), (96 * 1024, MAX_WAITING_BYTES // (96 * 1024))])
def test_messages_that_the_network_does_not_accept_are_bounded_in_number_and_in_bytes(size: int, kept: int) -> None:
    """A newer message still replaces an older one, and presence has a place at all times."""
    queue = SendQueue(lambda _: False, lambda: MAX_MESSAGE_SIZE)
    for number in range(MAX_WAITING + 100):
        queue.put(str(number), Outbound(Channel.RESPONSE, bytes(size)))
    assert (len(queue), queue.dropped) == (kept, MAX_WAITING + 100 - kept)
    queue.put("0", Outbound(Channel.RESPONSE, b"newer"))
    queue.put("presence", Outbound(Channel.PRESENCE, b"online"))
    waiting = queue.take()
    assert (waiting["0"].data, waiting["presence"].data) == (b"newer", b"online")
    queue.put("again", Outbound(Channel.RESPONSE, bytes(size)))
    assert len(queue) == 1
