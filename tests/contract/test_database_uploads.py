"""What every database promises about uploads: memory, SQLite and PostgreSQL under one suite.

Rule: only the port is used. Tests of one kind of database are in tests/integration.
"""

from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.uploads.model import EXPIRABLE, OPEN, TERMINAL, PartRecord, State, Upload, UploadKey
from control_plane.services.errors import BadInput, KeyTaken, VersionConflict
from control_plane.services.ports.database import Database, Page, Records, Subject, UploadFilter
from tests.support.databases import an_entry, an_upload, database, migrated, uploads
from tests.support.examples import examples
from tests.support.postgres import postgres

__all__ = ["database", "migrated", "postgres"]

# One database serves all examples: each of them has unique keys.
shared: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))


async def load(database: Database, key: UploadKey) -> Upload | None:
    return await database.read(lambda records: records.uploads.get(key))


async def add(database: Database, *new: Upload) -> None:
    def work(records: Records) -> None:
        for upload in new:
            records.uploads.add(upload)

    await database.write(work)


async def save(database: Database, before: Upload, after: Upload) -> Upload:
    return await database.write(lambda records: records.uploads.save(before, after))


# --- round trips ------------------------------------------------------------------------------------------------------


@shared
@given(upload=uploads())
async def test_an_upload_comes_back_as_it_was(database: Database, upload: Upload) -> None:
    await add(database, upload)
    assert await load(database, upload.key) == upload


@shared
@given(data=st.data())
async def test_a_saved_upload_comes_back_with_the_next_version(database: Database, data: st.DataObject) -> None:
    before = data.draw(uploads())
    after = data.draw(uploads(before.key))
    await add(database, before)
    saved = await save(database, before, after)
    assert saved == replace(after, version=1)
    assert await load(database, before.key) == saved


async def test_an_unknown_upload_is_none(database: Database) -> None:
    assert await load(database, UploadKey("nobody", "nothing")) is None


async def test_a_new_upload_begins_at_version_0(database: Database) -> None:
    upload = an_upload(version=7)
    await add(database, upload)
    assert await load(database, upload.key) == replace(upload, version=0)


async def test_parts_are_added_changed_and_dropped(database: Database) -> None:
    first = an_upload(parts={1: PartRecord("a"), 2: PartRecord("b"), 3: PartRecord("c", "etag-3")})
    await add(database, first)
    second = await save(database, first, replace(first, parts={1: PartRecord("a", "etag-1"), 3: first.parts[3]}))
    assert await load(database, first.key) == second
    third = await save(database, second, replace(second, attempt=2, parts={}))
    assert await load(database, first.key) == third
    fourth = await save(database, third, replace(third, parts={1: PartRecord("z")}))
    assert await load(database, first.key) == fourth


async def test_ten_thousand_parts_come_back(database: Database) -> None:
    before = an_upload(parts={n: PartRecord(f"digest-{n}") for n in range(1, 10_001)})
    await add(database, before)
    after = await save(database, before, replace(before, parts={**before.parts, 7: PartRecord("digest-7", "etag-7")}))
    assert await load(database, before.key) == after


async def test_uploads_are_found_by_their_id_alone(database: Database) -> None:
    one = an_upload("restaurant-1", upload_id="same")
    other = an_upload("restaurant-2", upload_id="same")
    await add(database, other, one, an_upload())
    found = await database.read(lambda records: records.uploads.by_id("same"))
    assert sorted(found, key=lambda upload: upload.client_id) == [one, other]


async def test_an_upload_is_found_by_its_object(database: Database) -> None:
    upload = an_upload()
    await add(database, upload)
    assert await database.read(lambda records: records.uploads.by_s3_key(upload.s3_key)) == upload
    assert await database.read(lambda records: records.uploads.by_s3_key("another")) is None


async def test_the_retried_uploads_of_a_client_are_found(database: Database) -> None:
    """The object keys of their earlier attempts are in no column."""
    one, ended = an_upload(attempt=2), an_upload(attempt=3, state=State.FAILED)
    await add(database, one, ended, an_upload(), an_upload("restaurant-9", attempt=2))
    found = await database.read(lambda records: records.uploads.retried_of(one.client_id))
    assert sorted(found, key=lambda upload: upload.attempt) == [one, ended]


# --- compare and set, unique keys, rollback ---------------------------------------------------------------------------


