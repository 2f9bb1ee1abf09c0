"""The audit in SQL: chains, filters, checkpoints and pruning."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import pytest
from sqlalchemy import text

from control_plane.adapters.database.audit import records as adapter
from control_plane.api.audit.models import AuditPage, export_line
from control_plane.cli.rest.audit.exports import Export, checked
from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act, AuditEntry, AuditRecord, Outcome
from control_plane.domain.audit.notes import Checkpoint, NoteSigner
from control_plane.domain.audit.verification import AuditReport, verify
from control_plane.domain.errors import Forbidden
from control_plane.services.audit.denials import A_DAY, COUNTED_EVERY, MOST, Denials
from control_plane.services.audit.keeper import AuditKeeper, CheckpointBucket
from control_plane.services.audit.ports import AuditFilter, AuditSigned, StoredCheckpoint
from control_plane.services.audit.recording import record
from control_plane.services.audit.service import AuditService
from control_plane.services.errors import DatabaseUnavailable, ObjectStoreDown, ServiceError
from control_plane.services.ports.database import Database, Page, Records
from schemas.signing.ed25519 import Signer
from tests.support.databases import migrated, sql_database
from tests.support.fakes import FakeClock
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

T = TypeVar("T")
ANN = Principal("ann", token_id="token-1", address="192.0.2.7", reason="ticket 4711")
SIGNER = NoteSigner("backhaul/test", Signer(bytes(range(32))))
OTHER = NoteSigner("backhaul/test", Signer(bytes(32)))


async def add(database: Database, act: Act = Act.UPLOAD_TRIGGER, at: float = 1_000.0, **facts: object) -> None:
    await database.write(lambda records: record(records, ANN, act, at, **facts))  # type: ignore[arg-type]


async def listed(database: Database, limit: int = 100, **where: object) -> list[AuditRecord]:
    """All pages."""
    cursor, found = None, []
    while True:
        page = Page(limit, cursor)
        some, cursor = await database.read(
            lambda records, page=page: records.audit.list(AuditFilter(**where), page)  # type: ignore[arg-type, misc]
        )
        found += some
        if cursor is None:
            return found


def a_keeper(
    database: Database,
    clock: FakeClock,
    logged: list[tuple[str, dict[str, object]]],
    bucket: CheckpointBucket | None = None,
    signer: NoteSigner = SIGNER,
) -> AuditKeeper:
    return AuditKeeper(
        database,
        clock,
        lambda event, facts: logged.append((event, dict(facts))),
        signer=signer,
        origin="backhaul/test/audit",
        kept_for=1_000.0,
        bucket=bucket,
    )


async def report_of(database: Database) -> AuditReport:
    exported = await AuditService(database, FakeClock(), "key").export(ANN)
    records, notes = [], []
    async for one in exported:
        if isinstance(one, AuditRecord):
            records.append(one)
        else:
            notes.append(one.note)
    return verify(records, notes, [SIGNER.verifier])


async def test_a_record_has_who_what_on_which_why_and_how_it_ended(sql_database: Database) -> None:
    await add(
        sql_database, target="upload:u-1", clients=["b", "a"], detail={"file_path": "/data/a"}, outcome=Outcome.FAILED
    )
    (one,) = await listed(sql_database)
    assert one.is_sound
    assert one.number == 1
    found = {name: value for name, value in one.document.items() if name not in {"writer", "number"}}
    assert found == {
        "act": "upload.trigger",
        "address": "192.0.2.7",
        "at": "1970-01-01T00:16:40.000Z",
        "client_count": 2,
        "client_set": None,
        "clients": ["a", "b"],
        "detail": {"file_path": "/data/a"},
        "outcome": "failed",
        "reason": "ticket 4711",
        "subject": "ann",
        "target": "upload:u-1",
        "token_id": "token-1",
    }


async def test_records_are_listed_newest_first_page_by_page_and_by_each_filter(sql_database: Database) -> None:
    for number in range(7):
        act = Act.JOB_PAUSE if number % 2 else Act.UPLOAD_TRIGGER
        facts = {"target": f"job:{number}", "clients": [f"c-{number % 3}", "all"]}
        await add(sql_database, act, 1_000.0 + number, **facts)
    await sql_database.write(
        lambda records: record(records, Principal("bob"), Act.OBJECT_URL, 2_000.0, outcome=Outcome.DENIED)
    )

    def targets(found: Iterable[AuditRecord]) -> list[str]:
        return [one.document["target"].removeprefix("job:") for one in found]

    assert targets(await listed(sql_database, 3)) == ["", "6", "5", "4", "3", "2", "1", "0"]
    assert targets(await listed(sql_database, 2, act=Act.JOB_PAUSE)) == ["5", "3", "1"]
    assert targets(await listed(sql_database, 2, client_id="c-1")) == ["4", "1"]
    assert targets(await listed(sql_database, 4, client_id="all", since=1_002.0, until=1_005.0)) == ["4", "3", "2"]
    assert targets(await listed(sql_database, subject="bob")) == [""]
    assert targets(await listed(sql_database, target="job:3")) == ["3"]
    assert targets(await listed(sql_database, outcome=Outcome.DENIED)) == [""]


async def test_a_record_is_stored_with_its_act_or_neither_is(sql_database: Database) -> None:
    def work(records: Records) -> None:
        record(records, ANN, Act.GROUP_DELETE, 1_000.0)
        message = "the act failed"
        raise DatabaseUnavailable(message)

    with pytest.raises(ServiceError):
        await sql_database.write(work)
    assert await listed(sql_database) == []
    await add(sql_database)
    assert [one.number for one in await listed(sql_database)] == [1]


async def test_writers_at_the_same_time_have_chains_of_their_own_that_are_whole(sql_database: Database) -> None:
    await asyncio.gather(*(add(sql_database, at=float(number)) for number in range(60)))
    logged: list[tuple[str, dict[str, object]]] = []
    clock = FakeClock()
    await a_keeper(sql_database, clock, logged).sign()
    report = await report_of(sql_database)
    assert report.is_sound
    assert report.records == 61


async def test_a_checkpoint_is_made_of_each_chain_with_new_records_and_of_no_other(sql_database: Database) -> None:
    logged: list[tuple[str, dict[str, object]]] = []
    clock = FakeClock()
    keeper = a_keeper(sql_database, clock, logged)
    assert await keeper.sign() == 0
    await add(sql_database)
    assert await keeper.sign() == 1
    assert await keeper.sign() == 0
    ((event, facts),) = logged
    assert event == "audit.checkpoint"
    (one,) = await listed(sql_database)
    checkpoint = Checkpoint.parse(SIGNER.verifier.verify(str(facts["note"])))
    assert (checkpoint.writer, checkpoint.size, checkpoint.head) == (one.writer, 1, one.hash)


CHANGES: dict[str, str] = {
    "a text is changed": "UPDATE audit SET body = replace(body, 'ann', 'bob') WHERE number = 2",
    "a record is deleted": "DELETE FROM audit WHERE number = 2",
    "the last record is deleted": "DELETE FROM audit WHERE number = 3",
    "the head is moved back": "UPDATE audit_chains SET number = 2",
    "the checkpoint is deleted": "DELETE FROM audit_checkpoints",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_chain_that_was_changed_in_the_database_is_reported_and_not_signed(
    sql_database: Database, change: str
) -> None:
    logged: list[tuple[str, dict[str, object]]] = []
    keeper = a_keeper(sql_database, FakeClock(), logged)
    await add(sql_database)
    await keeper.sign()
    # Both in one transaction: one thread, one chain.
    entry = AuditEntry(at=1_001.0, act=Act.JOB_PAUSE, subject="ann")
    (one,) = await listed(sql_database)
    await sql_database.write(both(entry, one.writer))
    await sql_database.write(lambda records: executed(records, CHANGES[change]))
    logged.clear()
    assert await keeper.sign() == 0
    assert [event for event, _ in logged] == ["audit.broken"]


async def test_the_checkpoint_of_another_chain_is_none_of_this_one(sql_database: Database) -> None:
    """It has the right signature, so a chain that was made anew could begin with it."""
    entry = AuditEntry(at=1_000.0, act=Act.JOB_PAUSE, subject="ann")
    for writer in ("0-0", "g-0"):
        await sql_database.write(both(entry, writer))
    await a_keeper(sql_database, FakeClock(), []).sign()
    for statement in (
        "UPDATE audit_checkpoints SET note = (SELECT note FROM audit_checkpoints WHERE writer = 'g-0')",
        "UPDATE audit_chains SET hash = (SELECT hash FROM audit_chains WHERE writer = 'g-0')",
        "DELETE FROM audit WHERE writer = '0-0'",
    ):
        await sql_database.write(lambda records, statement=statement: executed(records, statement))  # type: ignore[misc]
    await sql_database.write(both(entry, "0-0"))
    logged: list[tuple[str, dict[str, object]]] = []
    assert await a_keeper(sql_database, FakeClock(), logged).sign() == 0
    assert [(event, facts["writer"]) for event, facts in logged] == [("audit.broken", "0-0")]


async def test_a_checkpoint_of_another_key_hides_no_change_of_what_this_process_signed(sql_database: Database) -> None:
    logged: list[tuple[str, dict[str, object]]] = []
    keeper = a_keeper(sql_database, FakeClock(), logged)
    entry = AuditEntry(at=1_000.0, act=Act.JOB_PAUSE, subject="ann")
    await sql_database.write(both(entry, "0-0"))
    await keeper.sign()
    for statement in (
        "DELETE FROM audit_checkpoints",
        "UPDATE audit_chains SET number = 0, hash = (SELECT previous FROM audit WHERE number = 1)",
        "DELETE FROM audit",
    ):
        await sql_database.write(lambda records, statement=statement: executed(records, statement))  # type: ignore[misc]
    for _ in range(2):
        await sql_database.write(both(msgspec.structs.replace(entry, subject="bob"), "0-0"))
    third = (await sql_database.read(lambda records: records.audit.after("0-0", 2, 1)))[0]
    note = OTHER.sign(Checkpoint("backhaul/test/audit/0-0", 3, third.hash, "1970-01-01T00:16:40.000Z").text)
    forged = StoredCheckpoint("0-0", 3, 1_000.0, note, OTHER.verifier.text)
    await sql_database.write(lambda records: records.audit.add_checkpoint(forged))
    logged.clear()
    assert await keeper.sign() == 0
    assert [event for event, _ in logged] == ["audit.broken"]


async def test_a_chain_that_another_process_signed_too_is_signed_also_once_its_beginning_is_pruned(
    sql_database: Database,
) -> None:
    """As with two replicas that have a key each: the one that is slower finds the checkpoint of the other one."""
    clock = FakeClock()
    entry = AuditEntry(at=1_000.0, act=Act.JOB_PAUSE, subject="ann")
    slow, other = a_keeper(sql_database, clock, []), a_keeper(sql_database, clock, [], signer=OTHER)
    for keeper, pruned in ((slow, 0), (other, 0), (slow, 0), (other, 0), (other, 6), (slow, 0)):
        await sql_database.write(both(entry, "0-0"))
        if pruned:
            assert await keeper.sign() == 1
            await sql_database.write(both(entry, "0-0"))
            clock.time += 5_000
            assert await keeper.prune() > pruned
        assert await keeper.sign() == 1


def both(entry: AuditEntry, writer: str) -> Callable[[Records], None]:
    """Two more records on the chain of `writer`, also where another thread has this transaction."""

    def work(records: Records) -> None:
        before = adapter.WRITERS
        adapter.WRITERS = Named(writer)  # type: ignore[misc, assignment]
        try:
            records.audit.add(entry)
            records.audit.add(entry)
        finally:
            adapter.WRITERS = before  # type: ignore[misc]

    return work


class Named:
    """The one writer of a test."""

    def __init__(self, name: str) -> None:
        self.own = name


def executed(records: Records, statement: str) -> None:
    """Run SQL as an attacker with the database's password."""
    records.audit._transaction.connection.execute(text(statement))  # type: ignore[attr-defined]


