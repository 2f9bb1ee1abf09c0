"""The control planes that share a database see each other, and no one that is gone.

Rule: on each database; only the clock is a fake.
"""

import asyncio

import pytest

from control_plane.domain.access import ANONYMOUS
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.overview.replicas import GONE_AFTER, ReplicaList
from control_plane.services.ports.database import Database
from tests.support.databases import migrated, sql_database
from tests.support.fakes import FakeClock
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]


async def ids(replicas: ReplicaList) -> list[str]:
    return [one.replica_id for one in await replicas.seen(ANONYMOUS)]


async def test_replicas_see_each_other_until_they_are_silent(sql_database: Database) -> None:
    clock = FakeClock()
    first = ReplicaList(sql_database, clock, "1.0")
    clock.time += 5
    second = ReplicaList(sql_database, clock, "1.1")
    await first.sign()
    await second.sign()
    assert await ids(first) == [first.own.replica_id, second.own.replica_id]
    clock.time += GONE_AFTER - 1
    await second.sign()
    clock.time += 2
    assert await ids(first) == [second.own.replica_id]
    [shown] = await second.seen(ANONYMOUS)
    assert (shown.version, shown.started_at) == ("1.1", 1_005.0)


async def test_a_replica_that_ends_takes_its_row_along(sql_database: Database) -> None:
    replicas = ReplicaList(sql_database, FakeClock(), "1.0")
    running = asyncio.create_task(replicas.run())
    async with asyncio.timeout(60):
        while not await ids(replicas):
            # Each read goes through the event loop, where the first sign is written.
            pass
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await ids(replicas) == []


async def test_a_database_that_is_away_stops_no_replica(sql_database: Database) -> None:
    replicas = ReplicaList(sql_database, FakeClock(), "1.0")
    await sql_database.close()
    await replicas.sign()
    with pytest.raises(DatabaseUnavailable):
        await replicas.seen(ANONYMOUS)