async def test_only_one_of_two_that_read_the_same_version_wins(database: Database) -> None:
    before = an_upload()
    await add(database, before)
    won = await save(database, before, replace(before, state=State.DISPATCHED))
    with pytest.raises(VersionConflict):
        await save(database, before, replace(before, state=State.CANCELLED))
    assert await load(database, before.key) == won


async def test_an_upload_that_is_not_there_cannot_be_saved(database: Database) -> None:
    upload = an_upload()
    with pytest.raises(VersionConflict):
        await save(database, upload, replace(upload, strikes=1))
    assert await load(database, upload.key) is None


async def test_saving_without_changes_increments_the_version(database: Database) -> None:
    upload = an_upload(parts={1: PartRecord("a")})
    await add(database, upload)
    assert await save(database, upload, upload) == replace(upload, version=1)
    assert await load(database, upload.key) == replace(upload, version=1)


@pytest.mark.parametrize("same", ["upload_id", "s3_key"])
async def test_a_key_in_use_raises_and_leaves_the_transaction_usable(database: Database, same: str) -> None:
    first, other = an_upload(), an_upload()
    second = replace(other, **{same: getattr(first, same)})
    await add(database, first)

    def work(records: Records) -> None:
        with pytest.raises(KeyTaken):
            records.uploads.add(second)
        records.uploads.add(other)

    await database.write(work)
    assert await load(database, first.key) == first
    assert await load(database, other.key) == other


async def test_an_object_key_of_another_upload_cannot_be_taken(database: Database) -> None:
    first, second = an_upload(), an_upload(parts={1: PartRecord("a")})
    await add(database, first, second)

    def work(records: Records) -> Upload:
        with pytest.raises(KeyTaken):
            records.uploads.save(second, replace(second, s3_key=first.s3_key, parts={}))
        return records.uploads.save(second, replace(second, strikes=1))

    saved = await database.write(work)
    assert await load(database, second.key) == saved


async def test_an_object_key_is_free_after_its_upload_changed_to_another(database: Database) -> None:
    first = an_upload()
    await add(database, first)
    await save(database, first, replace(first, s3_key="elsewhere"))
    second = an_upload(s3_key=first.s3_key)
    await add(database, second)
    assert await load(database, second.key) == second


async def test_an_exception_rolls_everything_back(database: Database) -> None:
    kept = an_upload(parts={1: PartRecord("a")})
    await add(database, kept)
    new = an_upload()

    def work(records: Records) -> None:
        records.uploads.save(kept, replace(kept, state=State.FAILED, s3_key="moved", parts={}))
        records.uploads.add(new)
        records.outbox.put(an_entry(new.key))
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)
    assert await load(database, kept.key) == kept
    assert await load(database, new.key) is None
    assert await database.read(lambda records: records.outbox.of(Subject.of_upload(new.key))) == []
    # The same changes, now committed: the first ones left nothing behind.
    again = await save(database, kept, replace(kept, state=State.FAILED, s3_key="moved", parts={2: PartRecord("b")}))
    assert await load(database, kept.key) == again


async def test_a_transaction_sees_what_it_wrote(database: Database) -> None:
    upload = an_upload(parts={1: PartRecord("a")})

    def work(records: Records) -> tuple[Upload | None, Upload]:
        records.uploads.add(upload)
        saved = records.uploads.save(upload, replace(upload, parts={1: PartRecord("a", "b")}))
        return records.uploads.get(upload.key), saved

    seen, saved = await database.write(work)
    assert seen == saved


async def test_pruning_an_upload_deletes_its_parts(database: Database) -> None:
    old = an_upload(state=State.COMPLETED, completed_at=1.0, parts={1: PartRecord("a", "b")})
    await add(database, old)
    assert await load(database, old.key) == old
    assert await database.write(lambda records: records.uploads.prune(2.0, 10)) == 1
    new = replace(old, state=State.QUEUED, completed_at=None, parts={})
    await add(database, new)
    assert await load(database, new.key) == new


# --- lists ------------------------------------------------------------------------------------------------------------


def as_listed(upload: Upload) -> Upload:
    """What a listing promises of an upload: of the parts, only which are stored."""
    return replace(upload, parts=dict.fromkeys(upload.stored_parts, PartRecord(etag="")))


