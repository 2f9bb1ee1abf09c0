"""What every database promises to a caller with a reach: lists and sums of the known clients that it selects.

Rule: only the port is used; the predicate of the domain is the measure.
"""

import functools

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection

from control_plane.adapters.database import reach as reach_conditions
from control_plane.domain.changes import ClientForgotten
from control_plane.domain.clients import Client
from control_plane.domain.jobs.model import ExecutionState, JobTotals
from control_plane.domain.jobs.spec import Targets
from control_plane.domain.schedules.model import CellState
from control_plane.domain.selectors import Selector, parse
from control_plane.domain.uploads.model import State
from control_plane.services.jobs.creation import create_job
from control_plane.services.ports.database import Database, Page, Records, UploadFilter
from control_plane.services.ports.jobs import ExecutionFilter, FileFilter, JobFilter
from control_plane.services.ports.schedules import CellFilter
from tests.support.databases import a_client, an_upload, database, migrated, sql_database
from tests.support.jobs import a_spec
from tests.support.postgres import postgres
from tests.support.schedules import a_schedule

__all__ = ["database", "migrated", "postgres", "sql_database"]

NOW = 2_000_000.0
SITES = ("berlin", "munich", None)
SELECTORS = (
    "site=berlin",
    "site in (berlin,munich),ring",
    "ring",
    "!ring",
    "site!=berlin",
    "site notin (berlin,munich)",
    "!site,!ring",
    "site=rome",
)


def fleet(count: int) -> list[Client]:
    """Clients of two sites and of none, every second one in a ring."""
    found = []
    for n in range(count):
        site = SITES[n % 3]
        labels = ({} if site is None else {"site": site}) | ({"ring": "beta"} if n % 2 else {})
        found.append(a_client(f"c-{n:04}", labels=labels, set_labels={}, online=True, seen_at=NOW, epoch=1))
    return found


def expected(clients: list[Client], selector: str) -> list[str]:
    reach = parse(selector)
    return [one.client_id for one in clients if reach.matches(one.effective_labels)]


@pytest.mark.parametrize("count", [12, 620])
async def test_uploads_are_listed_of_the_reach_however_many_clients_it_has(database: Database, count: int) -> None:
    """Of few clients by their ids, of many by looking at the newest; one that is not known is in no reach."""
    clients = fleet(count)
    uploads = [
        an_upload(one.client_id, upload_id=f"u-{n:04}", created_at=NOW + n, state=State.QUEUED)
        for n, one in enumerate([*clients, a_client("unknown")])
    ]

    def work(records: Records) -> None:
        records.clients.save(clients)
        for upload in uploads:
            records.uploads.add(upload)

    await database.write(work)
    for selector in SELECTORS:
        ids = expected(clients, selector)
        for states in (None, frozenset({State.QUEUED, State.FAILED}))[: 2 if selector in SELECTORS[:2] else 1]:
            where = UploadFilter(states=states, reach=parse(selector))
            seen, cursor = [], None
            while True:
                page = Page(100, cursor)
                found, cursor = await database.read(lambda records, w=where, p=page: records.uploads.list(w, p))  # type: ignore[misc]
                seen += [one.client_id for one in found]
                if cursor is None:
                    break
            assert seen == ids[::-1], selector


