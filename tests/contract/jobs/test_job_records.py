"""What a database promises about jobs, executions and files.

Rule: only the port is used.
"""

from collections.abc import Sequence
from typing import Final

import pytest
from msgspec.structs import replace

from control_plane.adapters.database.sql import Statement, Transaction, Values
from control_plane.domain.jobs.model import (
    ExecutionKey,
    ExecutionState,
    FileOutcome,
    Job,
    JobState,
    JobTotals,
)
from control_plane.domain.jobs.spec import Targets
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.services.errors import BadInput, KeyTaken, VersionConflict
from control_plane.services.ports.database import PARKED, Database, Page, Records
from control_plane.services.ports.jobs import ExecutionFilter, FileFilter, JobFilter, ProvenFile, Settlement, Tally
from tests.support.databases import migrated, sql_database
from tests.support.jobs import NOW, a_file, a_job, a_spec, an_execution
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

FAILED: Final = Reason("file_not_found", "gone")


async def stored(database: Database, *jobs: Job, clients: int = 0) -> None:
    def work(records: Records) -> None:
        for job in jobs:
            records.jobs.add(job)
            records.jobs.executions.add([an_execution(job.job_id, f"c{n:05}") for n in range(clients)])

    await database.write(work)


async def test_a_job_comes_back_as_it_was(sql_database: Database) -> None:
    job = a_job(
        spec=a_spec(targets=Targets(selector="site=berlin", mode="continuous"), metadata={"ticket": "OPS-112"}),
        ending=JobState.ABORTED,
        state=JobState.CANCELLING,
        reason=FAILED,
        nominal_at=3.0,
        schedule_id="s",
        kind="tick",
        next_wake_at=5.0,
    )
    await stored(sql_database, job)
    assert await sql_database.read(lambda records: records.jobs.get(job.job_id)) == job
    assert await sql_database.read(lambda records: records.jobs.some([job.job_id, "other"])) == {job.job_id: job}
    with pytest.raises(KeyTaken):
        await stored(sql_database, job)


async def test_a_job_is_saved_by_its_version(sql_database: Database) -> None:
    job = a_job()
    await stored(sql_database, job)
    paused = replace(job, state=JobState.PAUSED)
    saved = await sql_database.write(lambda records: records.jobs.save(job, paused))
    assert saved == replace(paused, version=1)
    with pytest.raises(VersionConflict):
        await sql_database.write(lambda records: records.jobs.save(job, paused))


async def test_jobs_are_listed_newest_first_in_pages(sql_database: Database) -> None:
    jobs = [a_job(created_at=NOW + n, state=JobState.PAUSED if n % 2 else JobState.RUNNING) for n in range(5)]
    await stored(sql_database, *jobs)
    first, cursor = await sql_database.read(lambda records: records.jobs.list(JobFilter(), Page(3)))
    rest, end = await sql_database.read(lambda records: records.jobs.list(JobFilter(), Page(3, cursor)))
    assert [*first, *rest] == jobs[::-1]
    assert end is None
    where = JobFilter(states=frozenset({JobState.PAUSED}))
    assert await sql_database.read(lambda records: records.jobs.list(where, Page())) == ([jobs[3], jobs[1]], None)
    with pytest.raises(BadInput):
        await sql_database.read(lambda records: records.jobs.list(JobFilter(), Page(3, "nonsense")))


async def test_due_jobs_come_by_priority_and_end_with_the_job(sql_database: Database) -> None:
    low, high = a_job(next_wake_at=NOW - 9), a_job(spec=a_spec(priority=5), next_wake_at=NOW)
    later, over = a_job(next_wake_at=NOW + 50), a_job(state=JobState.COMPLETED, ended_at=NOW, next_wake_at=NOW)
    await stored(sql_database, low, high, later, over)
    assert await sql_database.read(lambda records: records.jobs.due(NOW, 10)) == [high, low]
    await sql_database.write(lambda records: records.jobs.wake([later.job_id, over.job_id], NOW))
    due = await sql_database.read(lambda records: records.jobs.due(NOW, 10))
    assert [job.job_id for job in due] == [high.job_id, low.job_id, later.job_id]
    assert await sql_database.read(lambda records: records.jobs.next_due()) == NOW - 9


