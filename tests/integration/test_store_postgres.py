"""PostgreSQL: replicas that write the same rows at once, and a server that goes away.

Rule: a real server, of the test's own where it is stopped.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.uploads.model import PartRecord, Upload, UploadKey
from control_plane.services.errors import BadInput, DatabaseUnavailable, KeyTaken
from control_plane.services.ports.database import Records
from tests.support.postgres import Postgres, postgres, running_cluster
from tests.support.stores import a_client, an_upload, migrated

__all__ = ["migrated", "postgres"]

pytestmark = pytest.mark.postgres

KEY = UploadKey("restaurant-1", "counter")


def add_one(records: Records) -> int:
    """What two replicas do at once: read, think, write."""
    before = records.uploads.get(KEY)
    assert before is not None
    return records.uploads.save(before, replace(before, bytes_sent=before.bytes_sent + 1)).bytes_sent


async def opened(url: str) -> AsyncIterator[tuple[SqlDatabase, SqlDatabase]]:
    stores = (SqlDatabase.open(url), SqlDatabase.open(url))
    yield stores
    for store in stores:
        await store.close()


@pytest.fixture
async def replicas(postgres: Postgres, migrated: str) -> AsyncIterator[tuple[SqlDatabase, SqlDatabase]]:
    """Two stores on one database."""
    async for stores in opened(postgres.url(postgres.create_database(migrated))):
        yield stores


async def test_replicas_that_change_one_upload_at_once_lose_nothing(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    await replicas[0].write(lambda records: records.uploads.add(an_upload(upload_id=KEY.upload_id)))
    numbers = await asyncio.gather(*(replicas[n % 2].write(add_one) for n in range(60)))
    assert sorted(numbers) == list(range(1, 61))


async def test_the_loser_of_a_race_runs_again_on_what_the_winner_wrote(
    replicas: tuple[SqlDatabase, SqlDatabase],
) -> None:
    """Presence has no version: without this, an older beat could overwrite a newer one."""
    client = a_client("a", sequence=1)
    await replicas[0].write(lambda records: records.clients.save([client]))
    read, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(records: Records) -> None:
        before = records.clients.get("a")
        assert before is not None
        seen.append(before.sequence)
        read.set()
        go_on.wait(10)
        if before.sequence < 6:
            records.clients.save([replace(before, sequence=6)])

    losing = asyncio.create_task(replicas[0].write(slow))
    await asyncio.to_thread(read.wait, 10)
    await replicas[1].write(lambda records: records.clients.save([replace(client, sequence=7)]))
    go_on.set()
    await losing
    assert seen == [1, 7]
    assert await replicas[0].read(lambda records: records.clients.get("a")) == replace(client, sequence=7)


async def test_two_who_add_one_object_at_once_cannot_both_win(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    rivals = [an_upload(s3_key="the one") for _ in range(8)]

    async def add(n: int, upload: Upload) -> bool:
        try:
            await replicas[n % 2].write(lambda records: records.uploads.add(upload))
        except KeyTaken:
            return False
        return True

    assert sum(await asyncio.gather(*(add(n, upload) for n, upload in enumerate(rivals)))) == 1


async def test_two_who_move_to_one_object_at_once_cannot_both_win(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    rivals = [an_upload() for _ in range(8)]

    async def move(n: int, upload: Upload) -> bool:
        moved = replace(upload, s3_key="the one")
        try:
            await replicas[n % 2].write(lambda records: records.uploads.save(upload, moved))
        except KeyTaken:
            return False
        return True

    for upload in rivals:
        await replicas[0].write(lambda records, upload=upload: records.uploads.add(upload))  # type: ignore[misc]
    assert sum(await asyncio.gather(*(move(n, upload) for n, upload in enumerate(rivals)))) == 1


async def test_a_read_that_writes_is_refused(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        await replicas[0].read(lambda records: records.uploads.add(an_upload()))


async def test_a_zero_character_poisons_nothing(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    upload = an_upload(message="a\0b", parts={1: PartRecord("x", "e\0")}, metadata={"a\0": "b\0"})
    client = a_client("a", default_file="/x\0", labels={"si\0te": "ber\0lin", "long": "x" * 10_000})

    def work(records: Records) -> None:
        records.uploads.add(upload)
        records.clients.save([client])

    await replicas[0].write(work)
    found = await replicas[1].read(lambda records: records.uploads.get(upload.key))
    assert found is not None
    assert (found.message, found.metadata) == ("a\ufffdb", upload.metadata)
    assert found.parts == {1: PartRecord("x", "e\ufffd")}


async def test_a_value_that_no_column_holds_is_bad_input(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    with pytest.raises(BadInput, match="cannot hold"):
        await replicas[0].write(lambda records: records.uploads.add(an_upload(token="a\0")))


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A cluster that the test may stop."""
    yield from running_cluster()


async def test_a_server_that_goes_away_is_told_and_comes_back(own_postgres: Postgres) -> None:
    async for store, _ in opened(own_postgres.url(own_postgres.create_database())):
        await store.write(lambda records: records.uploads.add(an_upload(upload_id=KEY.upload_id)))
        await store.write(add_one)
        own_postgres.kill()
        with pytest.raises(DatabaseUnavailable) as caught:
            await store.write(add_one)
        assert caught.value.retry_after > 0
        with pytest.raises(DatabaseUnavailable):
            await store.check()
        own_postgres.start()
        await store.check()
        assert await store.write(add_one) == 2


async def test_a_server_that_restarts_between_two_calls_is_not_noticed(own_postgres: Postgres) -> None:
    async for store, _ in opened(own_postgres.url(own_postgres.create_database())):
        await store.write(lambda records: records.uploads.add(an_upload(upload_id=KEY.upload_id)))
        own_postgres.kill()
        own_postgres.start()
        assert await store.write(add_one) == 1
        assert await store.read(lambda records: records.uploads.get(KEY)) is not None


def test_a_server_that_is_not_there_is_unavailable_and_its_password_stays_secret() -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        SqlDatabase.open("postgresql://user:secret@127.0.0.1:1/x", patience=1)
    assert "secret" not in str(caught.value)