async def test_pruning_keeps_the_checkpoint_that_the_rest_follows(sql_database: Database) -> None:
    logged: list[tuple[str, dict[str, object]]] = []
    clock = FakeClock()
    keeper = a_keeper(sql_database, clock, logged)
    await add(sql_database, clients=["a"])
    (first,) = await listed(sql_database)
    entry = AuditEntry(at=1_000.0, act=Act.JOB_PAUSE, subject="ann")
    await sql_database.write(both(entry, first.writer))
    await keeper.sign()
    clock.time += 900
    await sql_database.write(both(entry, first.writer))
    await keeper.sign()
    clock.time += 200
    assert await keeper.prune() == 3
    assert await keeper.prune() == 0
    chain = next(one for one in (await report_of(sql_database)).chains if one.writer == first.writer)
    assert (chain.first, chain.problems) == (4, ())
    assert "no checkpoint" not in " ".join(chain.notes)
    assert await listed(sql_database, client_id="a") == []


async def test_how_far_the_audit_is_signed_is_that_of_the_newest_checkpoint_of_all_chains(
    sql_database: Database,
) -> None:
    clock = FakeClock()
    bucket = AwayAtTimes()
    service, keeper = AuditService(sql_database, clock, "key"), a_keeper(sql_database, clock, [], bucket)
    assert await service.signed(ANN) == AuditSigned(None, None, 0)
    await sql_database.write(both(AuditEntry(at=clock.time, act=Act.JOB_PAUSE, subject="ann"), "0-0"))
    waiting = await service.signed(ANN)
    assert (waiting.checkpoint, waiting.unsigned > 0) == (None, True)
    await keeper.sign()
    clock.time += 60
    await add(sql_database)
    bucket.away = True
    await keeper.sign()
    last = await service.signed(ANN)
    assert last.checkpoint is not None
    assert (last.checkpoint.at, last.sent_at, last.unsigned) == (clock.time, None, 0)
    bucket.away = False
    clock.time += 5
    await keeper.sign()
    assert (await service.signed(ANN)).sent_at == clock.time
    with pytest.raises(Forbidden):
        await service.signed(Principal("ben", clients="site=berlin"))


