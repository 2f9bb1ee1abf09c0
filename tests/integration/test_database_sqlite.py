"""SQLite under stress: concurrent processes, a lock that is held, a full disk, SIGKILL.

Rule: the other processes are real; nothing is injected.
"""

import asyncio
import functools
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.dialects import sqlite

from control_plane.adapters.database import SqlDatabase, reach
from control_plane.adapters.database.sql import Statements
from control_plane.domain.selectors import Relation, Selector, Term, parse
from control_plane.domain.uploads.model import PartRecord, Upload, UploadKey
from control_plane.services.errors import BadInput, DatabaseUnavailable
from control_plane.services.ports.database import Page, Records
from tests.support.databases import a_client, an_entry, an_upload

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 0.3
COUNTER: Final = an_upload(upload_id="counter", s3_key="counter", bytes_sent=0)

# Reads and then writes: a deferred transaction would fail here.
COUNT: Final = """
import asyncio, sys
from msgspec.structs import replace
from control_plane.adapters.database import SqlDatabase, reach
from control_plane.domain.uploads.model import UploadKey

KEY = UploadKey("restaurant-1", "counter")

def add_one(records):
    before = records.uploads.get(KEY)
    return records.uploads.save(before, replace(before, bytes_sent=before.bytes_sent + 1)).bytes_sent

async def main():
    database = SqlDatabase.open(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        print(await database.write(add_one), flush=True)
    await database.close()

asyncio.run(main())
"""

