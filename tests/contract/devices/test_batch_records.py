"""What every database promises about batches of devices.

Rule: only the port is used.
"""

from dataclasses import replace
from typing import Final

from control_plane.domain.batches import Batch, Slot
from control_plane.services.ports.database import Database, Records
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
        found = (list(rows.slots(ONE.batch_id)), rows.of_key(SLOT.public_key), rows.of_key(b"o" * 32))
        rows.release(SLOT.public_key)
        return *found, list(rows.slots(ONE.batch_id))

    assert await sql_database.write(work) == ([SLOT], SLOT, None, [])