async def test_what_no_checkpoint_signs_is_not_pruned(sql_database: Database) -> None:
    clock = FakeClock()
    keeper = a_keeper(sql_database, clock, [])
    await add(sql_database)
    clock.time += 5_000
    assert await keeper.prune() == 0


@pytest.mark.parametrize("body", ["no JSON", "[1]", "{}", '{"at": 1, "act": []}'])
async def test_a_record_that_was_made_unreadable_ends_no_export_and_is_found_by_the_check_and_the_list(
    sql_database: Database, body: str
) -> None:
    clock = FakeClock()
    for _ in range(2):
        await sql_database.write(both(AuditEntry(at=clock.time, act=Act.JOB_PAUSE, subject="ann"), "0-0"))
    await a_keeper(sql_database, clock, []).sign()
    change = "UPDATE audit SET body = 'BODY' WHERE number = 2".replace("BODY", body)
    await sql_database.write(lambda records: executed(records, change))
    for since in (None, 1_000.0):
        exported = [one async for one in await AuditService(sql_database, clock, "key").export(ANN, since)]
        export = Export.read(export_line(one, "here") for one in exported)
        report = checked(export, [SIGNER.verifier.text], [])
        (chain,) = [one for one in report.chains if one.writer == "0-0"]
        assert "record 2 was changed: its hash is not that of its text" in chain.problems
        assert chain.last == 4
    found, cursor = await AuditService(sql_database, clock, "key").records(ANN, AuditFilter(), Page(10, None))
    page = AuditPage.of(found, cursor, "key", AuditSigned(None, None, 0), None)
    assert page.unreadable == ["0-0/2"]
    assert {(one.writer, one.number) for one in page.records} >= {("0-0", 1), ("0-0", 3), ("0-0", 4)}


