"""The store in memory as a file: what `dump` gives, `load` takes, and nothing else.

Rule: what it promises as a store is told in tests/contract.
"""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.domain.clients import Client
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.errors import BadInput, KeyTaken
from control_plane.services.ports.database import IdempotencyRecord, Records, Subject
from tests.support.stores import a_task, an_upload, clients, idempotency_records, tasks, uploads


def written(store: MemoryDatabase, *work: object) -> None:
    """Keep these, whatever they are."""

    def keep(records: Records) -> None:
        for one in work:
            if isinstance(one, Upload):
                records.uploads.add(one)
            elif isinstance(one, Client):
                records.clients.save([one])
            elif isinstance(one, IdempotencyRecord):
                records.idempotency.add(one)

    asyncio.run(store.write(keep))


@given(upload=uploads(), client=clients, record=idempotency_records, data=st.data())
def test_what_was_dumped_is_loaded(
    upload: Upload, client: Client, record: IdempotencyRecord, data: st.DataObject
) -> None:
    store = MemoryDatabase()
    task = data.draw(tasks(upload.key))
    written(store, upload, client, record)
    asyncio.run(store.write(lambda records: records.outbox.put(task)))
    saved = asyncio.run(store.write(lambda records: records.uploads.save(upload, upload)))
    again = MemoryDatabase.load(store.dump())
    assert asyncio.run(again.read(lambda records: records.uploads.get(upload.key))) == saved
    assert asyncio.run(again.read(lambda records: records.outbox.of(Subject.of_upload(upload.key)))) == [task]
    assert asyncio.run(again.read(lambda records: records.clients.get(client.client_id))) == client
    names = (record.caller, record.client_id, record.idempotency_key)
    assert asyncio.run(again.read(lambda records: records.idempotency.get(*names))) == record
    assert again.dump() == store.dump()


def test_a_loaded_store_knows_whose_object_is_whose() -> None:
    store = MemoryDatabase()
    upload = an_upload()
    written(store, upload)
    again = MemoryDatabase.load(store.dump())
    with pytest.raises(KeyTaken):
        written(again, an_upload(s3_key=upload.s3_key))


def test_nothing_is_a_state_too() -> None:
    assert MemoryDatabase.load(MemoryDatabase().dump()).dump() == MemoryDatabase().dump()


def test_a_state_of_a_later_version_is_refused() -> None:
    with pytest.raises(BadInput, match="format 3"):
        MemoryDatabase.load(b'{"format":3,"uploads":"in another shape"}')


def test_a_state_that_contradicts_itself_is_refused() -> None:
    dump = msgspec.json.decode(dumped(an_upload()))
    dump["uploads"] *= 2
    with pytest.raises(BadInput, match="cannot be read"):
        MemoryDatabase.load(msgspec.json.encode(dump))


def dumped(upload: Upload) -> bytes:
    store = MemoryDatabase()
    written(store, upload)
    return store.dump()


@given(cut=st.integers(0, 10_000), inserted=st.binary(max_size=4), lost=st.integers(0, 4))
def test_a_damaged_state_is_loaded_or_one_clear_error(cut: int, inserted: bytes, lost: int) -> None:
    whole = dumped(an_upload(state=State.QUEUED))
    cut %= len(whole)
    try:
        loaded: MemoryDatabase | None = MemoryDatabase.load(whole[:cut] + inserted + whole[cut + lost :])
    except BadInput:
        loaded = None
    assert loaded is None or MemoryDatabase.load(loaded.dump()).dump() == loaded.dump()


async def test_an_exception_of_any_kind_is_taken_back() -> None:
    store = MemoryDatabase()
    upload = an_upload()

    def work(records: Records) -> None:
        records.uploads.add(upload)
        records.outbox.put(a_task(upload.key))
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await store.write(work)
    assert store.dump() == MemoryDatabase().dump()


async def test_what_a_read_writes_is_taken_back() -> None:
    store = MemoryDatabase()
    await store.read(lambda records: records.uploads.add(an_upload()))
    assert store.dump() == MemoryDatabase().dump()
