"""What every store promises about uploads: memory, SQLite and PostgreSQL under one suite.

Rule: only the port is used. What is told of one store alone stands in tests/integration.
"""

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.domain.uploads.model import EXPIRABLE, OPEN, TERMINAL, PartRecord, State, Upload, UploadKey
from control_plane.services.errors import BadInput, KeyTaken, VersionConflict
from control_plane.services.ports.database import Database, Page, Records, Subject, UploadFilter
from tests.support.postgres import postgres
from tests.support.stores import a_task, an_upload, migrated, store, uploads

__all__ = ["migrated", "postgres", "store"]

# One store serves all examples: each of them has keys of its own.
shared: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


async def load(store: Database, key: UploadKey) -> Upload | None:
    return await store.read(lambda records: records.uploads.get(key))


async def add(store: Database, *new: Upload) -> None:
    def work(records: Records) -> None:
        for upload in new:
            records.uploads.add(upload)

    await store.write(work)


async def save(store: Database, before: Upload, after: Upload) -> Upload:
    return await store.write(lambda records: records.uploads.save(before, after))


# --- there and back ---------------------------------------------------------------------------------------------------


@shared
@given(upload=uploads())
async def test_an_upload_comes_back_as_it_was(store: Database, upload: Upload) -> None:
    await add(store, upload)
    assert await load(store, upload.key) == upload


@shared
@given(data=st.data())
async def test_a_saved_upload_comes_back_with_the_next_version(store: Database, data: st.DataObject) -> None:
    before = data.draw(uploads())
    after = data.draw(uploads(before.key))
    await add(store, before)
    saved = await save(store, before, after)
    assert saved == replace(after, version=1)
    assert await load(store, before.key) == saved


async def test_an_unknown_upload_is_none(store: Database) -> None:
    assert await load(store, UploadKey("nobody", "nothing")) is None


async def test_a_new_upload_begins_at_version_0(store: Database) -> None:
    upload = an_upload(version=7)
    await add(store, upload)
    assert await load(store, upload.key) == replace(upload, version=0)


async def test_parts_are_added_changed_and_dropped(store: Database) -> None:
    first = an_upload(parts={1: PartRecord("a"), 2: PartRecord("b"), 3: PartRecord("c", "etag-3")})
    await add(store, first)
    second = await save(store, first, replace(first, parts={1: PartRecord("a", "etag-1"), 3: first.parts[3]}))
    assert await load(store, first.key) == second
    third = await save(store, second, replace(second, attempt=2, parts={}))
    assert await load(store, first.key) == third
    fourth = await save(store, third, replace(third, parts={1: PartRecord("z")}))
    assert await load(store, first.key) == fourth


async def test_ten_thousand_parts_come_back(store: Database) -> None:
    before = an_upload(parts={n: PartRecord(f"digest-{n}") for n in range(1, 10_001)})
    await add(store, before)
    after = await save(store, before, replace(before, parts={**before.parts, 7: PartRecord("digest-7", "etag-7")}))
    assert await load(store, before.key) == after


async def test_uploads_are_found_by_their_id_alone(store: Database) -> None:
    one = an_upload("restaurant-1", upload_id="same")
    other = an_upload("restaurant-2", upload_id="same")
    await add(store, other, one, an_upload())
    found = await store.read(lambda records: records.uploads.by_id("same"))
    assert sorted(found, key=lambda upload: upload.client_id) == [one, other]


async def test_an_upload_is_found_by_its_object(store: Database) -> None:
    upload = an_upload()
    await add(store, upload)
    assert await store.read(lambda records: records.uploads.by_s3_key(upload.s3_key)) == upload
    assert await store.read(lambda records: records.uploads.by_s3_key("another")) is None


# --- compare and set, unique keys, rollback ---------------------------------------------------------------------------


async def test_only_one_of_two_that_read_the_same_version_wins(store: Database) -> None:
    before = an_upload()
    await add(store, before)
    won = await save(store, before, replace(before, state=State.DISPATCHED))
    with pytest.raises(VersionConflict):
        await save(store, before, replace(before, state=State.CANCELLED))
    assert await load(store, before.key) == won


async def test_an_upload_that_is_not_there_cannot_be_saved(store: Database) -> None:
    upload = an_upload()
    with pytest.raises(VersionConflict):
        await save(store, upload, replace(upload, strikes=1))
    assert await load(store, upload.key) is None


async def test_saving_what_did_not_change_still_counts(store: Database) -> None:
    upload = an_upload(parts={1: PartRecord("a")})
    await add(store, upload)
    assert await save(store, upload, upload) == replace(upload, version=1)
    assert await load(store, upload.key) == replace(upload, version=1)


@pytest.mark.parametrize("same", ["upload_id", "s3_key"])
async def test_a_key_in_use_is_refused_and_the_work_goes_on(store: Database, same: str) -> None:
    first, other = an_upload(), an_upload()
    second = replace(other, **{same: getattr(first, same)})
    await add(store, first)

    def work(records: Records) -> None:
        with pytest.raises(KeyTaken):
            records.uploads.add(second)
        records.uploads.add(other)

    await store.write(work)
    assert await load(store, first.key) == first
    assert await load(store, other.key) == other


