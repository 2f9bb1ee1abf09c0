"""What every database promises about the outbox, clients, idempotency keys and changes.

Rule: only the port is used. Tests of one kind of database are in tests/integration.
"""

from dataclasses import replace
from functools import partial
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from control_plane.adapters.cursors import encode_cursor
from control_plane.domain.changes import Change, UploadCreated
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason
from control_plane.domain.selectors import Relation, Selector, Term
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.errors import BadInput, KeyTaken
from control_plane.services.ports.database import (
    PARKED,
    ClientPage,
    Database,
    Failure,
    IdempotencyRecord,
    OutboxEntry,
    Page,
    Records,
    Subject,
)
from tests.support.databases import (
    a_client,
    an_entry,
    an_upload,
    changes,
    clients,
    database,
    entries,
    idempotency_records,
    migrated,
    uploads,
)
from tests.support.examples import examples
from tests.support.postgres import postgres

__all__ = ["database", "migrated", "postgres"]

# One database serves all examples: each of them has unique keys.
shared: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))


# --- outbox -----------------------------------------------------------------------------------------------------------


async def outbox(database: Database, *due: OutboxEntry) -> None:
    """Put entries, each with its upload."""

    def work(records: Records) -> None:
        for key in {entry.subject.upload_key for entry in due}:
            records.uploads.add(an_upload(key.client_id, upload_id=key.upload_id))
        for entry in due:
            records.outbox.put(entry)

    await database.write(work)


def rows(*of: OutboxEntry) -> set[tuple[UploadKey, Kind, str, float]]:
    return {(entry.subject.upload_key, entry.duty.kind, entry.duty.target, entry.due_at) for entry in of}


@shared
@given(data=st.data())
async def test_an_entry_comes_back_as_it_was(database: Database, data: st.DataObject) -> None:
    upload = data.draw(uploads())
    entry = data.draw(entries(upload.key))
    await database.write(lambda records: records.uploads.add(upload))
    await database.write(lambda records: records.outbox.put(entry))
    assert await database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))) == [entry]


async def test_an_entry_replaces_the_one_of_its_kind_and_target(database: Database) -> None:
    key = an_upload().key
    first = an_entry(key, Kind.ABORT_MULTIPART, target="a")
    other = an_entry(key, Kind.ABORT_MULTIPART, target="b")
    again = OutboxEntry(Subject.of_upload(key), Duty(Kind.ABORT_MULTIPART, 2, 5.0, "a"), 7.0, tries=3)
    await outbox(database, first, other, again)
    found = await database.read(lambda records: records.outbox.of(Subject.of_upload(key)))
    assert sorted(found, key=lambda entry: entry.duty.target) == [again, other]


async def test_drop_deletes_exactly_one_row(database: Database) -> None:
    key = an_upload().key
    first, second = an_entry(key, Kind.SEND_GRANT), an_entry(key, Kind.DELETE_OBJECT, target="x")
    await outbox(database, first, second)

    def work(records: Records) -> None:
        records.outbox.drop(Subject.of_upload(key), Kind.SEND_GRANT, "")
        records.outbox.drop(Subject.of_upload(key), Kind.SEND_GRANT, "")
        records.outbox.drop(Subject.of_upload(key), Kind.DELETE_OBJECT, "y")
        records.outbox.drop(Subject.of_upload(UploadKey("nobody", "nothing")), Kind.COMPLETE, "")

    await database.write(work)
    assert await database.read(lambda records: records.outbox.of(Subject.of_upload(key))) == [second]
    await database.write(lambda records: records.outbox.drop(Subject.of_upload(key), Kind.DELETE_OBJECT, "x"))
    assert await database.read(lambda records: records.outbox.of(Subject.of_upload(key))) == []


async def test_due_entries_come_earliest_first(database: Database) -> None:
    every = [an_entry(UploadKey("restaurant-1", f"u-{n}"), due_at=float(n)) for n in (5, 1, 4, 2, 3)]
    await outbox(database, *every, an_entry(UploadKey("restaurant-1", "away"), due_at=PARKED))
    due = await database.read(lambda records: records.outbox.due(4.0, 10))
    assert [entry.due_at for entry in due] == [1.0, 2.0, 3.0, 4.0]
    assert [entry.due_at for entry in await database.read(lambda records: records.outbox.due(4.0, 2))] == [1.0, 2.0]
    assert await database.read(lambda records: records.outbox.due(0.5, 10)) == []


async def test_the_next_due_is_the_earliest_that_is_not_parked(database: Database) -> None:
    key = an_upload().key
    assert await database.read(lambda records: records.outbox.next_due()) is None
    await outbox(database, an_entry(key, due_at=PARKED))
    assert await database.read(lambda records: records.outbox.next_due()) is None
    await database.write(lambda records: records.outbox.put(an_entry(key, Kind.COMPLETE, due_at=8.0)))
    await database.write(lambda records: records.outbox.put(an_entry(key, Kind.SEND_GRANT, due_at=9.0)))
    assert await database.read(lambda records: records.outbox.next_due()) == 8.0


