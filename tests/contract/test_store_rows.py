"""What every store promises about the outbox, clients and idempotency keys.

Rule: only the port is used. What is told of one store alone stands in tests/integration.
"""

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.domain.clients import Client
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.errors import BadInput, KeyTaken
from control_plane.services.ports.database import (
    PARKED,
    Database,
    IdempotencyRecord,
    OutboxEntry,
    Page,
    Records,
    Subject,
)
from tests.support.postgres import postgres
from tests.support.stores import (
    a_client,
    a_task,
    an_upload,
    clients,
    idempotency_records,
    migrated,
    store,
    tasks,
    uploads,
)

__all__ = ["migrated", "postgres", "store"]

# One store serves all examples: each of them has keys of its own.
shared: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


# --- outbox -----------------------------------------------------------------------------------------------------------


async def outbox(store: Database, *due: OutboxEntry) -> None:
    """Put rows, each with the upload that it needs."""

    def work(records: Records) -> None:
        for key in {task.subject.upload_key for task in due}:
            records.uploads.add(an_upload(key.client_id, upload_id=key.upload_id))
        for task in due:
            records.outbox.put(task)

    await store.write(work)


def rows(*of: OutboxEntry) -> set[tuple[UploadKey, Kind, str, float]]:
    return {(task.subject.upload_key, task.duty.kind, task.duty.target, task.due_at) for task in of}


@shared
@given(data=st.data())
async def test_a_task_comes_back_as_it_was(store: Database, data: st.DataObject) -> None:
    upload = data.draw(uploads())
    task = data.draw(tasks(upload.key))
    await store.write(lambda records: records.uploads.add(upload))
    await store.write(lambda records: records.outbox.put(task))
    assert await store.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))) == [task]


async def test_a_task_replaces_the_one_of_its_kind_and_subject(store: Database) -> None:
    key = an_upload().key
    first = a_task(key, Kind.ABORT_MULTIPART, subject="a")
    other = a_task(key, Kind.ABORT_MULTIPART, subject="b")
    again = OutboxEntry(Subject.of_upload(key), Duty(Kind.ABORT_MULTIPART, 2, 5.0, "a"), 7.0, tries=3)
    await outbox(store, first, other, again)
    found = await store.read(lambda records: records.outbox.of(Subject.of_upload(key)))
    assert sorted(found, key=lambda task: task.duty.target) == [again, other]


async def test_dropping_takes_one_row_and_only_that(store: Database) -> None:
    key = an_upload().key
    first, second = a_task(key, Kind.SEND_GRANT), a_task(key, Kind.DELETE_OBJECT, subject="x")
    await outbox(store, first, second)

    def work(records: Records) -> None:
        records.outbox.drop(Subject.of_upload(key), Kind.SEND_GRANT, "")
        records.outbox.drop(Subject.of_upload(key), Kind.SEND_GRANT, "")
        records.outbox.drop(Subject.of_upload(key), Kind.DELETE_OBJECT, "y")
        records.outbox.drop(Subject.of_upload(UploadKey("nobody", "nothing")), Kind.COMPLETE, "")

    await store.write(work)
    assert await store.read(lambda records: records.outbox.of(Subject.of_upload(key))) == [second]
    await store.write(lambda records: records.outbox.drop(Subject.of_upload(key), Kind.DELETE_OBJECT, "x"))
    assert await store.read(lambda records: records.outbox.of(Subject.of_upload(key))) == []


async def test_due_tasks_come_earliest_first(store: Database) -> None:
    every = [a_task(UploadKey("restaurant-1", f"u-{n}"), due_at=float(n)) for n in (5, 1, 4, 2, 3)]
    await outbox(store, *every, a_task(UploadKey("restaurant-1", "away"), due_at=PARKED))
    due = await store.read(lambda records: records.outbox.due(4.0, 10))
    assert [task.due_at for task in due] == [1.0, 2.0, 3.0, 4.0]
    assert [task.due_at for task in await store.read(lambda records: records.outbox.due(4.0, 2))] == [1.0, 2.0]
    assert await store.read(lambda records: records.outbox.due(0.5, 10)) == []


