"""Memory and SQLite agree on every operation: the same results, the same errors, the same rows at the end.

Rule: Hypothesis writes the scripts; a transaction of a script may end in an exception.
"""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.adapters.database import SqlDatabase
from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.domain.changes import UploadCreated, UploadStateChanged
from control_plane.domain.selectors import Selector, parse
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import PartRecord, State, Upload, UploadKey
from control_plane.services.errors import ServiceError
from control_plane.services.ports.database import (
    PARKED,
    Database,
    IdempotencyRecord,
    OutboxEntry,
    Page,
    Records,
    Subject,
    UploadFilter,
)
from tests.support.databases import a_client, an_upload
from tests.support.examples import examples

Step = Callable[[Records], object]


@dataclass(frozen=True)
class Named:
    """A step with a name, which a failure prints."""

    name: str
    do: Step

    def __repr__(self) -> str:
        return self.name


def step(name: str, do: Callable[..., object], *values: st.SearchStrategy[object]) -> st.SearchStrategy[Named]:
    """Steps of one kind, with drawn arguments."""

    def named(arguments: tuple[object, ...]) -> Named:
        return Named(f"{name}{arguments}", lambda records: do(records, *arguments))

    return st.tuples(*values).map(named)


# Few names, so that steps affect the same rows.
client_ids = st.sampled_from(["a", "B", "b"])
keys = st.builds(UploadKey, client_ids, st.sampled_from(["u1", "u2"]))
times = st.integers(0, 6).map(float)
s3_keys = st.sampled_from(["k1", "k2", "k3", "k4"])
part_maps = st.dictionaries(
    st.integers(1, 4), st.builds(PartRecord, st.sampled_from([None, "d"]), st.sampled_from([None, "", "e"])), max_size=4
)
labels = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"]))
selectors = st.none() | st.sampled_from(["x=1", "x!=1", "x,!y", "y notin (1,2)", "x in (1,2),y=1", ""]).map(parse)
kinds = st.sampled_from([Kind.SEND_GRANT, Kind.COMPLETE])
subjects = st.sampled_from(["", "s"])
limits = st.integers(1, 4)
changes = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(State),
        "client_busy": st.booleans(),
        "completed_at": st.none() | times,
        "updated_at": times,
        "deadline": times,
        "error": st.sampled_from([None, "busy"]),
        "s3_key": s3_keys,
        "parts": part_maps,
    },
)


def add(records: Records, key: UploadKey, s3_key: str, created_at: float, parts: dict[int, PartRecord]) -> None:
    upload = an_upload(key.client_id, upload_id=key.upload_id, token="t", s3_key=s3_key, created_at=created_at)
    records.uploads.add(replace(upload, parts=parts, deadline=created_at + 2))


def save(records: Records, key: UploadKey, behind: int, changed: dict[str, object]) -> Upload | None:
    before = records.uploads.get(key)
    if before is None:
        return None
    after = replace(before, **changed)
    return records.uploads.save(replace(before, version=before.version - behind), after)


def put_entry(records: Records, key: UploadKey, kind: Kind, subject: str, due_at: float) -> None:
    records.outbox.put(OutboxEntry(Subject.of_upload(key), Duty(kind, 1, 0.0, subject), due_at))


def as_listed(uploads: Sequence[Upload]) -> list[tuple[UploadKey, State, list[int]]]:
    return [(one.key, one.state, one.stored_parts) for one in uploads]


def list_uploads(records: Records, client_id: str | None, states: frozenset[State] | None, limit: int) -> object:
    where = UploadFilter(client_id, states)
    first, cursor = records.uploads.list(where, Page(limit))
    second = [] if cursor is None else records.uploads.list(where, Page(limit, cursor))[0]
    return as_listed(first), cursor, as_listed(second)


def list_clients(records: Records, pattern: str, selector: Selector | None, limit: int) -> object:
    client_ids = records.clients.matching([pattern], selector)
    first, cursor, total = records.clients.list(Page(limit), client_ids)
    return first, total, None if cursor is None else records.clients.list(Page(limit, cursor), client_ids)


def save_client(records: Records, client_id: str, some: dict[str, str], others: dict[str, str]) -> None:
    records.clients.save([a_client(client_id, labels=some, set_labels=others)])


def due(entries: list[OutboxEntry], limit: int) -> object:
    """Entries with the same `due_at` come in any order: a page that may cut between them compares by instant alone."""
    instants = [entry.due_at for entry in entries]
    return (
        instants
        if len(entries) == limit
        else sorted(entries, key=lambda entry: (entry.due_at, entry.subject.upload_key, entry.duty.kind))
    )


