"""Coverage on a real database: cells follow executions, missing ones heal, and a report costs what its page costs."""

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Never

import pytest
from msgspec.structs import replace
from sqlalchemy import event

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.access import Principal
from control_plane.domain.jobs.model import ExecutionState
from control_plane.domain.jobs.spec import JobSpec, Targets
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.schedules.coverage import MAX_HEALS
from control_plane.domain.schedules.model import CatchUp, CellState
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.schedules import service
from control_plane.services.schedules.advance import JobMachine
from tests.support.schedules import HOUR, START, TICK_JOB, Site, a_schedule, cancel

FIRST, SECOND = START + HOUR, START + 2 * HOUR
JOB_1, JOB_2 = "sales.20261125T110000Z", "sales.20261125T120000Z"
HEAL_1, HEAL_2 = "sales.heal.20261125T110000Z", "sales.heal.20261125T120000Z"
FAILED, SUCCEEDED, TIMED_OUT = ExecutionState.FAILED, ExecutionState.SUCCEEDED, ExecutionState.TIMED_OUT
ANN: Final = Principal("ann")


@pytest.fixture
async def site(sql_database: Database) -> Site:
    """A schedule that ticked once: two clients, both pending."""
    site = Site(sql_database)
    await site.add(a_schedule(job=TICK_JOB, overlap="allow", catch_up=CatchUp(runs="all")))
    site.clock.forward(HOUR)
    await site.settle()
    return site


async def miss(site: Site, job_id: str, *client_ids: str) -> None:
    """The executions of these clients end without a file, a minute later; then the clients are looked at."""
    site.clock.forward(60)
    for client_id in client_ids:
        await site.end_execution(job_id, client_id, TIMED_OUT, ReasonCode.DEADLINE_PASSED)
    await site.runner.cover()


async def test_the_clients_that_were_matched_have_a_cell(site: Site) -> None:
    assert await site.cells() == {(FIRST, "till-1"): CellState.PENDING, (FIRST, "till-2"): CellState.PENDING}


@pytest.mark.parametrize(
    ("state", "reason", "cell"),
    [
        (SUCCEEDED, ReasonCode.SENT, CellState.PROVEN),
        (ExecutionState.SKIPPED, ReasonCode.UNCHANGED, CellState.UNCHANGED),
        (ExecutionState.SKIPPED, ReasonCode.NO_MATCH, CellState.EMPTY),
        (FAILED, ReasonCode.NO_MATCH, CellState.MISSING),
        (TIMED_OUT, ReasonCode.DEADLINE_PASSED, CellState.MISSING),
        (ExecutionState.PARTIAL, ReasonCode.FILES_FAILED, CellState.MISSING),
    ],
)
async def test_a_cell_follows_the_end_of_its_execution(
    site: Site, state: ExecutionState, reason: str, cell: CellState
) -> None:
    await site.end_execution(JOB_1, "till-1", state, reason)
    await site.runner.cover()
    assert await site.cells() == {(FIRST, "till-1"): cell, (FIRST, "till-2"): CellState.PENDING}
    await site.runner.cover()
    assert (await site.cells())[FIRST, "till-1"] is cell


async def test_an_end_that_was_committed_before_a_crash_is_found_by_the_next_process(site: Site) -> None:
    await site.end_execution(JOB_1, "till-1", SUCCEEDED)
    again = Site(site.database, site.clock)
    await again.runner.cover()
    assert (await again.cells())[FIRST, "till-1"] is CellState.PROVEN


async def test_an_end_by_a_clock_that_went_back_is_found(site: Site) -> None:
    await site.end_execution(JOB_1, "till-1", SUCCEEDED, at=START - HOUR)
    await site.runner.cover()
    assert (await site.cells())[FIRST, "till-1"] is CellState.PROVEN


async def test_an_execution_that_a_person_retried_heals_its_cell(site: Site) -> None:
    await miss(site, JOB_1, "till-1")
    site.clock.forward(60)
    await site.end_execution(JOB_1, "till-1", SUCCEEDED)
    await site.runner.cover()
    assert (await site.cells())[FIRST, "till-1"] is CellState.HEALED


async def test_a_client_with_a_missing_cell_that_connects_gets_one_execution(site: Site) -> None:
    await miss(site, JOB_1, "till-1", "till-2")
    site.clock.forward(60)
    await site.connect("till-1")
    await site.runner.cover()
    job = await site.job(HEAL_1)
    assert (job.spec.targets, job.schedule_id, job.kind, job.nominal_at) == (
        Targets(clients=("till-1",)),
        "sales",
        "heal",
        FIRST,
    )
    await site.runner.cover()
    assert set(await site.jobs()) == {JOB_1, HEAL_1}
    await site.end_execution(HEAL_1, "till-1", SUCCEEDED)
    await site.runner.cover()
    assert await site.cells() == {(FIRST, "till-1"): CellState.HEALED, (FIRST, "till-2"): CellState.MISSING}
    assert set(await site.jobs()) == {JOB_1, HEAL_1}


