"""What every database promises about devices that ask to be enrolled.

Rule: only the port is used.
"""

from dataclasses import replace
from typing import Final

from control_plane.domain.enrollment import Enrollment
from control_plane.services.ports.database import Database, Records
from tests.support.databases import migrated, sql_database
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

ONE: Final = Enrollment("a" * 43, "4F7K-2QXM", b"k" * 32, b"s" * 32, "192.0.2.7", 1.5, 901.5)
OTHER: Final = replace(ONE, device_code="b" * 43, user_code="5F7K-2QXM", public_key=b"o" * 32, asked_at=1.0)


async def test_a_request_comes_back_until_it_expires(sql_database: Database) -> None:
    def work(records: Records) -> tuple[object, ...]:
        rows = records.enrollments
        assert (rows.add(ONE), rows.add(OTHER)) == (True, True)
        assert not rows.add(replace(ONE, device_code="c" * 43)), "its user code is taken"
        seen = (
            rows.get(ONE.device_code, 2.0),
            rows.shown(ONE.user_code, 2.0),
            list(rows.waiting(2.0)),
            rows.count(2.0),
        )
        gone = (rows.get(ONE.device_code, 901.5), rows.shown(ONE.user_code, 901.5), list(rows.waiting(901.5)))
        return *seen, *gone, rows.count(901.5)

    assert await sql_database.write(work) == (ONE, ONE, [OTHER, ONE], 2, None, None, [], 0)
    assert await sql_database.write(lambda records: records.enrollments.prune(901.5)) == 2
    assert await sql_database.read(lambda records: records.enrollments.count(2.0)) == 0


async def test_one_that_is_approved_waits_for_its_device_alone(sql_database: Database) -> None:
    sealed = replace(ONE, client_id="restaurant-7", sealed="AAAA", expires_at=9_000.0)

    def work(records: Records) -> tuple[object, ...]:
        rows = records.enrollments
        rows.add(ONE)
        rows.add(OTHER)
        assert rows.seal(sealed)
        assert not rows.seal(replace(sealed, device_code="c" * 43))
        rows.drop_waiting(ONE.public_key)
        rows.drop_waiting(OTHER.public_key)
        return rows.get(ONE.device_code, 8_000.0), rows.shown(ONE.user_code, 2.0), list(rows.waiting(2.0))

    assert await sql_database.write(work) == (sealed, None, [])
    await sql_database.write(lambda records: records.enrollments.drop(ONE.device_code))
    assert await sql_database.read(lambda records: records.enrollments.get(ONE.device_code, 2.0)) is None