async def test_ten_thousand_executions_are_inserted_in_one_statement(
    sql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, rows = a_job(), list[int]()
    run_each = Transaction.run_each

    def noted(self: Transaction, statement: Statement, values: Sequence[Values]) -> None:
        rows.append(len(values))
        run_each(self, statement, values)

    monkeypatch.setattr(Transaction, "run_each", noted)
    await stored(sql_database, job, clients=10_000)
    assert (max(rows), len(rows) < 10) == (10_000, True)
    assert await sql_database.read(lambda records: records.jobs.counts(job.job_id)) == {
        (ExecutionState.QUEUED, "created"): 10_000
    }
    assert len(await sql_database.read(lambda records: records.jobs.executions.clients(job.job_id))) == 10_000


async def test_counts_follow_every_change_of_executions(sql_database: Database) -> None:
    job = a_job()
    await stored(sql_database, job, clients=5)
    listing, failed = ExecutionState.LISTING, ExecutionState.FAILED

    def work(records: Records) -> None:
        rows = records.jobs.executions.queued(job.job_id, NOW, 1.0, 3)
        begun = records.jobs.executions.save([(one, replace(one, state=listing)) for one in rows])
        over = replace(begun[0], state=failed, reason=FAILED, due_at=None)
        records.jobs.executions.save([(begun[0], over), (begun[1], replace(begun[1], asks=1))])

    await sql_database.write(work)
    counts = await sql_database.read(lambda records: records.jobs.counts(job.job_id))
    assert counts == {
        (ExecutionState.QUEUED, "created"): 2,
        (listing, "created"): 2,
        (failed, "file_not_found"): 1,
    }
    assert await sql_database.read(lambda records: records.jobs.recounted(job.job_id)) == counts
    assert await sql_database.read(lambda records: records.jobs.counts_of([job.job_id, "x"])) == {
        job.job_id: counts,
        "x": {},
    }


async def test_an_execution_is_saved_by_its_version_and_comes_back_as_it_was(sql_database: Database) -> None:
    job = a_job()
    await stored(sql_database, job)
    before = an_execution(job.job_id)
    after = replace(
        before,
        state=ExecutionState.UPLOADING,
        ending=ExecutionState.CANCELLED,
        selection="s",
        next_index=3,
        approved=True,
        listing_left=4.5,
        files=2,
        bytes=2**40,
    )
    await sql_database.write(lambda records: records.jobs.executions.add([before]))
    saved = await sql_database.write(lambda records: records.jobs.executions.save([(before, after)]))
    key = before.key
    assert saved == [replace(after, version=1)]
    assert await sql_database.read(lambda records: records.jobs.executions.some([key])) == {key: saved[0]}
    with pytest.raises(VersionConflict):
        await sql_database.write(lambda records: records.jobs.executions.save([(before, after)]))


async def test_what_began_is_due_and_what_is_queued_waits_for_its_job(sql_database: Database) -> None:
    job = a_job()
    await stored(sql_database, job)
    queued = an_execution(job.job_id, "queued", place=0.4)
    far = an_execution(job.job_id, "far", place=0.9)
    asked = an_execution(job.job_id, "asked", state=ExecutionState.LISTING, due_at=NOW - 1, place=0.7)
    parked = an_execution(job.job_id, "parked", due_at=PARKED, place=0.1)
    over = an_execution(job.job_id, "over", state=ExecutionState.FAILED, due_at=None, place=0.8)
    await sql_database.write(lambda records: records.jobs.executions.add([queued, far, asked, parked, over]))
    executions = await sql_database.read(
        lambda records: (
            records.jobs.executions.due(NOW, 9),
            records.jobs.executions.next_due(),
            records.jobs.executions.queued(job.job_id, NOW, 0.5, 9),
            records.jobs.executions.next_queued(job.job_id, 1.0),
            records.jobs.executions.nth_place(job.job_id, 2),
        )
    )
    assert executions == ([asked], NOW - 1, [queued], NOW, 0.4)
    still_open = await sql_database.read(lambda records: records.jobs.executions.all_open(job.job_id, 9))
    assert {one.client_id for one in still_open} == {"queued", "far", "asked", "parked"}


async def test_a_client_that_connects_wakes_its_executions_and_their_jobs(sql_database: Database) -> None:
    job = a_job(next_wake_at=NOW + 500)
    await stored(sql_database, job)
    parked = an_execution(job.job_id, "a", due_at=PARKED)
    await sql_database.write(lambda records: records.jobs.executions.add([parked, replace(parked, client_id="b")]))
    assert await sql_database.write(lambda records: records.jobs.executions.wake(["a", "c"], NOW)) == 1
    assert await sql_database.read(lambda records: records.jobs.next_due()) == NOW
    due = await sql_database.read(lambda records: records.jobs.executions.queued(job.job_id, NOW, 1.0, 9))
    assert [one.client_id for one in due] == ["a"]
    assert [one.client_id for one in await sql_database.read(lambda r: r.jobs.executions.of_client("b"))] == ["b"]


async def test_executions_are_listed_by_client_in_pages(sql_database: Database) -> None:
    job = a_job()
    await stored(sql_database, job, clients=7)
    where = ExecutionFilter(job.job_id, states=frozenset({ExecutionState.QUEUED}), reason_code=ReasonCode.CREATED)
    first, cursor = await sql_database.read(lambda records: records.jobs.executions.list(where, Page(4)))
    rest, end = await sql_database.read(lambda records: records.jobs.executions.list(where, Page(4, cursor)))
    assert [one.client_id for one in [*first, *rest]] == [f"c{n:05}" for n in range(7)]
    assert end is None
    only = ExecutionFilter(job.job_id, client_ids=frozenset({"c00002", "x"}), listed_before=NOW)
    assert await sql_database.read(lambda records: records.jobs.executions.matching(only)) == []


async def test_files_are_counted_settled_and_left_out(sql_database: Database) -> None:
    job = a_job()
    await stored(sql_database, job)
    execution = an_execution(job.job_id, state=ExecutionState.UPLOADING, due_at=NOW + 9)
    files = [a_file(execution, n, upload_id=f"u{n}" if n < 4 else None) for n in range(1, 6)]
    key = execution.key

    def begin(records: Records) -> None:
        records.jobs.executions.add([execution])
        records.jobs.files.add(files)
        records.jobs.files.settle(
            [
                Settlement(job.job_id, "restaurant-1", 1, "u1", FileOutcome.PROVEN, None, "k/1"),
                Settlement(job.job_id, "restaurant-1", 2, "u2", FileOutcome.FAILED, FAILED, "k/2"),
                Settlement(job.job_id, "restaurant-1", 3, "an earlier upload", FileOutcome.FAILED, FAILED, "k/3"),
            ]
        )

    await sql_database.write(begin)
    other = ExecutionKey(job.job_id, "other")
    tally = await sql_database.read(lambda records: records.jobs.files.tally([key, other]))
    assert tally[key] == Tally(open=1, pending=2, proven=1, proven_bytes=100, failed=1, worst=FAILED)
    assert tally[other] == Tally()
    assert await sql_database.read(lambda records: records.jobs.files.open([key])) == {key: [files[2]]}
    assert await sql_database.read(lambda records: records.jobs.files.pending(key, 1)) == [files[3]]
    due = await sql_database.read(lambda records: records.jobs.executions.due(NOW, 9))
    assert [one.client_id for one in due] == ["restaurant-1"]
    await sql_database.write(lambda records: records.jobs.files.give_up([key], FileOutcome.LEFT_OUT, FAILED))
    left = FileFilter(job.job_id, outcomes=frozenset({FileOutcome.LEFT_OUT}))
    found, _ = await sql_database.read(lambda records: records.jobs.files.list(left, Page()))
    assert [one.n for one in found] == [4, 5]
    await sql_database.write(lambda records: records.jobs.files.drop(files[3:]))
    assert [one.n for one in await sql_database.read(lambda records: records.jobs.files.of(key))] == [1, 2, 3]


async def test_files_are_listed_in_pages(sql_database: Database) -> None:
    job = a_job()
    await stored(sql_database, job)
    files = [a_file(an_execution(job.job_id, client), n) for client in ("a", "b") for n in (1, 2)]
    await sql_database.write(lambda records: records.jobs.files.add(files))
    where = FileFilter(job.job_id)
    first, cursor = await sql_database.read(lambda records: records.jobs.files.list(where, Page(3)))
    rest, end = await sql_database.read(lambda records: records.jobs.files.list(where, Page(3, cursor)))
    assert ([*first, *rest], end) == (files, None)
    of_b = FileFilter(job.job_id, client_id="b", undecided=True)
    assert await sql_database.read(lambda records: records.jobs.files.list(of_b, Page())) == (files[2:], None)


async def test_what_was_proven_is_known_within_its_scope(sql_database: Database) -> None:
    file = a_file(an_execution("j", "a"))
    await sql_database.write(lambda records: records.jobs.files.note_proven("key:k", [replace(file, size=7), file]))
    known = await sql_database.read(lambda records: records.jobs.files.proven("a", "key:k", [file.path, "/other"]))
    assert known == {file.path: ProvenFile(file.size, file.mtime_ns)}
    assert await sql_database.read(lambda records: records.jobs.files.proven("a", "key:x", [file.path])) == {}


async def test_sums_are_added_up(sql_database: Database) -> None:
    job = a_job()
    await stored(sql_database, job)
    assert await sql_database.read(lambda records: records.jobs.totals(job.job_id)) == JobTotals()
    await sql_database.write(lambda records: records.jobs.add_to_totals(job.job_id, JobTotals(2, 10)))
    after = await sql_database.write(lambda records: records.jobs.add_to_totals(job.job_id, JobTotals(1, 5, 1, 4)))
    assert after == JobTotals(3, 15, 1, 4)


async def test_what_lies_too_far_ahead_is_made_due(sql_database: Database) -> None:
    job = a_job(next_wake_at=NOW + 9_000)
    await stored(sql_database, job)
    rows = [
        an_execution(job.job_id, "queued", due_at=NOW + 9_000),
        an_execution(job.job_id, "asked", due_at=NOW + 9_000, state=ExecutionState.LISTING),
        an_execution(job.job_id, "parked", due_at=PARKED),
        an_execution(job.job_id, "soon", due_at=NOW + 10, state=ExecutionState.LISTING),
    ]
    await sql_database.write(lambda records: records.jobs.executions.add(rows))
    assert await sql_database.write(lambda records: records.jobs.pull_in(NOW + 3_660, NOW)) == 3
    assert await sql_database.read(lambda records: records.jobs.next_due()) == NOW
    due = await sql_database.read(lambda records: records.jobs.executions.due(NOW, 9))
    assert [one.client_id for one in due] == ["asked"]
    queued = await sql_database.read(lambda records: records.jobs.executions.queued(job.job_id, NOW, 1.0, 9))
    assert [one.client_id for one in queued] == ["queued"]


async def test_an_old_job_is_deleted_with_its_rows(sql_database: Database) -> None:
    old, young = a_job(state=JobState.COMPLETED, ended_at=NOW), a_job(state=JobState.COMPLETED, ended_at=NOW + 9)
    await stored(sql_database, old, young, clients=3)
    await sql_database.write(lambda records: records.jobs.files.add([a_file(an_execution(old.job_id))]))
    while await sql_database.write(lambda records: records.jobs.prune(NOW + 1, 2)):
        pass
    assert await sql_database.read(lambda records: records.jobs.get(old.job_id)) is None
    assert await sql_database.read(lambda records: records.jobs.recounted(old.job_id)) == {}
    assert await sql_database.read(lambda records: records.jobs.files.list(FileFilter(old.job_id), Page())) == (
        [],
        None,
    )
    assert len(await sql_database.read(lambda records: records.jobs.executions.clients(young.job_id))) == 3


async def test_a_run_without_a_report_is_found_until_it_is_reported(sql_database: Database) -> None:
    ended = a_job(state=JobState.COMPLETED, ended_at=NOW, run=2, reported=1)
    old = a_job(state=JobState.COMPLETED, ended_at=NOW - 100, run=1)
    await stored(sql_database, ended, old, a_job(), a_job(state=JobState.COMPLETED, ended_at=NOW, reported=1))
    find = lambda records: records.jobs.unreported(NOW - 10, 5)  # noqa: E731
    assert await sql_database.read(find) == [ended]
    await sql_database.write(lambda records: records.jobs.save(ended, replace(ended, reported=2)))
    assert await sql_database.read(find) == []
