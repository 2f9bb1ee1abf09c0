"""PostgreSQL: replicas that write the same rows at once, and a server that stops.

Rule: a real server; a test that stops it starts its own.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from msgspec.structs import replace

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.changes import NumberedChange, UploadCreated, subject_id
from control_plane.domain.uploads.model import PartRecord, Upload, UploadKey
from control_plane.services.errors import BadInput, DatabaseUnavailable, KeyTaken
from control_plane.services.ports.database import Records
from tests.support.databases import a_client, an_upload, migrated
from tests.support.postgres import Postgres, postgres, running_cluster

__all__ = ["migrated", "postgres"]

pytestmark = pytest.mark.postgres

KEY = UploadKey("restaurant-1", "counter")


def add_one(records: Records) -> int:
    """What two replicas do at once: read, then write."""
    before = records.uploads.get(KEY)
    assert before is not None
    return records.uploads.save(before, replace(before, bytes_sent=before.bytes_sent + 1)).bytes_sent


async def opened(url: str) -> AsyncIterator[tuple[SqlDatabase, SqlDatabase]]:
    databases = (SqlDatabase.open(url), SqlDatabase.open(url))
    yield databases
    for database in databases:
        await database.close()


@pytest.fixture
async def replicas(postgres: Postgres, migrated: str) -> AsyncIterator[tuple[SqlDatabase, SqlDatabase]]:
    """Two replicas' connections to one database."""
    async for databases in opened(postgres.url(postgres.create_database(migrated))):
        yield databases


async def test_concurrent_changes_of_one_upload_lose_nothing(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    await replicas[0].write(lambda records: records.uploads.add(an_upload(upload_id=KEY.upload_id)))
    numbers = await asyncio.gather(*(replicas[n % 2].write(add_one) for n in range(60)))
    assert sorted(numbers) == list(range(1, 61))


async def test_a_transaction_that_lost_a_race_runs_again_on_the_new_rows(
    replicas: tuple[SqlDatabase, SqlDatabase],
) -> None:
    """Presence has no version: without this, an older message could overwrite a newer one."""
    client = a_client("a", sequence=1)
    await replicas[0].write(lambda records: records.clients.save([client]))
    read, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(records: Records) -> None:
        before = records.clients.get("a")
        assert before is not None
        seen.append(before.sequence)
        read.set()
        go_on.wait(60)
        if before.sequence < 6:
            records.clients.save([replace(before, sequence=6)])

    losing = asyncio.create_task(replicas[0].write(slow))
    await asyncio.to_thread(read.wait, 10)
    await replicas[1].write(lambda records: records.clients.save([replace(client, sequence=7)]))
    go_on.set()
    await losing
    assert seen == [1, 7]
    assert await replicas[0].read(lambda records: records.clients.get("a")) == replace(client, sequence=7)


async def test_one_of_two_concurrent_inserts_of_an_object_key_succeeds(
    replicas: tuple[SqlDatabase, SqlDatabase],
) -> None:
    rivals = [an_upload(s3_key="the one") for _ in range(8)]

    async def add(n: int, upload: Upload) -> bool:
        try:
            await replicas[n % 2].write(lambda records: records.uploads.add(upload))
        except KeyTaken:
            return False
        return True

    assert sum(await asyncio.gather(*(add(n, upload) for n, upload in enumerate(rivals)))) == 1


async def test_one_of_two_concurrent_changes_to_an_object_key_succeeds(
    replicas: tuple[SqlDatabase, SqlDatabase],
) -> None:
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


async def test_a_nul_character_is_replaced(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
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


async def test_a_stopped_server_is_database_unavailable_until_it_is_back(own_postgres: Postgres) -> None:
    async for database, _ in opened(own_postgres.url(own_postgres.create_database())):
        await database.write(lambda records: records.uploads.add(an_upload(upload_id=KEY.upload_id)))
        await database.write(add_one)
        own_postgres.kill()
        with pytest.raises(DatabaseUnavailable) as caught:
            await database.write(add_one)
        assert caught.value.retry_after > 0
        with pytest.raises(DatabaseUnavailable):
            await database.check()
        own_postgres.start()
        await database.check()
        assert await database.write(add_one) == 2


async def test_a_server_restart_between_two_calls_has_no_effect(own_postgres: Postgres) -> None:
    async for database, _ in opened(own_postgres.url(own_postgres.create_database())):
        await database.write(lambda records: records.uploads.add(an_upload(upload_id=KEY.upload_id)))
        own_postgres.kill()
        own_postgres.start()
        assert await database.write(add_one) == 1
        assert await database.read(lambda records: records.uploads.get(KEY)) is not None


def test_a_server_that_is_not_there_is_unavailable_and_its_password_stays_secret() -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        SqlDatabase.open("postgresql://user:secret@127.0.0.1:1/x", patience=1)
    assert "secret" not in str(caught.value)


async def test_changes_are_numbered_in_the_order_of_the_commits(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    """A reader that requests only higher numbers sees every change, however many replicas append at once."""
    seen: list[NumberedChange] = []
    written = asyncio.Event()

    async def append(n: int) -> None:
        changes = [UploadCreated(at=1.0, client_id="a", upload_id=f"{n}-{m}") for m in range(3)]
        await replicas[n % 2].write(lambda records: records.changes.append(changes))

    async def read() -> None:
        while True:
            finished = written.is_set()
            last = seen[-1].number if seen else 0
            found = await replicas[0].read(lambda records, after=last: records.changes.after(after, 7))  # type: ignore[misc]
            seen.extend(found)
            if finished and not found:
                return

    reader = asyncio.create_task(read())
    await asyncio.gather(*(append(n) for n in range(60)))
    written.set()
    await asyncio.wait_for(reader, 60)
    assert {subject_id(one.change) for one in seen} == {f"{n}-{m}" for n in range(60) for m in range(3)}
    assert len(seen) == 180


async def test_an_append_waits_for_the_commit_of_the_one_before(replicas: tuple[SqlDatabase, SqlDatabase]) -> None:
    appended, go_on = threading.Event(), threading.Event()

    def slow(records: Records) -> None:
        records.changes.append([UploadCreated(at=1.0, client_id="a", upload_id="first")])
        appended.set()
        go_on.wait(60)

    first = asyncio.create_task(replicas[0].write(slow))
    await asyncio.to_thread(appended.wait, 10)
    change = UploadCreated(at=1.0, client_id="a", upload_id="second")
    second = asyncio.create_task(replicas[1].write(lambda records: records.changes.append([change])))
    await asyncio.sleep(0.3)
    assert not second.done()
    go_on.set()
    await asyncio.gather(first, second)
    found = await replicas[0].read(lambda records: records.changes.after(0, 10))
    assert [subject_id(one.change) for one in found] == ["first", "second"]
