"""The queue that clients share."""

import asyncio

import pytest

from control_plane.services.fair_queue import FairQueue


def drained(queue: FairQueue[str]) -> list[str]:
    return [queue.get_nowait() for _ in range(len(queue))]


def test_lanes_take_turns_and_one_lane_keeps_its_order() -> None:
    queue = FairQueue[str](most=100, most_of_one=100)
    for item in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        assert queue.offer(item[0], item)
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    with pytest.raises(KeyError):
        queue.get_nowait()


def test_one_lane_cannot_fill_the_queue() -> None:
    queue = FairQueue[str](most=100, most_of_one=3)
    assert [queue.offer("a", "x") for _ in range(5)] == [True, True, True, False, False]
    assert queue.offer("b", "x")


def test_a_full_queue_still_takes_one_item_of_a_lane_without_any() -> None:
    queue = FairQueue[str](most=4, most_of_one=4)
    for _ in range(4):
        assert queue.offer("a", "x")
    assert [queue.offer("b", "y"), queue.offer("b", "z"), queue.offer("a", "x")] == [True, False, False]
    queue.put("c", "beyond")
    queue.put("c", "all limits")
    assert len(queue) == 7


async def test_a_reader_waits_for_the_next_item() -> None:
    queue = FairQueue[str](most=4, most_of_one=4)
    reading = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not reading.done()
    queue.offer("a", "x")
    assert await reading == "x"