def change(records: Records, at: float, state: State, error: str | None) -> None:
    names = {"at": at, "client_id": "a", "upload_id": "u1"}
    records.changes.append(
        [
            UploadCreated(**names),  # type: ignore[arg-type]
            UploadStateChanged(**names, attempt=2, was=State.QUEUED, state=state, error=error),  # type: ignore[arg-type]
        ]
    )


def raise_error(_: Records) -> None:
    raise LookupError


steps = st.one_of(
    step("add", add, keys, s3_keys, times, part_maps),
    step("save", save, keys, st.sampled_from([0, 0, 0, 1]), changes),
    step("list", list_uploads, st.none() | client_ids, st.none() | st.frozensets(st.sampled_from(State)), limits),
    step("open", lambda r, c: sorted(r.uploads.open_of(c), key=lambda one: one.key), client_ids),
    step("by id", lambda r, i: sorted(r.uploads.by_id(i), key=lambda one: one.key), st.sampled_from(["u1", "u9"])),
    step("by object", lambda r, k: r.uploads.by_s3_key(k), s3_keys),
    step("retried", lambda r, c: sorted(r.uploads.retried_of(c), key=lambda one: one.key), client_ids),
    step("overdue", lambda r, now: sorted(r.uploads.overdue(now, 100)), times),
    step("ahead", lambda r, after: sorted(r.uploads.deadline_ahead(after, 100)), times),
    step("prune", lambda r, before: r.uploads.prune(before, 100), times),
    step("put entry", put_entry, keys, kinds, subjects, times | st.just(PARKED)),
    step("drop entry", lambda r, key, *names: r.outbox.drop(Subject.of_upload(key), *names), keys, kinds, subjects),
    step("due", lambda r, now, limit: due(r.outbox.due(now, limit), limit), times, limits),
    step("wake", lambda r, c, now: r.outbox.wake(c, now), client_ids, times),
    step("wake failed", lambda r, now: r.outbox.wake_failed(["busy"], now), times),
    step("pull in", lambda r, kind, after, to: r.outbox.pull_in(kind, after, to), kinds, times, times),
    step("next due", lambda r: r.outbox.next_due()),
    step("save client", save_client, client_ids, labels, labels),
    step("list clients", list_clients, st.sampled_from(["a", "*", "b*", "z"]), selectors, limits),
    step("delete client", lambda r, c: r.clients.delete(c), client_ids),
    step(
        "add key",
        lambda r, k, at: r.idempotency.add(IdempotencyRecord("me", "a", k, "body", "u1", at)),
        st.sampled_from(["1", "2"]),
        times,
    ),
    step("find key", lambda r, k: r.idempotency.get("me", "a", k), st.sampled_from(["1", "2"])),
    step("change", change, times, st.sampled_from([State.FAILED, State.EXPIRED]), st.sampled_from([None, "busy"])),
    step("changes", lambda r, after, limit: r.changes.after(after, limit), st.integers(0, 3), limits),
    step("prune changes", lambda r, before, limit: r.changes.prune(before, limit), times, limits),
    step("prune keys", lambda r, before: r.idempotency.prune(before), times),
    st.just(Named("raise", raise_error)),
)
scripts = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=1, max_size=8)


def outcome(records: Records, one: Named) -> object:
    """What a step returns, or the name of its service error; the transaction continues after it."""
    try:
        return one.do(records)
    except ServiceError as error:
        return type(error).__name__


def everything(records: Records) -> object:
    """All rows, in an order that does not depend on the database."""
    listed, _ = records.uploads.list(UploadFilter(), Page(100))
    uploads = [records.uploads.get(one.key) for one in listed]
    entries = sorted(records.outbox.due(2 * PARKED, 100), key=repr)
    return uploads, entries, records.changes.after(0, 100), records.clients.list(Page(100))


async def played(database: Database, script: list[list[Named]]) -> list[object]:
    """What a script's transactions return, and the rows after each."""
    results: list[object] = []
    for transaction in script:
        try:
            results.append(await database.write(lambda r, t=transaction: [outcome(r, one) for one in t]))  # type: ignore[misc]
        except LookupError:
            results.append("rolled back")
        results.append(await database.read(everything))
    await database.close()
    return results


EXAMPLES: Final = examples(40)
"""Each of them opens a database."""


@settings(max_examples=EXAMPLES)
@given(script=scripts)
def test_memory_and_sqlite_give_the_same_results(script: list[list[Named]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        sqlite = SqlDatabase.open(f"sqlite:///{Path(directory) / 'backhaul.db'}")
        expected = asyncio.run(played(MemoryDatabase(), script))
        assert asyncio.run(played(sqlite, script)) == expected