async def listed(database: Database, where: UploadFilter, limit: int = 100) -> list[Upload]:
    """All pages of a listing, in order."""
    found: list[Upload] = []
    cursor: str | None = None
    while True:
        page = Page(limit, cursor)
        some, cursor = await database.read(lambda records, page=page: records.uploads.list(where, page))  # type: ignore[misc]
        found += map(as_listed, some)
        if cursor is None:
            return found
        assert len(some) == limit


async def a_history(database: Database) -> list[Upload]:
    """Forty uploads of two clients in all states, several with the same instant, newest first."""
    states = list(State)
    history = [
        an_upload(
            f"restaurant-{n % 2}",
            created_at=1_000.0 + n // 4,
            state=states[n % len(states)],
            error="not_proven" if n % 3 == 0 else None,
            job_id="job-1" if n % 4 == 1 else None,
            updated_at=1_000.0 + n % 10,
            parts={1: PartRecord("digest", "etag"), 2: PartRecord("digest")} if n % 5 == 0 else {},
        )
        for n in range(40)
    ]
    await add(database, *history)
    return sorted(map(as_listed, history), key=lambda u: (u.created_at, u.client_id, u.upload_id), reverse=True)


@pytest.mark.parametrize("limit", [1, 3, 40, 100])
async def test_pages_together_are_the_whole_list_in_order(database: Database, limit: int) -> None:
    history = await a_history(database)
    assert await listed(database, UploadFilter(), limit) == history


@pytest.mark.parametrize(
    "where",
    [
        UploadFilter(client_id="restaurant-1"),
        UploadFilter(client_id="nobody"),
        UploadFilter(states=frozenset({State.QUEUED})),
        UploadFilter(states=frozenset({State.FAILED, State.EXPIRED, State.REJECTED})),
        UploadFilter(states=frozenset()),
        UploadFilter(error="not_proven"),
        UploadFilter(created_since=1_003.0, created_before=1_007.0),
        UploadFilter(job_id="job-1"),
        UploadFilter(ended_since=1_005.0),
        UploadFilter("restaurant-0", frozenset(State), "not_proven", None, 1_002.0, 1_008.0),
    ],
)
async def test_a_filter_returns_the_matching_uploads(database: Database, where: UploadFilter) -> None:
    history = await a_history(database)
    fitting = [
        one
        for one in history
        if (where.client_id is None or one.client_id == where.client_id)
        and (where.states is None or one.state in where.states)
        and (where.error is None or one.error == where.error)
        and (where.created_since is None or one.created_at >= where.created_since)
        and (where.job_id is None or one.job_id == where.job_id)
        and (where.created_before is None or one.created_at < where.created_before)
        and (where.ended_since is None or (one.state in TERMINAL and one.updated_at >= where.ended_since))
    ]
    assert await listed(database, where, 7) == fitting


async def test_inserts_and_deletes_do_not_shift_pages(database: Database) -> None:
    history = await a_history(database)
    first, cursor = await database.read(lambda records: records.uploads.list(UploadFilter(), Page(10)))
    await add(database, an_upload(created_at=9_999.0), an_upload(created_at=1.0))
    page = Page(100, cursor)
    rest, end = await database.read(lambda records: records.uploads.list(UploadFilter(), page))
    assert end is None
    assert [one.key for one in first] == [one.key for one in history[:10]]
    assert [one.key for one in rest[:-1]] == [one.key for one in history[10:]]


@pytest.mark.parametrize("cursor", ["", "x", "!!", "bm90IGpzb24", "WzEsMiwzXQ", "WyJhIl0", "W10", "\N{SNOWMAN}"])
async def test_a_malformed_cursor_is_bad_input(database: Database, cursor: str) -> None:
    with pytest.raises(BadInput):
        await database.read(lambda records: records.uploads.list(UploadFilter(), Page(10, cursor)))


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_without_room_is_bad_input(database: Database, limit: int) -> None:
    with pytest.raises(BadInput):
        await database.read(lambda records: records.uploads.list(UploadFilter(), Page(limit)))


async def count_open(database: Database, client_id: str) -> int:
    return await database.read(lambda records: records.uploads.count_open(client_id))


async def offered(database: Database, client_id: str, since: float) -> int:
    return await database.read(lambda records: records.uploads.bytes_offered(client_id, "control-plane", since))