async def test_a_client_heals_its_cells_oldest_first_one_at_a_time(site: Site) -> None:
    site.clock.forward(HOUR)
    await site.settle()
    await miss(site, JOB_2, "till-1")
    await miss(site, JOB_1, "till-1")
    site.clock.forward(60)
    await site.connect("till-1")
    await site.runner.cover()
    assert set(await site.jobs()) == {JOB_1, JOB_2, HEAL_1}
    await site.end_execution(HEAL_1, "till-1", SUCCEEDED)
    await site.runner.cover()
    assert set(await site.jobs()) == {JOB_1, JOB_2, HEAL_1, HEAL_2}
    cells = await site.cells()
    assert (cells[FIRST, "till-1"], cells[SECOND, "till-1"]) == (CellState.HEALED, CellState.MISSING)


async def test_clients_that_connect_together_heal_in_one_job(site: Site) -> None:
    await miss(site, JOB_1, "till-1", "till-2")
    site.clock.forward(60)
    await site.connect("till-1", "till-2")
    await site.runner.cover()
    assert (await site.job(HEAL_1)).spec.targets.clients == ("till-1", "till-2")


async def test_a_client_that_failed_and_was_connected_all_the_time_is_not_asked_again(site: Site) -> None:
    await site.connect("till-1")
    site.clock.forward(60)
    await site.end_execution(JOB_1, "till-1", FAILED, ReasonCode.NO_MATCH)
    await site.runner.cover()
    assert (await site.cells())[FIRST, "till-1"] is CellState.MISSING
    assert set(await site.jobs()) == {JOB_1}


async def test_a_client_that_is_connected_and_whose_job_was_over_before_is_asked_again(site: Site) -> None:
    """The control plane was down until the deadline had passed, and the connection to the broker lasted."""
    await site.connect("till-1")
    await miss(site, JOB_1, "till-1")
    assert set(await site.jobs()) == {JOB_1, HEAL_1}


async def test_a_healing_that_fails_is_tried_at_the_next_connection_and_not_for_ever(site: Site) -> None:
    await miss(site, JOB_1, "till-1")
    for n in range(1, MAX_HEALS + 3):
        site.clock.forward(60)
        await site.connect("till-1")
        await site.runner.cover()
        name = HEAL_1 if n == 1 else f"{HEAL_1}-{n}"
        if n > MAX_HEALS:
            assert name not in await site.jobs()
            continue
        site.clock.forward(60)
        await site.end_execution(name, "till-1", FAILED, ReasonCode.NO_MATCH)
        await site.runner.cover()
        assert (await site.cells())[FIRST, "till-1"] is CellState.MISSING
    assert len(await site.jobs()) == 1 + MAX_HEALS


async def test_a_cell_older_than_within_is_not_healed(site: Site) -> None:
    await miss(site, JOB_1, "till-1")
    site.clock.forward(8 * 86_400.0)
    await site.connect("till-1")
    await site.runner.cover()
    assert HEAL_1 not in await site.jobs()


@pytest.mark.parametrize("state", [ExecutionState.CANCELLED, ExecutionState.REMOVED, ExecutionState.REJECTED])
async def test_what_a_person_or_the_device_refused_is_not_healed(site: Site, state: ExecutionState) -> None:
    await site.end_execution(JOB_1, "till-1", state, ReasonCode.BY_OPERATOR)
    await site.runner.cover()
    site.clock.forward(60)
    await site.connect("till-1")
    await site.runner.cover()
    assert (await site.cells())[FIRST, "till-1"] is CellState.MISSING
    assert set(await site.jobs()) == {JOB_1}


async def test_nothing_is_healed_while_the_schedule_is_paused(site: Site) -> None:
    await miss(site, JOB_1, "till-1")
    await site.service.pause(ANN, "sales", "stocktaking")
    site.clock.forward(60)
    await site.connect("till-1")
    await site.runner.cover()
    assert set(await site.jobs()) == {JOB_1}
    await site.service.resume(ANN, "sales")
    await site.runner.cover()
    assert set(await site.jobs()) == {JOB_1, HEAL_1}


async def test_two_replicas_heal_a_cell_once(site: Site) -> None:
    await miss(site, JOB_1, "till-1", "till-2")
    site.clock.forward(60)
    await site.connect("till-1", "till-2")
    other = Site(site.database, site.clock)
    await other.runner.cover()
    await site.runner.cover()
    assert set(await site.jobs()) == {JOB_1, HEAL_1}