async def test_what_is_written_and_signed_while_an_export_is_read_does_not_look_missing(sql_database: Database) -> None:
    """Records are exported before the checkpoints: one that signs later records is not of this export."""
    clock = FakeClock()
    keeper = a_keeper(sql_database, clock, [])
    entry = AuditEntry(at=clock.time, act=Act.JOB_PAUSE, subject="ann")
    # The first and the last chain in the order of an export.
    for writer in ("0-0", "g-0"):
        await sql_database.write(both(entry, writer))
    exported = await AuditService(sql_database, clock, "key").export(ANN)
    found = [await anext(exported)]
    clock.time += 60
    await sql_database.write(both(entry, "0-0"))
    assert await keeper.sign() == 3
    found += [one async for one in exported]
    records = [one for one in found if isinstance(one, AuditRecord)]
    report = verify(records, [one.note for one in found if isinstance(one, StoredCheckpoint)], [SIGNER.verifier])
    assert report.is_sound, report
    assert report.records == 5


async def test_an_export_has_the_checkpoint_of_records_that_were_deleted(sql_database: Database) -> None:
    clock = FakeClock()
    keeper = a_keeper(sql_database, clock, [])
    await add(sql_database)
    (one,) = await listed(sql_database)
    await sql_database.write(both(AuditEntry(at=clock.time, act=Act.JOB_PAUSE, subject="ann"), one.writer))
    await keeper.sign()
    await sql_database.write(lambda records: executed(records, "DELETE FROM audit WHERE number = 3"))
    clock.time += 1
    exported = [one async for one in await AuditService(sql_database, clock, "key").export(ANN)]
    assert 3 in {one.number for one in exported if isinstance(one, StoredCheckpoint)}