async def test_a_hello_wakes_the_parked_entries_of_its_client(database: Database) -> None:
    parked = an_entry(UploadKey("restaurant-1", "a"), due_at=PARKED)
    busy = an_entry(UploadKey("restaurant-1", "b"), due_at=500.0)
    others = an_entry(UploadKey("restaurant-11", "c"), due_at=PARKED)
    await outbox(database, parked, busy, others)
    assert await database.write(lambda records: records.outbox.wake("restaurant-1", 100.0)) == 1
    assert await database.write(lambda records: records.outbox.wake("restaurant-1", 200.0)) == 0
    due = await database.read(lambda records: records.outbox.due(499.0, 10))
    assert rows(*due) == rows(replace(parked, due_at=100.0))


async def test_entries_that_failed_for_a_reason_are_woken_when_it_is_gone(database: Database) -> None:
    failed = Failure(Reason("object_store_refused", "no"), 5.0)
    other = Failure(Reason("broker_unavailable", "no"), 5.0)
    waiting = replace(an_entry(UploadKey("restaurant-1", "a"), due_at=500.0), last_error=failed)
    parked = replace(an_entry(UploadKey("restaurant-1", "b"), due_at=PARKED), last_error=failed)
    others = replace(an_entry(UploadKey("restaurant-1", "c"), due_at=500.0), last_error=other)
    later = an_entry(UploadKey("restaurant-1", "d"), Kind.DELETE_OBJECT, due_at=500.0)
    later = replace(later, duty=replace(later.duty, due_at=400.0), last_error=failed)
    await outbox(database, waiting, parked, others, later)
    codes = ["object_store_refused", "object_store_unavailable"]
    assert await database.write(lambda records: records.outbox.wake_failed(codes, 100.0)) == 2
    due = await database.read(lambda records: records.outbox.due(499.0, 10))
    assert rows(*due) == rows(replace(waiting, due_at=100.0), replace(later, due_at=400.0))


async def test_entries_that_lie_too_far_ahead_are_pulled_in(database: Database) -> None:
    far = an_entry(UploadKey("restaurant-1", "a"), Kind.COMPLETE, due_at=5_000.0)
    near = an_entry(UploadKey("restaurant-1", "b"), Kind.COMPLETE, due_at=500.0)
    other = an_entry(UploadKey("restaurant-1", "c"), Kind.DELETE_OBJECT, due_at=5_000.0)
    parked = an_entry(UploadKey("restaurant-1", "d"), Kind.COMPLETE, due_at=PARKED)
    await outbox(database, far, near, other, parked)
    assert await database.write(lambda records: records.outbox.pull_in(Kind.COMPLETE, 1_000.0, 100.0)) == 1
    due = await database.read(lambda records: records.outbox.due(9_000.0, 10))
    assert rows(*due) == rows(replace(far, due_at=100.0), near, other)


# --- clients ----------------------------------------------------------------------------------------------------------


@shared
@given(client=clients)
async def test_a_client_comes_back_as_it_was(database: Database, client: Client) -> None:
    await database.write(lambda records: records.clients.save([client]))
    assert await database.read(lambda records: records.clients.get(client.client_id)) == client


async def test_many_clients_are_saved_and_found_at_once(database: Database) -> None:
    many = [a_client(f"restaurant-{n}", labels={"site": str(n % 3)}) for n in range(1_200)]
    await database.write(lambda records: records.clients.save(many))
    later = [structs.replace(client, epoch=2) for client in many]
    await database.write(lambda records: records.clients.save(later))
    wanted = (*(client.client_id for client in many), "stranger")
    assert await database.read(lambda records: records.clients.among(iter(wanted))) == {
        one.client_id: one for one in later
    }


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
async def test_a_list_of_any_length_finds_its_clients_and_no_others(database: Database, count: int) -> None:
    every = [a_client(f"restaurant-{n}") for n in range(8)]
    await database.write(lambda records: records.clients.save(every))
    wanted = [client.client_id for client in every[:count]]
    assert set(await database.read(lambda records: records.clients.among(wanted))) == set(wanted)
    assert set(await database.read(lambda records: records.clients.presences(wanted))) == set(wanted)
    assert await database.read(lambda records: records.clients.matching(wanted, None)) == sorted(wanted)


async def test_an_empty_list_finds_no_client(database: Database) -> None:
    await database.write(lambda records: records.clients.save([a_client("restaurant-1")]))
    assert await database.read(lambda records: records.clients.among([])) == {}
    assert await database.read(lambda records: records.clients.presences([])) == {}
    assert await database.read(lambda records: records.clients.matching([], None)) == []