async def test_an_object_cannot_be_taken_over(store: Database) -> None:
    first, second = an_upload(), an_upload(parts={1: PartRecord("a")})
    await add(store, first, second)

    def work(records: Records) -> Upload:
        with pytest.raises(KeyTaken):
            records.uploads.save(second, replace(second, s3_key=first.s3_key, parts={}))
        return records.uploads.save(second, replace(second, strikes=1))

    saved = await store.write(work)
    assert await load(store, second.key) == saved


async def test_an_object_that_was_left_is_free(store: Database) -> None:
    first = an_upload()
    await add(store, first)
    await save(store, first, replace(first, s3_key="elsewhere"))
    second = an_upload(s3_key=first.s3_key)
    await add(store, second)
    assert await load(store, second.key) == second


async def test_an_exception_takes_everything_back(store: Database) -> None:
    kept = an_upload(parts={1: PartRecord("a")})
    await add(store, kept)
    new = an_upload()

    def work(records: Records) -> None:
        records.uploads.save(kept, replace(kept, state=State.FAILED, s3_key="moved", parts={}))
        records.uploads.add(new)
        records.outbox.put(a_task(new.key))
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(work)
    assert await load(store, kept.key) == kept
    assert await load(store, new.key) is None
    assert await store.read(lambda records: records.outbox.of(Subject.of_upload(new.key))) == []
    # The same changes, this time for good: nothing of the first time is in the way.
    again = await save(store, kept, replace(kept, state=State.FAILED, s3_key="moved", parts={2: PartRecord("b")}))
    assert await load(store, kept.key) == again


async def test_a_transaction_sees_what_it_wrote(store: Database) -> None:
    upload = an_upload(parts={1: PartRecord("a")})

    def work(records: Records) -> tuple[Upload | None, Upload]:
        records.uploads.add(upload)
        saved = records.uploads.save(upload, replace(upload, parts={1: PartRecord("a", "b")}))
        return records.uploads.get(upload.key), saved

    seen, saved = await store.write(work)
    assert seen == saved


async def test_a_pruned_upload_leaves_no_parts_to_one_of_the_same_id(store: Database) -> None:
    old = an_upload(state=State.COMPLETED, completed_at=1.0, parts={1: PartRecord("a", "b")})
    await add(store, old)
    assert await load(store, old.key) == old
    assert await store.write(lambda records: records.uploads.prune(2.0, 10)) == 1
    new = replace(old, state=State.QUEUED, completed_at=None, parts={})
    await add(store, new)
    assert await load(store, new.key) == new


# --- lists ------------------------------------------------------------------------------------------------------------


def as_listed(upload: Upload) -> Upload:
    """What a listing promises of an upload: of its parts only which are stored."""
    return replace(upload, parts=dict.fromkeys(upload.stored_parts, PartRecord(etag="")))


async def listed(store: Database, where: UploadFilter, limit: int = 100) -> list[Upload]:
    """All pages of a listing, one behind the other."""
    found: list[Upload] = []
    cursor: str | None = None
    while True:
        page = Page(limit, cursor)
        some, cursor = await store.read(lambda records, page=page: records.uploads.list(where, page))  # type: ignore[misc]
        found += map(as_listed, some)
        if cursor is None:
            return found
        assert len(some) == limit


async def a_history(store: Database) -> list[Upload]:
    """Forty uploads of two clients in all states, several of an instant, newest first."""
    states = list(State)
    history = [
        an_upload(
            f"restaurant-{n % 2}",
            created_at=1_000.0 + n // 4,
            state=states[n % len(states)],
            error="not_proven" if n % 3 == 0 else None,
            parts={1: PartRecord("digest", "etag"), 2: PartRecord("digest")} if n % 5 == 0 else {},
        )
        for n in range(40)
    ]
    await add(store, *history)
    return sorted(map(as_listed, history), key=lambda u: (u.created_at, u.client_id, u.upload_id), reverse=True)


@pytest.mark.parametrize("limit", [1, 3, 40, 100])
async def test_pages_are_the_whole_in_order(store: Database, limit: int) -> None:
    history = await a_history(store)
    assert await listed(store, UploadFilter(), limit) == history