async def test_the_next_due_is_the_earliest_that_is_not_parked(store: Database) -> None:
    key = an_upload().key
    assert await store.read(lambda records: records.outbox.next_due()) is None
    await outbox(store, a_task(key, due_at=PARKED))
    assert await store.read(lambda records: records.outbox.next_due()) is None
    await store.write(lambda records: records.outbox.put(a_task(key, Kind.COMPLETE, due_at=8.0)))
    await store.write(lambda records: records.outbox.put(a_task(key, Kind.SEND_GRANT, due_at=9.0)))
    assert await store.read(lambda records: records.outbox.next_due()) == 8.0


async def test_a_hello_wakes_the_parked_tasks_of_its_client(store: Database) -> None:
    parked = a_task(UploadKey("restaurant-1", "a"), due_at=PARKED)
    busy = a_task(UploadKey("restaurant-1", "b"), due_at=500.0)
    others = a_task(UploadKey("restaurant-11", "c"), due_at=PARKED)
    await outbox(store, parked, busy, others)
    assert await store.write(lambda records: records.outbox.wake("restaurant-1", 100.0)) == 1
    assert await store.write(lambda records: records.outbox.wake("restaurant-1", 200.0)) == 0
    due = await store.read(lambda records: records.outbox.due(499.0, 10))
    assert rows(*due) == rows(replace(parked, due_at=100.0))


# --- clients ----------------------------------------------------------------------------------------------------------


@shared
@given(client=clients)
async def test_a_client_comes_back_as_it_was(store: Database, client: Client) -> None:
    await store.write(lambda records: records.clients.save([client]))
    assert await store.read(lambda records: records.clients.get(client.client_id)) == client


async def test_many_clients_are_saved_and_found_at_once(store: Database) -> None:
    many = [a_client(f"restaurant-{n}", labels={"site": str(n % 3)}) for n in range(1_200)]
    await store.write(lambda records: records.clients.save(many))
    later = [replace(client, epoch=2) for client in many]
    await store.write(lambda records: records.clients.save(later))
    wanted = (*(client.client_id for client in many), "stranger")
    assert await store.read(lambda records: records.clients.among(iter(wanted))) == {
        one.client_id: one for one in later
    }
    assert await store.read(lambda records: records.clients.among([])) == {}


async def test_the_last_of_several_with_one_id_is_kept(store: Database) -> None:
    first = a_client("restaurant-1", labels={"site": "berlin"})
    last = replace(first, epoch=9, labels={"site": "paris"})
    await store.write(lambda records: records.clients.save([first, last]))
    await store.write(lambda records: records.clients.save([]))
    assert await store.read(lambda records: records.clients.get("restaurant-1")) == last
    assert await bearers(store, {"site": "berlin"}) == []
    assert await bearers(store, {"site": "paris"}) == ["restaurant-1"]


async def bearers(store: Database, labels: dict[str, str], limit: int = 100) -> list[str]:
    """Ids of the clients that bear these labels, page by page; the total is right on each."""
    found: list[str] = []
    totals: set[int] = set()
    page = Page(limit)
    while True:
        some, cursor, total = await store.read(lambda records, page=page: records.clients.list(labels, page))  # type: ignore[misc]
        found += [client.client_id for client in some]
        totals.add(total)
        if cursor is None:
            assert totals == {len(found)}
            return found
        page = Page(limit, cursor)


async def test_clients_are_listed_by_id_in_the_order_of_code_points(store: Database) -> None:
    names = ["b", "a", "B", "A", "a-1", "a.1", "a1", "a10", "a2", "_", "a_"]
    await store.write(lambda records: records.clients.save([a_client(name) for name in names]))
    assert await bearers(store, {}) == sorted(names)
    assert await bearers(store, {}, 2) == sorted(names)


async def test_a_label_filter_asks_for_all_of_its_labels(store: Database) -> None:
    fleet = [
        a_client("a", labels={"site": "berlin", "floor": "1"}),
        a_client("b", labels={"site": "berlin", "floor": "2", "kind": "till"}),
        a_client("c", labels={"site": "paris", "floor": "1"}),
        a_client("d"),
    ]
    await store.write(lambda records: records.clients.save(fleet))
    assert await bearers(store, {"site": "berlin"}, 1) == ["a", "b"]
    assert await bearers(store, {"site": "berlin", "floor": "1"}) == ["a"]
    assert await bearers(store, {"floor": "1"}) == ["a", "c"]
    assert await bearers(store, {"site": "berlin", "floor": "2", "kind": "till"}) == ["b"]
    assert await bearers(store, {"site": "rome"}) == []
    assert await bearers(store, {"site": "1"}) == []


