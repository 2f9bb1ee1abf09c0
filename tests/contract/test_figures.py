"""The figures of the fleet: right, and read through indexes alone, at any size of the history."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Pool, event
from sqlalchemy.dialects import sqlite

from control_plane.adapters.database import SqlDatabase, migrate
from control_plane.adapters.database.sql import Statement
from control_plane.adapters.database.watching import figures
from control_plane.domain.jobs.model import ExecutionState, JobState
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import State
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.figures import Figures
from tests.support.databases import a_client, an_entry, an_upload, migrated, sql_database
from tests.support.jobs import NOW, a_job, an_execution
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

MANY = 100_000
STEP = 100
MOST_STEPS = 100_000
"""Instructions of SQLite's machine; a walk over the executions takes several for each."""


async def test_an_empty_database_has_figures(sql_database: Database) -> None:
    found = await sql_database.read(lambda records: records.figures.read(NOW))
    assert found == Figures(uploads=dict.fromkeys(found.uploads, 0))
    assert set(found.uploads) == {State.QUEUED, State.DISPATCHED, State.IN_PROGRESS, State.COMPLETING}


async def test_the_figures_are_those_of_what_is_open(sql_database: Database) -> None:
    """What is over is not counted."""

    def work(records: Records) -> Figures:
        records.clients.save([a_client("restaurant-1", online=True), a_client("restaurant-2", online=False)])
        for created_at in (NOW - 300, NOW - 100):
            records.uploads.add(an_upload(created_at=created_at, state=State.QUEUED, held=False))
        held = an_upload(state=State.IN_PROGRESS, held=True, reason=Reason(ReasonCode.OUTSIDE_WINDOW, "closed"))
        records.uploads.add(held)
        records.uploads.add(an_upload(state=State.FAILED, held=False))
        records.outbox.put(an_entry(held.key, due_at=NOW - 40))
        for job in (a_job("open"), a_job("over", state=JobState.COMPLETED, ended_at=NOW, next_wake_at=None)):
            records.jobs.add(job)
            records.jobs.executions.add(
                [
                    an_execution(job.job_id, "restaurant-1"),
                    an_execution(job.job_id, "restaurant-2"),
                    an_execution(
                        job.job_id,
                        "restaurant-3",
                        state=ExecutionState.QUEUED,
                        reason=Reason(ReasonCode.RETRYING, "again"),
                    ),
                ]
            )
        return records.figures.read(NOW)

    found = await sql_database.write(work)
    assert (found.clients_online, found.clients_offline) == (1, 1)
    assert found.uploads[State.QUEUED] == 2
    assert found.oldest[State.QUEUED] == NOW - 300
    assert found.held == {ReasonCode.OUTSIDE_WINDOW: 1}
    assert found.jobs == {JobState.RUNNING: 1}
    assert found.executions == {("queued", "created"): 2, ("queued", "retrying"): 1}
    assert found.due_at == NOW - 40


def test_no_query_walks_a_table(tmp_path: Path) -> None:
    """Each goes through an index, or over a table of sums or of schedules."""
    path = tmp_path / "backhaul.db"
    migrate(f"sqlite:///{path}")
    statements = [value for value in vars(figures).values() if isinstance(value, Statement)]
    assert len(statements) >= 9
    with sqlite3.connect(path) as connection:
        for statement in statements:
            text, constants = statement.compiled(sqlite.dialect())
            wanted = {"state": "queued", "since": 0.0}
            plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", {**wanted, **constants}).fetchall()
            walked = [row[3] for row in plan if row[3].startswith("SCAN") and "INDEX" not in row[3]]
            assert [
                line for line in walked if "schedules" not in line and "some_" not in line and "anon_" not in line
            ] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_figures_of_a_hundred_thousand_executions_take_milliseconds(tmp_path: Path) -> None:
    """20 ms on a quiet machine. What is bounded is the work of SQLite, which is the same on every machine."""
    database = SqlDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}")

    def fill(records: Records) -> None:
        records.jobs.add(a_job("large"))
        records.jobs.executions.add([an_execution("large", f"client-{n:06}") for n in range(MANY)])
        records.clients.save([a_client(f"client-{n:06}", online=bool(n % 3)) for n in range(10_000)])

    await database.write(fill)
    steps: list[None] = []

    def watch(used: sqlite3.Connection, *_: object) -> None:
        used.set_progress_handler(lambda: steps.append(None), STEP)

    event.listen(Pool, "checkout", watch)
    try:
        found = await database.read(lambda records: records.figures.read(NOW))
    finally:
        event.remove(Pool, "checkout", watch)
    await database.close()
    assert found.executions == {("queued", "created"): MANY}
    assert 0 < len(steps) * STEP < MOST_STEPS