@pytest.mark.parametrize(
    "where",
    [
        UploadFilter(client_id="restaurant-1"),
        UploadFilter(client_id="nobody"),
        UploadFilter(states=frozenset({State.QUEUED})),
        UploadFilter(states=frozenset({State.FAILED, State.EXPIRED, State.REJECTED})),
        UploadFilter(states=frozenset()),
        UploadFilter(error="not_proven"),
        UploadFilter(created_after=1_003.0, created_before=1_007.0),
        UploadFilter("restaurant-0", frozenset(State), "not_proven", 1_002.0, 1_008.0),
    ],
)
async def test_a_filter_keeps_what_fits(store: Database, where: UploadFilter) -> None:
    history = await a_history(store)
    fitting = [
        one
        for one in history
        if (where.client_id is None or one.client_id == where.client_id)
        and (where.states is None or one.state in where.states)
        and (where.error is None or one.error == where.error)
        and (where.created_after is None or one.created_at > where.created_after)
        and (where.created_before is None or one.created_at < where.created_before)
    ]
    assert await listed(store, where, 7) == fitting


async def test_what_comes_and_goes_moves_no_page(store: Database) -> None:
    history = await a_history(store)
    first, cursor = await store.read(lambda records: records.uploads.list(UploadFilter(), Page(10)))
    await add(store, an_upload(created_at=9_999.0), an_upload(created_at=1.0))
    page = Page(100, cursor)
    rest, end = await store.read(lambda records: records.uploads.list(UploadFilter(), page))
    assert end is None
    assert [one.key for one in first] == [one.key for one in history[:10]]
    assert [one.key for one in rest[:-1]] == [one.key for one in history[10:]]


@pytest.mark.parametrize("cursor", ["", "x", "!!", "bm90IGpzb24", "WzEsMiwzXQ", "WyJhIl0", "W10", "\N{SNOWMAN}"])
async def test_a_cursor_that_nobody_gave_is_bad_input(store: Database, cursor: str) -> None:
    with pytest.raises(BadInput):
        await store.read(lambda records: records.uploads.list(UploadFilter(), Page(10, cursor)))


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_without_room_is_bad_input(store: Database, limit: int) -> None:
    with pytest.raises(BadInput):
        await store.read(lambda records: records.uploads.list(UploadFilter(), Page(limit)))


async def test_open_uploads_of_a_client_are_those_that_it_must_hear_of(store: Database) -> None:
    every = [an_upload(state=state, client_busy=busy) for state in State for busy in (False, True)]
    await add(store, *every, an_upload("restaurant-2"))
    found = await store.read(lambda records: records.uploads.open_of("restaurant-1"))
    assert {one.key for one in found} == {one.key for one in every if one.state in OPEN or one.client_busy}


# --- deadlines and pruning --------------------------------------------------------------------------------------------


async def test_overdue_uploads_come_longest_overdue_first(store: Database) -> None:
    late = [an_upload(deadline=100.0 - n, state=state) for n, state in enumerate(sorted(EXPIRABLE))]
    await add(
        store,
        *late,
        an_upload(deadline=101.0),
        an_upload(deadline=1.0, state=State.COMPLETING, s3_upload_id="s3-1"),
        an_upload(deadline=1.0, state=State.COMPLETING, one_put=True),
        overheard := an_upload(deadline=2.0, state=State.COMPLETING),
        *(an_upload(deadline=1.0, state=one) for one in TERMINAL),
    )
    expected = [overheard.key, *(one.key for one in reversed(late))]
    assert await store.read(lambda records: records.uploads.overdue(100.0, 10)) == expected
    assert await store.read(lambda records: records.uploads.overdue(100.0, 2)) == expected[:2]


async def test_an_upload_that_ended_is_no_longer_overdue(store: Database) -> None:
    upload = an_upload(deadline=1.0)
    await add(store, upload)
    await save(store, upload, replace(upload, state=State.EXPIRED, completed_at=2.0))
    assert await store.read(lambda records: records.uploads.overdue(100.0, 10)) == []


async def test_pruning_takes_the_oldest_that_ended_and_owe_nothing(store: Database) -> None:
    ended = [an_upload(state=state, completed_at=10.0 + n) for n, state in enumerate(sorted(TERMINAL))]
    owing = an_upload(state=State.FAILED, completed_at=1.0)
    running = an_upload()
    await add(store, *reversed(ended), owing, running)
    await store.write(lambda records: records.outbox.put(a_task(owing.key)))
    assert await store.write(lambda records: records.uploads.prune(12.0, 1)) == 1
    assert await load(store, ended[0].key) is None
    assert await store.write(lambda records: records.uploads.prune(12.0, 10)) == 1
    assert await store.write(lambda records: records.uploads.prune(12.0, 10)) == 0
    left = {one.key for one in await listed(store, UploadFilter())}
    assert left == {one.key for one in (*ended[2:], owing, running)}


async def test_an_end_without_its_time_counts_from_the_last_change(store: Database) -> None:
    upload = an_upload(state=State.FAILED, updated_at=5.0)
    await add(store, upload)
    assert await store.write(lambda records: records.uploads.prune(5.0, 10)) == 0
    assert await store.write(lambda records: records.uploads.prune(5.1, 10)) == 1


# --- the store itself -------------------------------------------------------------------------------------------------


async def test_a_store_that_works_says_nothing(store: Database) -> None:
    assert await store.check() is None  # type: ignore[func-returns-value]