async def test_open_uploads_are_those_that_are_not_over_for_their_client(database: Database) -> None:
    every = [an_upload(state=state, client_busy=busy) for state in State for busy in (False, True)]
    await add(database, *every, an_upload("restaurant-2"))
    found = await database.read(lambda records: records.uploads.open_of("restaurant-1"))
    assert {one.key for one in found} == {one.key for one in every if one.state in OPEN or one.client_busy}
    counted = [await count_open(database, client_id) for client_id in ("restaurant-1", "nobody")]
    assert counted == [len(found), 0]


async def test_offered_bytes_are_those_of_one_clients_and_owners_uploads_since_an_instant(database: Database) -> None:
    await add(
        database,
        an_upload(created_at=99.0, file_size=1),
        an_upload(created_at=100.0, file_size=10),
        an_upload(created_at=200.0, file_size=2**45),
        an_upload(created_at=200.0),
        an_upload(created_at=200.0, file_size=1, owner="cli-7"),
        an_upload("restaurant-2", created_at=200.0, file_size=1),
    )
    assert await offered(database, "restaurant-1", 100.0) == 10 + 2**45
    assert await offered(database, "restaurant-1", 201.0) == 0
    assert await offered(database, "nobody", 0.0) == 0


# --- deadlines and pruning --------------------------------------------------------------------------------------------


async def test_overdue_uploads_come_longest_overdue_first(database: Database) -> None:
    late = [an_upload(deadline=100.0 - n, state=state) for n, state in enumerate(sorted(EXPIRABLE))]
    await add(
        database,
        *late,
        an_upload(deadline=101.0),
        an_upload(deadline=1.0, state=State.COMPLETING, s3_upload_id="s3-1"),
        an_upload(deadline=1.0, state=State.COMPLETING, one_put=True),
        overheard := an_upload(deadline=2.0, state=State.COMPLETING),
        *(an_upload(deadline=1.0, state=one) for one in TERMINAL),
    )
    expected = [overheard.key, *(one.key for one in reversed(late))]
    assert await database.read(lambda records: records.uploads.overdue(100.0, 10)) == expected
    assert await database.read(lambda records: records.uploads.overdue(100.0, 2)) == expected[:2]


async def test_a_deadline_beyond_an_instant_is_found_while_the_upload_is_open(database: Database) -> None:
    far = an_upload(deadline=5_000.0)
    await add(database, far, an_upload(deadline=1_000.0), an_upload(deadline=5_000.0, state=State.FAILED))
    assert await database.read(lambda records: records.uploads.deadline_ahead(1_000.0, 10)) == [far.key]


async def test_an_upload_that_ended_is_no_longer_overdue(database: Database) -> None:
    upload = an_upload(deadline=1.0)
    await add(database, upload)
    await save(database, upload, replace(upload, state=State.EXPIRED, completed_at=2.0))
    assert await database.read(lambda records: records.uploads.overdue(100.0, 10)) == []


async def test_pruning_deletes_the_oldest_ended_uploads_without_outbox_entries(database: Database) -> None:
    ended = [an_upload(state=state, completed_at=10.0 + n) for n, state in enumerate(sorted(TERMINAL))]
    owing = an_upload(state=State.FAILED, completed_at=1.0)
    running = an_upload()
    await add(database, *reversed(ended), owing, running)
    await database.write(lambda records: records.outbox.put(an_entry(owing.key)))
    assert await database.write(lambda records: records.uploads.prune(12.0, 1)) == 1
    assert await load(database, ended[0].key) is None
    assert await database.write(lambda records: records.uploads.prune(12.0, 10)) == 1
    assert await database.write(lambda records: records.uploads.prune(12.0, 10)) == 0
    left = {one.key for one in await listed(database, UploadFilter())}
    assert left == {one.key for one in (*ended[2:], owing, running)}


async def test_an_end_without_completed_at_counts_from_updated_at(database: Database) -> None:
    upload = an_upload(state=State.FAILED, updated_at=5.0)
    await add(database, upload)
    assert await database.write(lambda records: records.uploads.prune(5.0, 10)) == 0
    assert await database.write(lambda records: records.uploads.prune(5.1, 10)) == 1


# --- the database itself ----------------------------------------------------------------------------------------------


async def test_check_raises_nothing_while_the_database_works(database: Database) -> None:
    assert await database.check() is None  # type: ignore[func-returns-value]