async def test_without_a_bucket_old_checkpoints_are_pruned_and_with_one_only_after_they_are_there(
    sql_database: Database,
) -> None:
    async def kept(keeper: AuditKeeper) -> list[int]:
        await keeper.prune()
        some = await sql_database.read(lambda records: records.audit.checkpoints("", 0, 100))
        return [one.number for one in some if one.writer == writer]

    clock = FakeClock()
    keeper = a_keeper(sql_database, clock, [])
    await add(sql_database)
    (first,) = await listed(sql_database)
    writer = first.writer
    for _ in range(3):
        await keeper.sign()
        clock.time += 100
        await sql_database.write(both(AuditEntry(at=clock.time, act=Act.JOB_PAUSE, subject="ann"), writer))
    clock.time += 5_000
    assert await kept(a_keeper(sql_database, clock, [], bucket=LostBucket())) == [1, 3, 5]
    assert await kept(keeper) == [5]


class AwayAtTimes:
    """A bucket that takes a checkpoint unless it is `away`."""

    away = False

    async def put(self, writer: str, number: int, note: str) -> None:
        if self.away:
            message = f"no place for {writer}/{number} of {len(note)} bytes"
            raise ObjectStoreDown(message)


class LostBucket:
    """A bucket that takes nothing."""

    async def put(self, writer: str, number: int, note: str) -> None:
        raise ObjectStoreDown(writer)


async def test_denials_are_written_and_a_flood_of_them_is_counted(sql_database: Database) -> None:
    denials = Denials(sql_database, FakeClock(), lambda event, facts: None)
    denials.denied(ANN, "192.0.2.7", "GET", "/audit", 403)
    for _ in range(MOST + 4):
        denials.denied(None, "192.0.2.9", "GET", "/jobs", 401)
    await denials.flush()
    await denials.flush()
    found = [one.document for one in await listed(sql_database)]
    assert len(found) == MOST + 2
    assert {one["outcome"] for one in found} == {"denied"}
    assert [one["detail"] for one in found if "more" in one["detail"]] == [{"more": 4}]
    assert [one["detail"]["status"] for one in found if one["subject"] == "ann"] == [403]


async def test_a_flood_of_denials_that_does_not_end_takes_a_bounded_part_of_the_disk(sql_database: Database) -> None:
    """Strangers in each second of an hour; who is known is recorded all the same."""
    clock = FakeClock()
    denials = Denials(sql_database, clock, lambda event, facts: None)
    denials._strangers._left = 100.0
    for second in range(3_600):
        for _ in range(MOST):
            denials.denied(None, "192.0.2.9", "GET", "/jobs", 401)
        if second % 60 == 0:
            denials.denied(ANN, "192.0.2.7", "GET", "/audit", 403)
            await denials.flush()
        denials._strangers.begin()
        denials._known.begin()
        clock.time += 1
    clock.time += COUNTED_EVERY
    await denials.flush()
    found = [one.document for one in await listed(sql_database)]
    counted = sum(one["detail"]["more"] for one in found if "more" in one["detail"])
    each = [one for one in found if one["subject"] == "" and "more" not in one["detail"]]
    assert len(each) + counted == 3_600 * MOST
    assert len(each) <= 100 + A_DAY / 24 + 1
    assert len([one for one in found if "more" in one["detail"]]) <= 61
    assert len([one for one in found if one["subject"] == "ann"]) == 60


async def test_a_denial_is_written_once_where_the_process_ends_in_the_middle_of_it(sql_database: Database) -> None:
    begun = asyncio.Event()

    class Slow:
        """A transaction that runs in its thread while the task that waits for it ends."""

        async def write(self, work: Callable[[Records], T]) -> T:
            running = asyncio.ensure_future(sql_database.write(work))
            await asyncio.wait([running])
            if not begun.is_set():
                begun.set()
                await asyncio.sleep(3_600)
            return await running

    denials = Denials(Slow(), FakeClock(), lambda event, facts: None)  # type: ignore[arg-type]
    denials.denied(ANN, "192.0.2.7", "GET", "/audit", 403)
    running = asyncio.create_task(denials.run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(await listed(sql_database)) == 1


async def test_denials_that_the_database_does_not_take_are_written_later(sql_database: Database) -> None:
    class Down:
        async def write(self, work: Callable[[Records], T]) -> T:
            message = "down"
            raise DatabaseUnavailable(message)

    denials = Denials(Down(), FakeClock(), lambda event, facts: None)  # type: ignore[arg-type]
    for _ in range(MOST + 4):
        denials.denied(None, None, "GET", "/jobs", 401)
    await denials.flush()
    denials._database = sql_database
    await denials.flush()
    found = [one.document["detail"] for one in await listed(sql_database)]
    assert (len(found), [one["more"] for one in found if "more" in one]) == (MOST + 1, [4])