KILLED: Final = """
import asyncio, os, signal, sys
from msgspec.structs import replace
from control_plane.adapters.database import SqlDatabase, reach
from control_plane.domain.uploads.model import UploadKey

KEY = UploadKey("restaurant-1", "counter")

def add_one(records):
    before = records.uploads.get(KEY)
    return records.uploads.save(before, replace(before, bytes_sent=before.bytes_sent + 1)).bytes_sent

def die(records):
    add_one(records)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    database = SqlDatabase.open(sys.argv[1])
    for _ in range(20):
        await database.write(add_one)
    await database.write(die)

asyncio.run(main())
"""


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process that uses the database."""
    command = (sys.executable, "-c", code, *arguments)
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backhaul.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[SqlDatabase]:
    one = SqlDatabase.open(f"sqlite:///{path}", patience=PATIENCE)
    yield one
    await one.close()


async def add(database: SqlDatabase, upload: Upload) -> None:
    await database.write(lambda records: records.uploads.add(upload))


async def load(database: SqlDatabase, key: UploadKey) -> Upload:
    found = await database.read(lambda records: records.uploads.get(key))
    assert found is not None
    return found


# --- concurrency ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_concurrent_processes_lose_no_write(path: Path) -> None:
    database = SqlDatabase.open(f"sqlite:///{path}")
    await add(database, COUNTER)
    writers = [run(COUNT, f"sqlite:///{path}", "40") for _ in range(4)]
    outputs = [await asyncio.to_thread(writer.communicate) for writer in writers]
    assert [(writer.returncode, errors) for writer, (_, errors) in zip(writers, outputs, strict=True)] == [(0, "")] * 4
    numbers = sorted(int(line) for output, _ in outputs for line in output.split())
    assert numbers == list(range(1, 161))
    assert (await load(database, COUNTER.key)).version == 160
    await database.close()


async def test_a_change_by_another_process_is_read_although_parts_are_cached(database: SqlDatabase, path: Path) -> None:
    upload = an_upload(parts={1: PartRecord("a")})
    await add(database, upload)
    assert (await load(database, upload.key)).parts == upload.parts
    other = SqlDatabase.open(f"sqlite:///{path}")
    changed = replace(upload, parts={1: PartRecord("a", "etag")})
    await other.write(lambda records: records.uploads.save(upload, changed))
    await other.close()
    assert (await load(database, upload.key)).parts == changed.parts


async def test_rolled_back_parts_are_not_served_from_the_cache(database: SqlDatabase) -> None:
    upload = an_upload(parts={1: PartRecord("a")})
    await add(database, upload)

    def work(records: Records) -> None:
        records.uploads.save(upload, replace(upload, parts={1: PartRecord("wrong")}))
        records.uploads.get(upload.key)
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)
    assert await load(database, upload.key) == upload
    saved = await database.write(
        lambda records: records.uploads.save(upload, replace(upload, parts={2: PartRecord("b")}))
    )
    assert await load(database, upload.key) == saved


async def test_a_reader_neither_waits_for_a_writer_nor_sees_its_writes(database: SqlDatabase) -> None:
    upload = an_upload()
    await add(database, upload)
    written, finish = threading.Event(), threading.Event()

    def slow(records: Records) -> None:
        records.uploads.save(upload, replace(upload, strikes=1))
        written.set()
        finish.wait(60)

    writing = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(written.wait, 10)
    assert (await load(database, upload.key)).strikes == 0
    assert not writing.done()
    finish.set()
    await writing
    assert (await load(database, upload.key)).strikes == 1


async def test_a_read_sees_one_snapshot(database: SqlDatabase) -> None:
    upload = an_upload()
    await add(database, upload)
    looked, look_again = threading.Event(), threading.Event()

    def twice(records: Records) -> list[Upload | None]:
        first = records.uploads.get(upload.key)
        looked.set()
        look_again.wait(60)
        return [first, records.uploads.get(upload.key)]

    reading = asyncio.create_task(database.read(twice))
    await asyncio.to_thread(looked.wait, 10)
    await database.write(lambda records: records.uploads.save(upload, replace(upload, strikes=1)))
    look_again.set()
    assert await reading == [upload, upload]


async def test_a_read_that_writes_is_refused(database: SqlDatabase) -> None:
    upload = an_upload()
    with pytest.raises(DatabaseUnavailable, match="readonly"):
        await database.read(lambda records: records.uploads.add(upload))
    await add(database, upload)


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_kill_keeps_exactly_the_committed_transactions(database: SqlDatabase, path: Path) -> None:
    await add(database, COUNTER)
    killed = run(KILLED, f"sqlite:///{path}")
    await asyncio.to_thread(killed.communicate)
    assert killed.returncode == -signal.SIGKILL
    assert (await load(database, COUNTER.key)).bytes_sent == 20
    again = await database.write(
        lambda records: records.uploads.save(replace(COUNTER, version=20, bytes_sent=20), COUNTER)
    )
    assert again.version == 21


async def test_a_lock_held_too_long_is_database_unavailable_until_it_is_released(
    database: SqlDatabase, path: Path
) -> None:
    upload = an_upload()
    await add(database, upload)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    changed = replace(upload, strikes=1)
    with pytest.raises(DatabaseUnavailable, match="locked") as caught:
        await database.write(lambda records: records.uploads.save(upload, changed))
    assert caught.value.retry_after > 0
    with pytest.raises(DatabaseUnavailable):
        await database.check()
    assert await load(database, upload.key) == upload
    holder.execute("ROLLBACK")
    holder.close()
    await database.check()
    assert (await database.write(lambda records: records.uploads.save(upload, changed))).version == 1


async def test_a_short_lock_is_waited_for(path: Path) -> None:
    database = SqlDatabase.open(f"sqlite:///{path}", patience=10)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, holder.execute, ["ROLLBACK"])
    release.start()
    await add(database, COUNTER)
    assert (await load(database, COUNTER.key)) == COUNTER
    release.join()
    holder.close()
    await database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk))
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(("umount", "--lazy", str(disk)), check=True)


def resize(disk: Path, size: str) -> None:
    """Give a small disk another size."""
    subprocess.run(("mount", "-o", f"remount,size={size}", str(disk)), check=True)


async def fill(database: SqlDatabase, taken: list[Upload]) -> None:
    """Add uploads, each with an outbox entry, and return those that were accepted."""
    while True:
        upload = an_upload(metadata={"text": "x" * 4_000})

        def work(records: Records, upload: Upload = upload) -> None:
            records.uploads.add(upload)
            records.outbox.put(an_entry(upload.key))

        await database.write(work)
        taken.append(upload)


async def check_until_refused(database: SqlDatabase) -> None:
    """Until the room that the last rollback left is used up."""
    while True:
        await database.check()


async def test_a_full_disk_is_database_unavailable_and_loses_nothing(small_disk: Path) -> None:
    database = SqlDatabase.open(f"sqlite:///{small_disk / 'backhaul.db'}", patience=PATIENCE)
    taken: list[Upload] = []
    with pytest.raises(DatabaseUnavailable, match="full") as caught:
        await fill(database, taken)
    assert caught.value.retry_after > 0
    with pytest.raises(DatabaseUnavailable):
        await check_until_refused(database)
    assert [await load(database, upload.key) for upload in taken] == taken
    assert len(await database.read(lambda records: records.outbox.due(0.0, 1_000))) == len(taken) > 0
    resize(small_disk, "8m")
    await database.check()
    await add(database, COUNTER)
    assert await load(database, COUNTER.key) == COUNTER
    await database.close()


def test_a_missing_directory_is_database_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="unable to open"):
        SqlDatabase.open(f"sqlite:///{tmp_path / 'missing' / 'backhaul.db'}", patience=PATIENCE)


def test_a_file_that_is_no_database_is_database_unavailable(path: Path) -> None:
    path.write_text("This is a shopping list. " * 100)
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        SqlDatabase.open(f"sqlite:///{path}", patience=PATIENCE)


async def test_a_closed_database_is_unavailable(path: Path) -> None:
    database = SqlDatabase.open(f"sqlite:///{path}", patience=PATIENCE)
    await add(database, COUNTER)
    await database.close()
    await database.close()
    for attempt in (database.check(), add(database, an_upload()), load(database, COUNTER.key)):
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await attempt
    assert [file.name for file in path.parent.iterdir()] == [path.name], "the log was moved into the database"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "backhaul.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x.db?mode=ro",
        "mysql://user:secret@host/x",
        "postgresql://user:secret@host:port/x",
    ],
)
def test_an_invalid_url_is_bad_input_and_is_not_quoted(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        SqlDatabase.open(url)
    assert "secret" not in str(caught.value)


# --- SQLite only ------------------------------------------------------------------------------------------------------


def test_a_commit_is_synchronised_to_disk(database: SqlDatabase) -> None:
    """A test cannot cut the power; these two settings are what SQLite requires (www.sqlite.org/wal.html)."""
    with database._writing.connect() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert found == ["wal", 2, 1]


async def test_a_nul_character_is_replaced(database: SqlDatabase) -> None:
    upload = an_upload(message="a\0b", file_path="\0", parts={1: PartRecord("x", "e\0")}, metadata={"a\0": "b\0"})
    client = a_client("a", default_file="/x\0", labels={"si\0te": "ber\0lin"})

    def work(records: Records) -> None:
        records.uploads.add(upload)
        records.clients.save([client])

    await database.write(work)
    found = await load(database, upload.key)
    assert (found.message, found.file_path, found.metadata) == ("a\ufffdb", "\ufffd", upload.metadata)
    assert found.parts == {1: PartRecord("x", "e\ufffd")}
    selector = Selector("", (Term("si\ufffdte", Relation.IN, ("ber\ufffdlin",)),))
    assert await database.read(lambda records: records.clients.matching((), selector)) == ["a"]
    stored = await database.read(lambda records: records.clients.get("a"))
    assert stored is not None
    assert stored.labels == client.labels


@pytest.mark.parametrize("field", [{"metadata": {"a": "\ud800"}}, {"file_path": "\ud800"}, {"token": "\udfff"}])
async def test_half_a_surrogate_pair_is_bad_input_and_leaves_the_transaction_usable(
    database: SqlDatabase, field: dict[str, object]
) -> None:
    good = an_upload()
    bad = replace(an_upload(), **field)

    def work(records: Records) -> None:
        with pytest.raises(BadInput):
            records.uploads.add(bad)
        records.uploads.add(good)
        with pytest.raises(BadInput):
            records.uploads.save(good, replace(good, **field))

    await database.write(work)
    assert await load(database, good.key) == good


async def test_a_label_too_long_to_index_is_stored_but_not_searchable(database: SqlDatabase) -> None:
    client = a_client("a", labels={"site": "x" * 10_000, "floor": "1"})
    await database.write(lambda records: records.clients.save([client]))
    assert await database.read(lambda records: records.clients.get("a")) == client
    assert await database.read(lambda records: records.clients.matching((), parse("floor=1"))) == ["a"]
    assert await database.read(lambda records: records.clients.matching((), parse("site"))) == []


async def test_a_beat_that_changes_no_row_adds_nothing_to_the_log(tmp_path: Path) -> None:
    """A thousand beats in a transaction each: a log that grew with each one would wear a flash card out."""
    path = tmp_path / "beats.db"
    database = SqlDatabase.open(f"sqlite:///{path}")
    try:
        await database.write(lambda records: records.clients.save([a_client("restaurant-1")]))
        log = path.with_name(path.name + "-wal")
        before = log.stat().st_size
        for _ in range(1_000):
            await database.write(lambda records: records.outbox.wake("restaurant-1", 5.0))
        assert log.stat().st_size == before > 0
    finally:
        await database.close()


def test_statements_of_many_keys_stay_each_its_own() -> None:
    """A caller's reach is a key: more of them than are kept begin anew."""
    made = Statements()
    texts = [
        made.of(key, functools.partial(text, f"SELECT {key}")).compiled(sqlite.dialect())[0]
        for key in [*range(600), *range(600)]
    ]
    assert texts == [f"SELECT {key}" for key in range(600)] * 2


async def test_how_many_clients_a_large_reach_has_is_counted_once_a_second(
    database: SqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(1_000.0, 0.2)
    monkeypatch.setattr(reach, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(reach, "FEW", 2)
    berlin, totals = parse("site=berlin"), []
    for number in range(9):
        await database.write(functools.partial(_join, f"till-{number}"))
        totals.append((await database.read(lambda records: records.clients.list(Page(1), None, berlin)))[2])
    assert totals[:4] == [1, 2, 3, 3], "of few it is always the number of now"
    assert totals[-1] > 3, "a second is over after five looks"


def _join(name: str, records: Records) -> None:
    records.clients.save([a_client(name, labels={"site": "berlin"})])