async def test_a_healing_job_that_cannot_be_made_is_given_up(site: Site) -> None:
    """It stops neither the coverage nor the healing of another schedule."""
    await miss(site, JOB_1, "till-1")

    site.clock.forward(60)
    await site.connect("till-1")
    site.runner._coverage._jobs = JobMachine(_refuse, cancel)
    await site.runner.cover()
    assert site.lines[-1] == ("schedule.refused", {"schedule_id": "sales", "error": HEAL_1})
    lines = len(site.lines)
    await site.runner.cover()
    assert len(site.lines) == lines


async def test_backfilled_ticks_have_cells_and_manual_runs_have_none(site: Site) -> None:
    await site.service.run_now(ANN, "sales")
    await site.service.backfill(ANN, "sales", START - HOUR, START)
    await site.settle()
    assert {at for at, _ in await site.cells()} == {FIRST, START - HOUR}


async def test_a_page_of_a_long_span_has_fewer_clients(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand ticks, five hundred clients have half a million cells."""
    monkeypatch.setattr(service, "MAX_CELLS", 1)
    first = (await site.service.coverage(ANN, "sales", Page(500))).clients
    second = (await site.service.coverage(ANN, "sales", Page(500, first[1]))).clients
    assert [[client_id for client_id, _ in found] for found, _ in (first, second)] == [["till-1"], ["till-2"]]
    assert second[1] is None


async def test_the_cells_of_a_deleted_schedule_are_gone(site: Site) -> None:
    await site.service.delete(ANN, "sales")
    assert await site.cells() == {}
    await site.runner.cover()
    assert JOB_1 in await site.jobs()


async def test_cells_older_than_the_history_are_deleted_with_their_sums(site: Site) -> None:
    await site.end_execution(JOB_1, "till-1", SUCCEEDED)
    await site.runner.cover()
    site.clock.forward(91 * 86_400.0)
    await site.runner.prune()
    # The other one is still pending: its job may be extended.
    assert set(await site.cells()) <= {(FIRST, "till-2")}


async def test_a_report_names_every_tick_and_who_is_missing(site: Site) -> None:
    await site.end_execution(JOB_1, "till-1", SUCCEEDED)
    await miss(site, JOB_1, "till-2")
    await site.service.pause(ANN, "sales", "stocktaking")
    site.clock.forward(HOUR)
    await site.settle()
    report = await site.service.coverage(ANN, "sales", Page())
    assert [(one.tick.at, one.run and one.run.status, one.counts) for one in report.ticks] == [
        (FIRST, "fired", {CellState.PROVEN: 1, CellState.MISSING: 1}),
        (SECOND, "paused", {}),
    ]
    missing = await site.service.coverage(ANN, "sales", Page(), state=CellState.MISSING)
    ((name, cells),) = missing.clients[0]
    assert (name, [(cell.nominal_at, cell.reason_code) for cell in cells]) == ("till-2", [(FIRST, "deadline_passed")])


async def test_a_report_has_pages_of_clients(site: Site) -> None:
    first = await site.service.coverage(ANN, "sales", Page(1))
    second = await site.service.coverage(ANN, "sales", Page(1, first.clients[1]))
    assert [name for name, _ in (*first.clients[0], *second.clients[0])] == ["till-1", "till-2"]
    assert second.clients[1] is None


@dataclass(slots=True)
class Counted:
    """A database on SQLite, and the instructions that its reading connections have run, in tens."""

    database: SqlDatabase
    tens: int = 0

    def count(self) -> int:
        self.tens += 1
        return 0


@pytest.fixture
async def counted(tmp_path: Path) -> AsyncIterator[Counted]:
    counted = Counted(SqlDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}"))

    def watch(connection: sqlite3.Connection, _: object) -> None:
        connection.set_progress_handler(counted.count, 10)

    event.listen(counted.database._reading, "connect", watch)
    yield counted
    await counted.database.close()


async def test_a_report_costs_what_its_page_costs(counted: Counted) -> None:
    """The sums are read, not counted: with ten times as many clients the database runs the same instructions.

    How long that takes is measured by `benchmarks`.
    """
    costs = []
    for name, clients in (("warm", 40), ("few", 40), ("many", 400)):
        site = Site(counted.database)
        job = replace(TICK_JOB, targets=Targets(clients=tuple(f"restaurant-{n:05}" for n in range(clients))))
        await site.add(a_schedule(name, job=job, overlap="allow", catch_up=CatchUp(runs="all")))
        for _ in range(5):
            site.clock.forward(HOUR)
            await site.settle()
        before = counted.tens
        report = await site.service.coverage(ANN, name, Page(20))
        costs.append(counted.tens - before)
        assert [sum(one.counts.values()) for one in report.ticks] == [clients] * 5
        assert len(report.clients[0]) == 20
    _, few, many = costs
    assert few > 100
    assert many < 1.1 * few, costs


def _refuse(
    _records: Records,
    job_id: str,
    _spec: JobSpec,
    _now: float,
    _created_by: str,
    _schedule: tuple[str, str, float] | None,
) -> Never:
    raise BadInput(job_id)
