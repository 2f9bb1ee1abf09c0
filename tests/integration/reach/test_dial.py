"""Connections to names with several addresses, of which some lead nowhere.

Rule: an address that leads nowhere is a listener of loopback whose queue is full: the kernel answers no SYN there.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from device_agent.reach.dial import _in_turn, dial

Where = tuple[str, int]


@pytest.fixture
def nowhere() -> Iterator[Where]:
    """An address at which no connection is opened and none is refused."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 (only by position)
            with suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        yield full.getsockname()


@pytest.fixture
def somewhere() -> Iterator[Where]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


def refused() -> Where:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        where: Where = closed.getsockname()
    return where


def known_as(monkeypatch: pytest.MonkeyPatch, *places: Where) -> None:
    """Every name has these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_an_address_that_leads_nowhere_does_not_use_up_the_time_of_the_others(
    monkeypatch: pytest.MonkeyPatch, nowhere: Where, somewhere: Where
) -> None:
    monkeypatch.setattr("device_agent.reach.dial.NEXT_ADDRESS", 0.05)
    known_as(monkeypatch, nowhere, refused(), nowhere, somewhere)
    with dial("broker.example", 1, None, None, timeout=30.0) as link:
        assert link.getpeername() == somewhere
        assert link.gettimeout() == 30.0


def test_without_an_answer_the_time_is_the_end(monkeypatch: pytest.MonkeyPatch, nowhere: Where) -> None:
    known_as(monkeypatch, nowhere)
    with pytest.raises(TimeoutError, match="no answer in time"):
        dial("broker.example", 1, None, None, timeout=0.2)


def test_a_refusal_of_one_address_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    known_as(monkeypatch, refused(), refused())
    with pytest.raises(ConnectionRefusedError):
        dial("broker.example", 1, None, None, timeout=30.0)


def test_the_families_take_turns_and_the_preferred_one_is_first() -> None:
    def address(family: int, host: str) -> Any:  # noqa: ANN401 - as getaddrinfo has it
        return (family, socket.SOCK_STREAM, 6, "", (host, 1))

    six, four = socket.AF_INET6, socket.AF_INET
    found = [address(six, "a"), address(six, "b"), address(six, "c"), address(four, "d")]
    assert [one[4][0] for one in _in_turn(found)] == ["a", "d", "b", "c"]
    assert [one[4][0] for one in _in_turn(found[::-1])] == ["d", "c", "b", "a"]
    assert _in_turn([]) == []