async def test_the_last_of_several_with_one_id_is_kept(database: Database) -> None:
    first = a_client("restaurant-1", labels={"site": "berlin"})
    last = structs.replace(first, epoch=9, labels={"site": "paris"})
    await database.write(lambda records: records.clients.save([first, last]))
    await database.write(lambda records: records.clients.save([]))
    assert await database.read(lambda records: records.clients.get("restaurant-1")) == last
    assert await with_labels(database, {"site": "berlin"}) == []
    assert await with_labels(database, {"site": "paris"}) == ["restaurant-1"]


def bearing(labels: dict[str, str]) -> Selector | None:
    """The selector of all these labels; None, so of every client, without one."""
    return Selector("", tuple(Term(name, Relation.IN, (value,)) for name, value in labels.items())) if labels else None


async def with_labels(database: Database, labels: dict[str, str], limit: int = 100) -> list[str]:
    """Ids of the clients with these labels, read page by page; the total is the same on each page."""
    selector = bearing(labels)

    def page_of(records: Records, page: Page) -> ClientPage:
        return records.clients.list(page, None if selector is None else records.clients.matching((), selector))

    found: list[str] = []
    totals: set[int] = set()
    page = Page(limit)
    while True:
        some, cursor, total = await database.read(partial(page_of, page=page))
        found += [client.client_id for client in some]
        totals.add(total)
        if cursor is None:
            assert totals == {len(found)}
            return found
        page = Page(limit, cursor)


async def test_clients_are_listed_by_id_in_the_order_of_code_points(database: Database) -> None:
    names = ["b", "a", "B", "A", "a-1", "a.1", "a1", "a10", "a2", "_", "a_"]
    await database.write(lambda records: records.clients.save([a_client(name) for name in names]))
    assert await with_labels(database, {}) == sorted(names)
    assert await with_labels(database, {}, 2) == sorted(names)


async def test_a_label_filter_requires_all_its_labels(database: Database) -> None:
    fleet = [
        a_client("a", labels={"site": "berlin", "floor": "1"}),
        a_client("b", labels={"site": "berlin", "floor": "2", "kind": "till"}),
        a_client("c", labels={"site": "paris", "floor": "1"}),
        a_client("d"),
    ]
    await database.write(lambda records: records.clients.save(fleet))
    assert await with_labels(database, {"site": "berlin"}, 1) == ["a", "b"]
    assert await with_labels(database, {"site": "berlin", "floor": "1"}) == ["a"]
    assert await with_labels(database, {"floor": "1"}) == ["a", "c"]
    assert await with_labels(database, {"site": "berlin", "floor": "2", "kind": "till"}) == ["b"]
    assert await with_labels(database, {"site": "rome"}) == []
    assert await with_labels(database, {"site": "1"}) == []


async def test_labels_follow_the_client(database: Database) -> None:
    client = a_client("a", labels={"site": "berlin", "floor": "1"})
    await database.write(lambda records: records.clients.save([client]))
    await database.write(lambda records: records.clients.save([structs.replace(client, labels={"site": "paris"})]))
    assert await with_labels(database, {"site": "berlin"}) == []
    assert await with_labels(database, {"floor": "1"}) == []
    assert await with_labels(database, {"site": "paris"}) == ["a"]
    await database.write(lambda records: records.clients.save([structs.replace(client, labels={})]))
    assert await with_labels(database, {"site": "paris"}) == []


async def test_a_cursor_of_another_list_is_bad_input(database: Database) -> None:
    await database.write(lambda records: records.clients.save([a_client("a"), a_client("b")]))
    _, cursor, _ = await database.read(lambda records: records.clients.list(Page(1)))
    assert cursor is not None
    for wrong in ("WzEsImEiLCJiIl0", "x", cursor + "x", encode_cursor(("a\0",))):
        with pytest.raises(BadInput):
            await database.read(lambda records, wrong=wrong: records.clients.list(Page(1, wrong)))  # type: ignore[misc]


async def test_deleting_a_client_keeps_its_uploads(database: Database) -> None:
    upload = an_upload("a")

    def work(records: Records) -> None:
        records.clients.save([a_client("a", labels={"site": "berlin"})])
        records.uploads.add(upload)

    await database.write(work)
    assert await database.write(lambda records: records.clients.delete("a")) is True
    assert await database.write(lambda records: records.clients.delete("a")) is False
    assert await database.read(lambda records: records.clients.get("a")) is None
    assert await with_labels(database, {"site": "berlin"}) == []
    assert await database.read(lambda records: records.uploads.get(upload.key)) == upload


