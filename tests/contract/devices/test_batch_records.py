"""What every database promises about batches of devices.

Rule: only the port is used.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from control_plane.domain.batches import Batch, Slot
from control_plane.domain.devices import Device, DeviceState
from control_plane.domain.enrollment import Enrollment
from control_plane.services.devices.batches import BatchPlace, BatchRefusal, placed
from control_plane.services.ports.database import Database, Records
from schemas.signing.enrolment import token_digest
from tests.support.databases import migrated, sql_database
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

ONE: Final = Batch(
    batch_id="a" * 16,
    digest="d" * 64,
    pattern="till-{serial}",
    count=2,
    expires_at=900.5,
    auto=True,
    created_at=1.5,
    created_by="ana",
    serials=("A1", "A2"),
    wanted={"allowed_roots": ["/data"]},
)
OTHER: Final = replace(ONE, batch_id="b" * 16, digest="e" * 64, created_at=2.0, serials=(), wanted={})
SLOT: Final = Slot(ONE.batch_id, 1, "till-A1", b"k" * 32, 3.5)


async def test_a_batch_comes_back_and_is_revoked_once(sql_database: Database) -> None:
    def work(records: Records) -> tuple[object, ...]:
        rows = records.batches
        rows.add(ONE)
        rows.add(OTHER)
        rows.take(SLOT)
        found = (rows.get(ONE.batch_id), rows.of_digest(OTHER.digest), rows.of_digest("f" * 64), list(rows.list()))
        return *found, rows.revoke(ONE.batch_id, 5.5), rows.revoke(ONE.batch_id, 6.5), rows.revoke("c" * 16, 6.5)

    listed = [(OTHER, 0), (ONE, 1)]
    assert await sql_database.write(work) == (ONE, OTHER, None, listed, True, False, False)
    assert await sql_database.read(lambda records: records.batches.get(ONE.batch_id)) == replace(ONE, revoked_at=5.5)


async def test_a_slot_a_name_and_a_key_are_given_once(sql_database: Database) -> None:
    def work(records: Records) -> tuple[object, ...]:
        rows = records.batches
        assert rows.take(SLOT)
        assert not rows.take(replace(SLOT, client_id="till-9", public_key=b"o" * 32)), "its number is taken"
        assert not rows.take(replace(SLOT, number=2, public_key=b"o" * 32)), "its name is taken"
        assert not rows.take(replace(SLOT, number=2, client_id="till-9")), "its key has one"
        found = (rows.taken(ONE.batch_id), rows.of_key(SLOT.public_key), rows.of_key(b"o" * 32))
        rows.release(SLOT.public_key)
        return *found, rows.taken(ONE.batch_id)

    assert await sql_database.write(work) == ({1}, SLOT, None, frozenset())


async def test_a_slot_is_left_once_its_key_neither_asks_nor_has_a_device_nor_was_revoked(
    sql_database: Database,
) -> None:
    keys = {1: b"a" * 32, 2: b"b" * 32, 3: b"c" * 32, 4: b"d" * 32}

    def work(records: Records) -> tuple[object, ...]:
        for number, key in keys.items():
            records.batches.take(Slot(ONE.batch_id, number, f"till-{number}", key, 3.5))
        records.devices.save(Device("till-1", DeviceState.ENROLLED, 1.0, "ana", public_key=keys[1]))
        records.devices.revoke_key(keys[2], "till-2", 1.0)
        records.enrollments.add(Enrollment("e" * 43, "4F7K-2QXM", keys[3], b"s" * 32, "192.0.2.7", 1.0, 900.0))
        left = records.batches.left
        return [one.number for one in left(ONE.batch_id, 899.0)], [one.number for one in left(ONE.batch_id, 900.0)]

    assert await sql_database.write(work) == ([4], [3, 4])


async def test_a_name_is_held_by_a_device_or_a_slot_of_whatever_batch_and_shows_which_slot_is_left(
    sql_database: Database,
) -> None:
    def work(records: Records) -> tuple[object, ...]:
        for number, key in enumerate((b"a" * 32, b"b" * 32, b"c" * 32), 1):
            records.batches.take(Slot(OTHER.batch_id, number, f"till-{number}", key, 3.5))
        records.devices.save(Device("till-2", DeviceState.ENROLLED, 1.0, "ana", public_key=b"x" * 32))
        records.devices.save(Device("till-4", DeviceState.ENROLLED, 1.0, "ana"))
        records.enrollments.add(Enrollment("e" * 43, "4F7K-2QXM", b"c" * 32, b"s" * 32, "192.0.2.7", 1.0, 900.0))
        names = [f"till-{number}" for number in range(2, 7)]
        return records.batches.held(names, 899.0), records.batches.held(["till-1", *names], 900.0)

    held = {"till-2": None, "till-3": None, "till-4": None}
    assert await sql_database.write(work) == (held, held | {"till-1": b"a" * 32, "till-3": b"c" * 32})


async def test_a_batch_that_ended_is_deleted_with_the_slots_that_nobody_joined_by(sql_database: Database) -> None:
    """It ends at its revocation or its end, whichever is first. The slot of a device that joined stays."""
    running = replace(OTHER, batch_id="c" * 16, digest="f" * 64, expires_at=950.0)
    keys = {number: bytes([number]) * 32 for number in range(1, 6)}

    def before(records: Records) -> None:
        for batch in (ONE, OTHER, running):
            records.batches.add(batch)
        records.batches.revoke(OTHER.batch_id, 500.0)
        for number, batch in enumerate((ONE, ONE, ONE, OTHER, running), 1):
            records.batches.take(Slot(batch.batch_id, number, f"till-{number}", keys[number], 3.5))
        records.devices.save(Device("till-1", DeviceState.ENROLLED, 1.0, "ana", public_key=keys[1]))
        records.devices.revoke_key(keys[2], "till-2", 1.0)

    def pruned(at: float, limit: int = 200) -> Callable[[Records], tuple[int, list[str]]]:
        def work(records: Records) -> tuple[int, list[str]]:
            gone = records.batches.prune(at, 2_000.0, limit)
            return gone, [batch.batch_id[0] for batch, _ in records.batches.list()]

        return work

    await sql_database.write(before)
    assert await sql_database.write(pruned(500.0)) == (0, ["b", "c", "a"])
    assert await sql_database.write(pruned(500.5)) == (1, ["c", "a"])
    assert await sql_database.write(pruned(940.0, limit=1)) == (1, ["c"])
    assert await sql_database.write(pruned(940.0)) == (0, ["c"])
    slots = await sql_database.read(
        lambda records: {number for number, key in keys.items() if records.batches.of_key(key) is not None}
    )
    assert slots == {1, 2, 5}


async def test_two_replicas_give_a_number_once_and_no_more_than_the_count(sql_database: Database) -> None:
    token = "t" * 43
    batch = replace(OTHER, digest=token_digest(token), pattern="till-{n}", count=3)
    await sql_database.write(lambda records: records.batches.add(batch))

    def asking(key: bytes) -> Callable[[Records], BatchPlace | BatchRefusal]:
        def work(records: Records) -> BatchPlace | BatchRefusal:
            place = placed(records, token, None, key, 1.0)
            if isinstance(place, BatchPlace):
                code = key[:1].hex()
                records.enrollments.add(Enrollment(code, code, key, b"s" * 32, "192.0.2.7", 1.0, 900.0))
            return place

        return work

    # Each key comes twice, as one whose answer was lost, and who asks another replica.
    keys = [bytes([number % 6]) * 32 for number in range(12)]
    found = await asyncio.gather(*(sql_database.write(asking(key)) for key in keys))
    given = [(key, one.client_id) for key, one in zip(keys, found, strict=True) if isinstance(one, BatchPlace)]
    assert len(given) == 6
    assert len(set(given)) == 3
    assert {name for _, name in given} == {"till-1", "till-2", "till-3"}
