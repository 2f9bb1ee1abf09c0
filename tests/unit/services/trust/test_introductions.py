"""First presences: one that meets a fault, or a flood of held messages, is no other client's affair."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from control_plane.services.ports.messenger import Delivered
from control_plane.services.trust.introductions import MAX_HELD_BYTES, Introductions
from schemas.messages import Presence


def message(text: bytes = b"") -> Delivered:
    return Delivered("t", text)


def presence(client_id: str) -> Presence:
    return Presence(client_id, "online", "install", 1, 0)


async def test_a_fault_in_one_introduction_ends_no_other() -> None:
    events: list[tuple[str, Mapping[str, Any]]] = []
    taken: list[Delivered] = []

    async def introduce(one: Presence) -> bool:
        await asyncio.sleep(0)
        if one.client_id == "broken":
            raise ZeroDivisionError
        return True

    introductions = Introductions(introduce, lambda event, facts: events.append((event, facts)), taken.append)
    good = message(b"good")
    introductions.offer(presence("broken"), message(b"broken"))
    introductions.offer(presence("good"), good)
    running = asyncio.create_task(introductions.run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert taken == [good]
    assert [event for event, _ in events] == ["message.fault", "message.unverified"]


async def test_what_waits_takes_a_bounded_part_of_the_memory() -> None:
    """While the database is away every device of a new fleet may send; what is dropped they send again."""
    released = asyncio.Event()
    taken: list[Delivered] = []

    async def introduce(_: Presence) -> bool:
        await released.wait()
        return True

    introductions = Introductions(introduce, lambda _event, _facts: None, taken.append)
    clients = [f"till-{number}" for number in range(20)]
    for client_id in clients:
        introductions.offer(presence(client_id), message())
    size = MAX_HELD_BYTES // 8
    for _ in range(2):
        for client_id in clients:
            assert introductions.hold(client_id, message(bytes(size)))
    running = asyncio.create_task(introductions.run())
    released.set()
    for _ in range(100):
        await asyncio.sleep(0)
    held = [one for one in taken if one.payload]
    assert 0 < sum(len(one.payload) for one in held) <= MAX_HELD_BYTES
    # Nothing waits any more: there is room again.
    taken.clear()
    released.clear()
    introductions.offer(presence("later"), message())
    assert introductions.hold("later", message(bytes(size)))
    released.set()
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(taken) == 2