async def test_a_rollback_restores_clients_and_their_labels(database: Database) -> None:
    client = a_client("a", labels={"site": "berlin"})
    await database.write(lambda records: records.clients.save([client]))

    def work(records: Records) -> None:
        records.clients.save([structs.replace(client, labels={"site": "paris"}), a_client("b")])
        records.clients.delete("a")
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)
    assert await with_labels(database, {}) == ["a"]
    assert await with_labels(database, {"site": "berlin"}) == ["a"]


# --- idempotency ------------------------------------------------------------------------------------------------------


@shared
@given(record=idempotency_records)
async def test_an_idempotency_key_comes_back_as_it_was(database: Database, record: IdempotencyRecord) -> None:
    await database.write(lambda records: records.idempotency.add(record))
    names = (record.caller, record.client_id, record.idempotency_key)
    assert await database.read(lambda records: records.idempotency.get(*names)) == record


async def test_an_idempotency_key_is_scoped_by_caller_and_client(database: Database) -> None:
    first = IdempotencyRecord("ann", "a", "key", "body", "u-1", 1.0)
    same = replace(first, body="another", upload_id="u-9")
    others = [replace(first, caller="bob"), replace(first, client_id="b"), replace(first, idempotency_key="k")]

    def work(records: Records) -> None:
        records.idempotency.add(first)
        with pytest.raises(KeyTaken):
            records.idempotency.add(same)
        for other in others:
            records.idempotency.add(other)

    await database.write(work)
    assert await database.read(lambda records: records.idempotency.get("ann", "a", "key")) == first
    assert await database.read(lambda records: records.idempotency.get("ann", "b", "k")) is None


async def test_old_idempotency_keys_are_pruned(database: Database) -> None:
    old, young = IdempotencyRecord("ann", "a", "1", "", "u", 1.0), IdempotencyRecord("ann", "a", "2", "", "u", 2.0)

    def work(records: Records) -> int:
        records.idempotency.add(old)
        records.idempotency.add(young)
        return records.idempotency.prune(2.0)

    assert await database.write(work) == 1
    assert await database.read(lambda records: records.idempotency.get("ann", "a", "1")) is None
    assert await database.read(lambda records: records.idempotency.get("ann", "a", "2")) == young


# --- changes ----------------------------------------------------------------------------------------------------------


def created(number: int) -> UploadCreated:
    return UploadCreated(at=float(number), client_id="a", upload_id=f"u{number}")


@shared
@given(change=changes)
async def test_a_change_comes_back_as_it_was(database: Database, change: Change) -> None:
    before = await database.read(last_number)
    await database.write(lambda records: records.changes.append([change]))
    (found,) = await database.read(lambda records: records.changes.after(before, 10))
    assert found.change == change
    assert found.number > before


def last_number(records: Records) -> int:
    return max((one.number for one in records.changes.after(0, 10_000)), default=0)


async def test_changes_are_numbered_in_the_order_in_which_they_were_appended(database: Database) -> None:
    await database.write(lambda records: records.changes.append([created(3), created(1)]))
    await database.write(lambda records: records.changes.append([]))
    await database.write(lambda records: records.changes.append([created(2)]))
    found = await database.read(lambda records: records.changes.after(0, 10))
    assert [one.change for one in found] == [created(3), created(1), created(2)]
    assert sorted({one.number for one in found}) == [one.number for one in found]


async def test_changes_are_read_page_by_page(database: Database) -> None:
    await database.write(lambda records: records.changes.append([created(n) for n in range(7)]))
    read: list[Change] = []
    number = 0
    while page := await database.read(lambda records, after=number: records.changes.after(after, 3)):  # type: ignore[misc]
        assert len(page) <= 3
        read += [one.change for one in page]
        number = page[-1].number
    assert read == [created(n) for n in range(7)]


async def test_a_transaction_that_raises_appends_no_change(database: Database) -> None:
    def work(records: Records) -> None:
        records.changes.append([created(1)])
        assert len(records.changes.after(0, 10)) == 1
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)
    assert await database.read(lambda records: records.changes.after(0, 10)) == []


async def test_old_changes_are_pruned_but_the_last_one_and_their_numbers_are_not_used_again(database: Database) -> None:
    await database.write(lambda records: records.changes.append([created(1), created(2), created(3)]))
    last = await database.read(last_number)
    assert await database.write(lambda records: records.changes.prune(3.0, 1)) == 1
    assert [one.change for one in await database.read(lambda records: records.changes.after(0, 10))] == [
        created(2),
        created(3),
    ]
    assert await database.write(lambda records: records.changes.prune(9.0, 10)) == 1
    assert await database.write(lambda records: records.changes.prune(9.0, 10)) == 0
    assert await database.read(lambda records: records.changes.span()) == (last, last)
    await database.write(lambda records: records.changes.append([created(4)]))
    assert await database.write(lambda records: records.changes.prune(9.0, 10)) == 1
    (found,) = await database.read(lambda records: records.changes.after(0, 10))
    assert found.number > last