@pytest.mark.parametrize("few", [1, 2_000])
async def test_clients_are_listed_and_counted_of_the_reach(
    database: Database, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of few clients and of many; a set of ids is the same as one by one."""
    monkeypatch.setattr(reach_conditions, "FEW", few)
    clients = fleet(36)
    every = [one.client_id for one in clients]
    await database.write(lambda records: records.clients.save(clients))
    for selector in (*SELECTORS, "", "ring,site!=berlin", "ring=beta,!site,site!=rome"):
        ids, reach = expected(clients, selector), parse(selector)
        seen, cursor = [], None
        while True:
            page = Page(5, cursor)
            found = await database.read(lambda records, r=reach, p=page: records.clients.list(p, None, r))  # type: ignore[misc]
            seen += [one.client_id for one in found[0]]
            assert found[2] == len(ids), selector
            if (cursor := found[1]) is None:
                break
        assert seen == ids, selector
        for asked in (["unknown", *every[::-1]], ["unknown", *every[::-1]] * 60):
            chosen = await database.read(lambda records, r=reach, a=asked: records.clients.selected(a, r))  # type: ignore[misc]
            assert list(chosen) == [one for one in asked if one in ids], selector


@pytest.mark.parametrize("few", [1, 2_000])
async def test_sums_over_the_fleet_are_those_of_the_reach(
    sql_database: Database, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach_conditions, "FEW", few)
    clients = [*fleet(12), a_client("c-never", install_id="", labels={"site": "berlin"}, set_labels={}, online=False)]

    def store(records: Records) -> None:
        records.clients.save(clients)
        for one in [*clients, a_client("unknown")]:
            records.uploads.add(an_upload(one.client_id, upload_id=f"o-{one.client_id}", state=State.QUEUED))
            ended = an_upload(one.client_id, upload_id=f"e-{one.client_id}", updated_at=NOW, error="no_space")
            records.uploads.add(replace(ended, state=State.FAILED))

    await sql_database.write(store)

    def read(records: Records, reach: Selector) -> tuple[object, ...]:
        overview = records.overview
        presences = overview.presences(reach)
        opened = overview.open_uploads("control-plane", 100, reach)
        ended = overview.ended(NOW - 1, NOW + 1, reach)
        return (
            presences.total,
            presences.never_seen,
            sorted(row[0] for row in presences.online),
            sorted(one.key.client_id for one in opened),
            overview.count_open(reach)[State.QUEUED],
            ended[State.FAILED].count if State.FAILED in ended else 0,
            dict(overview.errors(NOW - 1, 3, reach)),
        )

    for selector in SELECTORS:
        ids = expected(clients, selector)
        count = len(ids)
        online = [one for one in ids if one != "c-never"]
        wanted = (count, count - len(online), online, ids, count, count, {"no_space": count} if count else {})
        assert await sql_database.read(functools.partial(read, reach=parse(selector))) == wanted, selector


async def test_a_reach_is_measured_once_a_minute_and_what_is_found_is_right_meanwhile(
    sql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a query is made may be out of date, what it finds may not."""
    measured, sizes = reach_conditions.measured, []

    def noted(connection: Connection, reach: Selector, most: int) -> bool:
        sizes.append(measured(connection, reach, most))
        return sizes[-1]

    async def found() -> list[str]:
        where = UploadFilter(reach=parse("site=berlin"))
        rows, _ = await sql_database.read(lambda records: records.uploads.list(where, Page(500)))
        return sorted(one.client_id for one in rows)

    async def add(clients: list[Client]) -> None:
        def work(records: Records) -> None:
            records.clients.save(clients)
            for one in clients:
                records.uploads.add(an_upload(one.client_id, upload_id=f"u-{one.client_id}"))

        await sql_database.write(work)

    monkeypatch.setattr(reach_conditions, "measured", noted)
    clients = fleet(900)
    await add(clients[:3])
    assert await found() == ["c-0000"]
    await add(clients[3:])
    for _ in range(2):
        assert await found() == expected(clients, "site=berlin")
    assert sizes == [True]
    monkeypatch.setattr(reach_conditions, "_KNOWN_FOR", 0.0)
    reach_conditions._known.clear()
    assert await found() == expected(clients, "site=berlin")
    assert sizes == [True, False]


@pytest.mark.parametrize("few", [1, 2_000])
async def test_jobs_and_coverage_are_those_of_the_reach(
    sql_database: Database, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach_conditions, "FEW", few)
    clients = fleet(12)

    def store(records: Records) -> None:
        records.clients.save(clients)
        create_job(records, "every", a_spec(), NOW, "ann", client_ids=[one.client_id for one in clients])
        waiting = Targets(selector="new", mode="continuous", reach="site in (berlin)")
        create_job(records, "waiting", a_spec(targets=waiting), NOW - 1, "ann", client_ids=[])
        records.schedules.add(a_schedule("sales", NOW - 7_200))
        records.coverage.add("sales", NOW, "every", now=NOW, watch_until=NOW + 1)

    await sql_database.write(store)

    def read(records: Records, reach: Selector) -> tuple[object, ...]:
        jobs, coverage = records.jobs, records.coverage
        counts, totals = jobs.sums_within(["every", "waiting"], reach).get("every", ({}, JobTotals()))
        return (
            [job.job_id for job in jobs.list(JobFilter(reach=reach), Page())[0]],
            sum(counts.values()),
            totals,
            list(jobs.executions.client_ids(ExecutionFilter("every", reach=reach))),
            [one.client_id for one in jobs.executions.list(ExecutionFilter("every", reach=reach), Page())[0]],
            list(jobs.files.list(FileFilter("every", reach=reach), Page())[0]),
            jobs.goes_beyond("every", reach),
            coverage.counts_within("sales", NOW, NOW, reach),
            [client_id for client_id, _ in coverage.list(CellFilter("sales", NOW, NOW, reach=reach), Page())[0]],
            sorted(coverage.covering(reach)),
        )

    for selector in SELECTORS:
        ids = expected(clients, selector)
        made = ["waiting"] if selector == SELECTORS[0] else []
        wanted: tuple[object, ...] = (
            ["every", *made] if ids else made,
            len(ids),
            JobTotals(),
            ids,
            ids,
            [],
            len(ids) < len(clients),
            {NOW: {CellState.PENDING: len(ids)}} if ids else {},
            ids,
            ["sales"] if ids else [],
        )
        assert await sql_database.read(functools.partial(read, reach=parse(selector))) == wanted, selector


async def test_a_job_goes_beyond_a_reach_by_executions_of_known_clients(sql_database: Database) -> None:
    clients, reach = fleet(4), parse("site=berlin")

    def store(records: Records) -> None:
        records.clients.save(clients)
        create_job(records, "own", a_spec(), NOW, "ann", client_ids=["c-0000", "c-0001", "c-0003"])

    def end(records: Records) -> None:
        for one in records.jobs.executions.of_client("c-0001"):
            ended = replace(one, state=ExecutionState.FAILED, due_at=None, ended_at=NOW)
            records.jobs.executions.save([(one, ended)])

    async def beyond() -> tuple[bool, bool]:
        return await sql_database.read(
            lambda records: (
                records.jobs.goes_beyond("own", reach),
                records.jobs.goes_beyond("own", reach, open_only=True),
            )
        )

    await sql_database.write(store)
    assert await beyond() == (True, True)
    await sql_database.write(end)
    assert await beyond() == (True, False)
    await sql_database.write(lambda records: records.clients.delete("c-0001"))
    assert await beyond() == (False, False)


async def test_what_a_client_left_is_found_when_it_is_no_client_any_more(database: Database) -> None:
    many = [f"c-{n:04}" for n in range(600)]

    def store(records: Records) -> None:
        records.uploads.add(an_upload("c-0001"))
        records.changes.append([ClientForgotten(at=NOW, client_id="c-0599")])

    await database.write(store)
    assert await database.read(lambda records: records.clients.left_rows([*many, "x"])) == {"c-0001", "c-0599"}
    assert await database.read(lambda records: records.clients.left_rows([])) == frozenset()
