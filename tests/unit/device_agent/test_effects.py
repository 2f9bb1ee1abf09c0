"""Digests of several threads are one event."""

import pytest

from device_agent.effects import DigestJoin, split_digests
from device_agent.transfer.events import Digested, DigestParts, Faulted
from device_agent.workers.part_io import IoEvent
from schemas.parts import Part
from schemas.values import DigestName, ErrorCode


def task(parts: int) -> DigestParts:
    return DigestParts(tuple(Part(number, 0, 1) for number in range(1, parts + 1)), DigestName.MD5)


@pytest.mark.parametrize(("parts", "numbers"), [(5, [[1, 3, 5], [2, 4]]), (2, [[1], [2]]), (1, [[1]]), (0, [[]])])
def test_neighbouring_parts_go_to_different_threads(parts: int, numbers: list[list[int]]) -> None:
    assert [[part.number for part in share.parts] for share in split_digests(task(parts), 2)] == numbers


def test_the_answer_waits_for_the_last_share() -> None:
    posted: list[IoEvent] = []
    gathered = DigestJoin(2, posted.append)
    gathered.post(Digested(now=1.0, digests={2: "b"}))
    assert posted == []
    gathered.post(Digested(now=2.0, digests={1: "a", 3: None}))
    assert posted == [Digested(now=2.0, digests={1: "a", 2: "b", 3: None})]


@pytest.mark.parametrize("first", [True, False])
def test_a_fault_of_one_share_is_the_fault_of_all(*, first: bool) -> None:
    posted: list[IoEvent] = []
    gathered = DigestJoin(2, posted.append)
    fault = Faulted(now=1.0, code=ErrorCode.INTERNAL, text="OSError")
    events: list[IoEvent] = [Digested(now=1.0, digests={2: "b"}), fault]
    for event in reversed(events) if first else events:
        gathered.post(event)
    assert posted == [fault]