async def test_labels_follow_the_client(store: Database) -> None:
    client = a_client("a", labels={"site": "berlin", "floor": "1"})
    await store.write(lambda records: records.clients.save([client]))
    await store.write(lambda records: records.clients.save([replace(client, labels={"site": "paris"})]))
    assert await bearers(store, {"site": "berlin"}) == []
    assert await bearers(store, {"floor": "1"}) == []
    assert await bearers(store, {"site": "paris"}) == ["a"]
    await store.write(lambda records: records.clients.save([replace(client, labels={})]))
    assert await bearers(store, {"site": "paris"}) == []


async def test_a_cursor_of_another_list_is_bad_input(store: Database) -> None:
    await store.write(lambda records: records.clients.save([a_client("a"), a_client("b")]))
    _, cursor, _ = await store.read(lambda records: records.clients.list({}, Page(1)))
    assert cursor is not None
    for wrong in ("WzEsImEiLCJiIl0", "x", cursor + "x"):
        with pytest.raises(BadInput):
            await store.read(lambda records, wrong=wrong: records.clients.list({}, Page(1, wrong)))  # type: ignore[misc]


async def test_a_deleted_client_is_forgotten_but_not_its_uploads(store: Database) -> None:
    upload = an_upload("a")

    def work(records: Records) -> None:
        records.clients.save([a_client("a", labels={"site": "berlin"})])
        records.uploads.add(upload)

    await store.write(work)
    assert await store.write(lambda records: records.clients.delete("a")) is True
    assert await store.write(lambda records: records.clients.delete("a")) is False
    assert await store.read(lambda records: records.clients.get("a")) is None
    assert await bearers(store, {"site": "berlin"}) == []
    assert await store.read(lambda records: records.uploads.get(upload.key)) == upload


async def test_what_happened_to_clients_is_taken_back_too(store: Database) -> None:
    client = a_client("a", labels={"site": "berlin"})
    await store.write(lambda records: records.clients.save([client]))

    def work(records: Records) -> None:
        records.clients.save([replace(client, labels={"site": "paris"}), a_client("b")])
        records.clients.delete("a")
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(work)
    assert await bearers(store, {}) == ["a"]
    assert await bearers(store, {"site": "berlin"}) == ["a"]


# --- idempotency ------------------------------------------------------------------------------------------------------


@shared
@given(record=idempotency_records)
async def test_a_key_comes_back_as_it_was(store: Database, record: IdempotencyRecord) -> None:
    await store.write(lambda records: records.idempotency.add(record))
    names = (record.caller, record.client_id, record.idempotency_key)
    assert await store.read(lambda records: records.idempotency.get(*names)) == record


async def test_a_key_is_the_callers_and_the_clients(store: Database) -> None:
    first = IdempotencyRecord("ann", "a", "key", "body", "u-1", 1.0)
    same = replace(first, body="another", upload_id="u-9")
    others = [replace(first, caller="bob"), replace(first, client_id="b"), replace(first, idempotency_key="k")]

    def work(records: Records) -> None:
        records.idempotency.add(first)
        with pytest.raises(KeyTaken):
            records.idempotency.add(same)
        for other in others:
            records.idempotency.add(other)

    await store.write(work)
    assert await store.read(lambda records: records.idempotency.get("ann", "a", "key")) == first
    assert await store.read(lambda records: records.idempotency.get("ann", "b", "k")) is None


async def test_old_keys_are_forgotten(store: Database) -> None:
    old, young = IdempotencyRecord("ann", "a", "1", "", "u", 1.0), IdempotencyRecord("ann", "a", "2", "", "u", 2.0)

    def work(records: Records) -> int:
        records.idempotency.add(old)
        records.idempotency.add(young)
        return records.idempotency.prune(2.0)

    assert await store.write(work) == 1
    assert await store.read(lambda records: records.idempotency.get("ann", "a", "1")) is None
    assert await store.read(lambda records: records.idempotency.get("ann", "a", "2")) == young
