"""The saved state of the database in memory: `load` accepts what `dump` returns, and nothing else.

Rule: its behaviour as a database is tested in tests/contract.
"""

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.memory import records as memory_records
from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.domain.changes import UploadCreated
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import State, Upload, UploadKey
from control_plane.services.errors import BadInput, KeyTaken
from control_plane.services.ports.database import PARKED, IdempotencyRecord, OutboxEntry, Records, Subject
from tests.support.databases import an_entry, an_upload, clients, entries, idempotency_records, uploads


def written(database: MemoryDatabase, *work: object) -> None:
    """Write uploads, clients and idempotency records."""

    def keep(records: Records) -> None:
        for one in work:
            if isinstance(one, Upload):
                records.uploads.add(one)
            elif isinstance(one, Client):
                records.clients.save([one])
            elif isinstance(one, IdempotencyRecord):
                records.idempotency.add(one)

    asyncio.run(database.write(keep))


@given(upload=uploads(), client=clients, record=idempotency_records, data=st.data())
def test_a_dumped_state_is_loaded(
    upload: Upload, client: Client, record: IdempotencyRecord, data: st.DataObject
) -> None:
    database = MemoryDatabase()
    entry = data.draw(entries(upload.key))
    written(database, upload, client, record)
    asyncio.run(database.write(lambda records: records.outbox.put(entry)))
    saved = asyncio.run(database.write(lambda records: records.uploads.save(upload, upload)))
    again = MemoryDatabase.load(database.dump())
    assert asyncio.run(again.read(lambda records: records.uploads.get(upload.key))) == saved
    assert asyncio.run(again.read(lambda records: records.outbox.of(Subject.of_upload(upload.key)))) == [entry]
    assert asyncio.run(again.read(lambda records: records.clients.get(client.client_id))) == client
    names = (record.caller, record.client_id, record.idempotency_key)
    assert asyncio.run(again.read(lambda records: records.idempotency.get(*names))) == record
    assert again.dump() == database.dump()


def test_object_keys_are_unique_after_a_load() -> None:
    database = MemoryDatabase()
    upload = an_upload()
    written(database, upload)
    again = MemoryDatabase.load(database.dump())
    with pytest.raises(KeyTaken):
        written(again, an_upload(s3_key=upload.s3_key))


def test_a_state_of_format_1_is_loaded() -> None:
    old = (Path(__file__).parent / "golden" / "state-format-1.json").read_bytes()
    database = MemoryDatabase.load(old)
    key = UploadKey("restaurant-1", "upload-1")
    upload = asyncio.run(database.read(lambda records: records.uploads.get(key)))
    assert upload is not None
    assert (upload.version, upload.state, upload.parts[1].etag) == (7, State.IN_PROGRESS, "etag-1")
    assert upload.reason == Reason(ReasonCode.CLIENT_REPORTED, "waiting for the network")
    assert asyncio.run(database.read(lambda records: records.outbox.of(Subject.of_upload(key)))) == [
        OutboxEntry(Subject.of_upload(key), Duty(Kind.SEND_GRANT, 2, 0.0), PARKED),
        OutboxEntry(Subject.of_upload(key), Duty(Kind.ABORT_MULTIPART, 2, 0.0, "s3-0"), 1200.0, tries=2),
    ]
    client = asyncio.run(database.read(lambda records: records.clients.get("restaurant-1")))
    assert client is not None
    assert client.epoch == 4
    assert asyncio.run(database.read(lambda records: records.idempotency.get("cli", "restaurant-1", "key-1")))
    assert MemoryDatabase.load(database.dump()).dump() == database.dump()


@given(cut=st.integers(0, 10_000), inserted=st.binary(max_size=4), lost=st.integers(0, 4))
def test_a_damaged_state_of_format_1_is_loaded_or_bad_input(cut: int, inserted: bytes, lost: int) -> None:
    old = (Path(__file__).parent / "golden" / "state-format-1.json").read_bytes()
    cut %= len(old)
    try:
        loaded: MemoryDatabase | None = MemoryDatabase.load(old[:cut] + inserted + old[cut + lost :])
    except BadInput:
        loaded = None
    assert loaded is None or MemoryDatabase.load(loaded.dump()).dump() == loaded.dump()


async def test_the_change_log_keeps_the_latest_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_records, "MAX_CHANGES", 3)
    database = MemoryDatabase()
    changes = [UploadCreated(at=float(n), client_id="a", upload_id=f"u{n}") for n in range(5)]
    await database.write(lambda records: records.changes.append(changes[:2]))
    await database.write(lambda records: records.changes.append(changes[2:]))
    kept = await database.read(lambda records: records.changes.after(0, 10))
    assert [one.change for one in kept] == changes[2:]
    assert [one.number for one in kept] == [3, 4, 5]
    assert database.dump() == MemoryDatabase().dump()


def test_an_empty_state_is_loaded() -> None:
    assert MemoryDatabase.load(MemoryDatabase().dump()).dump() == MemoryDatabase().dump()


def test_a_state_of_a_later_version_is_bad_input() -> None:
    with pytest.raises(BadInput, match="format 3"):
        MemoryDatabase.load(b'{"format":3,"uploads":"in another shape"}')


def test_a_contradictory_state_is_bad_input() -> None:
    dump = msgspec.json.decode(dumped(an_upload()))
    dump["uploads"] *= 2
    with pytest.raises(BadInput, match="cannot be read"):
        MemoryDatabase.load(msgspec.json.encode(dump))


def dumped(upload: Upload) -> bytes:
    database = MemoryDatabase()
    written(database, upload)
    return database.dump()


@given(cut=st.integers(0, 10_000), inserted=st.binary(max_size=4), lost=st.integers(0, 4))
def test_a_damaged_state_is_loaded_or_bad_input(cut: int, inserted: bytes, lost: int) -> None:
    whole = dumped(an_upload(state=State.QUEUED))
    cut %= len(whole)
    try:
        loaded: MemoryDatabase | None = MemoryDatabase.load(whole[:cut] + inserted + whole[cut + lost :])
    except BadInput:
        loaded = None
    assert loaded is None or MemoryDatabase.load(loaded.dump()).dump() == loaded.dump()


async def test_an_exception_of_any_kind_rolls_back() -> None:
    database = MemoryDatabase()
    upload = an_upload()

    def work(records: Records) -> None:
        records.uploads.add(upload)
        records.outbox.put(an_entry(upload.key))
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await database.write(work)
    assert database.dump() == MemoryDatabase().dump()


async def test_the_writes_of_a_read_are_rolled_back() -> None:
    database = MemoryDatabase()
    await database.read(lambda records: records.uploads.add(an_upload()))
    assert database.dump() == MemoryDatabase().dump()
