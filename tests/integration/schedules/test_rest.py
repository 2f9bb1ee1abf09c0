"""Schedules over REST, on SQLite in memory: shapes, versions, verbs, refusals."""

from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
from pydantic import BaseModel

from control_plane.api.jobs.bodies import NewJob
from control_plane.api.schedules import bodies, examples, models
from control_plane.domain.changes import ScheduleChanged
from control_plane.domain.jobs.model import ExecutionState
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.schedules.model import RunStatus
from tests.support.fake_services import FakeServices, http_to, make_api
from tests.support.job_rig import InlineDatabase
from tests.support.schedules import HOUR, Site

JOB: Final[dict[str, Any]] = {"targets": {"clients": ["till-1"]}, "files": {"paths": ["/data/*.csv"]}}
TICK_JOB: Final[dict[str, Any]] = {
    "targets": {"clients": ["till-1", "till-2"]},
    "files": {"paths": ["/data/{tick:%Y%m%d}.csv"]},
}
HOURLY: Final[dict[str, Any]] = {"schedule_id": "sales", "every": "1h", "job": JOB}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    database = InlineDatabase()
    yield Site(database)
    await database.close()


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    api = make_api(FakeServices())
    api.state.schedules = site.service
    async with http_to(api) as client:
        yield client


async def test_a_schedule_is_created_shown_listed_and_deleted(http: httpx.AsyncClient) -> None:
    made = await http.post("/schedules", json={**examples.NEW_SCHEDULE, "schedule_id": "sales"})
    assert (made.status_code, made.headers["Location"], made.headers["ETag"]) == (201, "/schedules/sales", '"1"')
    document = made.json()
    assert {name: document[name] for name in ("cron", "every", "zone", "overlap", "catch_up", "jitter")} == {
        "cron": "0 3 * * *",
        "every": None,
        "zone": "Europe/Berlin",
        "overlap": "allow",
        "catch_up": {"within": "1w", "runs": "all"},
        "jitter": "10m",
    }
    assert document["next_at"] == "2026-11-26T02:00:00.000Z"
    shown = await http.get("/schedules/sales")
    assert (shown.json(), shown.headers["ETag"]) == (document, '"1"')
    page = (await http.get("/schedules")).json()
    assert page["schedules"] == [{name: document[name] for name in models.ScheduleRow.model_fields}]
    assert (await http.delete("/schedules/sales")).status_code == 204
    assert (await http.get("/schedules/sales")).status_code == 404
    assert (await http.delete("/schedules/sales")).json()["type"] == "/help/reasons/unknown-schedule"


async def test_the_job_that_is_shown_is_accepted_again(http: httpx.AsyncClient) -> None:
    document = (await http.post("/schedules", json={**examples.NEW_SCHEDULE, "schedule_id": "sales"})).json()
    again = NewJob.model_validate(document["job"])
    assert again.spec(0.0) == bodies.NewSchedule.model_validate(examples.NEW_SCHEDULE).spec().job


async def test_the_same_request_is_the_same_schedule(http: httpx.AsyncClient) -> None:
    assert (await http.post("/schedules", json=HOURLY)).status_code == 201
    assert (await http.post("/schedules", json={**HOURLY, "every": 3600})).status_code == 200
    other = await http.post("/schedules", json={**HOURLY, "every": "2h"})
    assert (other.status_code, other.json()["type"]) == (409, "/help/reasons/key-taken")


async def test_a_dry_run_makes_nothing(http: httpx.AsyncClient) -> None:
    answer = await http.post("/schedules?dry_run=true", json=HOURLY)
    assert (answer.status_code, answer.json()["schedule_id"]) == (200, "sales")
    assert (await http.get("/schedules")).json()["schedules"] == []


async def test_a_dry_run_shows_the_next_ticks_with_the_changes_of_the_clocks(http: httpx.AsyncClient) -> None:
    """The clocks of Berlin go forward on 2027-03-28: 02:30 does not exist on that day."""
    yearly = {"schedule_id": "yearly", "cron": "30 2 28 3 *", "zone": "Europe/Berlin", "job": JOB}
    document = (await http.post("/schedules?dry_run=true", json=yearly)).json()
    assert (document["dry_run"], len(document["ticks"])) == (True, 10)
    (changed,) = [tick for tick in document["ticks"] if tick["at"].startswith("2027")]
    assert (changed["local"], "does not exist" in changed["note"]) == ("2027-03-28T03:00:00+02:00", True)
    again = await http.post("/schedules?dry_run=true", json={**yearly, "cron": "30 2 28 2 *"})
    assert [tick["note"] for tick in again.json()["ticks"]] == [None] * 10


async def test_changes_of_a_schedule_are_appended_to_the_change_log(site: Site, http: httpx.AsyncClient) -> None:
    """A repeat that changes nothing appends nothing."""
    await http.post("/schedules", json=HOURLY)
    await http.post("/schedules", json=HOURLY)
    await http.post("/schedules/sales/pause")
    await http.post("/schedules/sales/pause")
    await http.delete("/schedules/sales")
    found = await site.database.read(lambda records: records.changes.after(0, 100))
    assert [type(one.change) for one in found] == [ScheduleChanged] * 3


@pytest.mark.parametrize(
    ("job", "overlap", "runs", "min_files"),
    [(JOB, "skip", "latest", None), (TICK_JOB, "allow", "all", 1)],
    ids=["without tick", "with tick"],
)
async def test_what_is_left_out_follows_from_tick(
    http: httpx.AsyncClient, job: dict[str, Any], overlap: str, runs: str, min_files: int | None
) -> None:
    document = (await http.post("/schedules", json={**HOURLY, "job": job, "zone": "Europe/Berlin"})).json()
    assert (document["overlap"], document["catch_up"]["runs"]) == (overlap, runs)
    assert (document["job"]["files"]["min_files"], document["job"]["zone"]) == (min_files, "Europe/Berlin")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"every": None, "cron": "0 0 30 2 *"}, "cron: is '0 0 30 2 *', which never fires"),
        ({"every": None, "cron": "61 * * * *"}, "cron: is '61 * * * *', which cannot be read: bad minute"),
        ({"every": None, "cron": "0 3 * *"}, "five fields: minute, hour, day of month, month, day of week"),
        ({"every": "59s"}, "every: must be whole seconds, from 1m to 366d"),
        ({"every": "often"}, "every: must be a duration such as 24h"),
        ({"cron": "0 3 * * *"}, "give one of cron and every"),
        ({"every": None}, "give one of cron and every"),
        ({"zone": "Mars/Base"}, "zone: is 'Mars/Base': no such time zone is known"),
        ({"jitter": "2d"}, "jitter: must be at most 1 day"),
        ({"catch_up": {"within": "91d"}}, "catch_up.within: must be at most 90 days"),
        ({"catch_up": {"runs": "some"}}, "catch_up.runs: input should be 'all', 'latest' or 'none'"),
        ({"overlap": "replace"}, "overlap: input should be 'skip', 'queue_one', 'cancel_running' or 'allow'"),
        ({"pause_after_failures": 0}, "pause_after_failures: input should be greater than or equal to 1"),
        ({"schedule_id": "x" * 35}, "schedule_id: must be 1 to 34 of"),
        ({"schedule_id": "a/b"}, "schedule_id: must be 1 to 34 of"),
        ({"job": {**JOB, "deadline": "2026-11-27T18:00:00Z"}}, "job.deadline must be a duration"),
        ({"job": {"targets": {"clients": []}, "files": {"paths": ["/a"]}}}, "job.targets: names no client"),
        ({"tick": 1}, "tick: extra inputs are not permitted"),
    ],
)
async def test_a_bad_request_has_one_clear_error(http: httpx.AsyncClient, change: dict[str, Any], why: str) -> None:
    body = {name: value for name, value in {**HOURLY, **change}.items() if value is not None}
    answer = await http.post("/schedules", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/help/reasons/bad-input")
    assert why in answer.json()["detail"]


async def test_a_replacement_needs_the_version_that_it_replaces(http: httpx.AsyncClient) -> None:
    await http.post("/schedules", json=HOURLY)
    body = {"every": "2h", "job": JOB}
    assert (await http.put("/schedules/sales", json=body)).status_code == 428
    stale = await http.put("/schedules/sales", json=body, headers={"If-Match": '"7"'})
    assert stale.status_code == 412
    assert (await http.put("/schedules/sales", json=body, headers={"If-Match": "x"})).status_code == 422
    done = await http.put("/schedules/sales", json=body, headers={"If-Match": '"1"'})
    assert (done.status_code, done.headers["ETag"], done.json()["every"]) == (200, '"2"', "2h")
    assert (await http.put("/schedules/none", json=body, headers={"If-Match": '"1"'})).status_code == 404


async def test_a_replaced_cadence_ticks_from_now_on(http: httpx.AsyncClient, site: Site) -> None:
    """Ticks that were due by the old one are accounted for first."""
    await http.post("/schedules", json=HOURLY)
    site.clock.forward(2 * HOUR)
    body = {"every": "5m", "job": JOB}
    refused = await http.put("/schedules/sales", json=body, headers={"If-Match": '"1"'})
    assert (refused.status_code, "accounted for" in refused.json()["detail"]) == (422, True)
    await site.settle()
    assert (await http.put("/schedules/sales", json=body, headers={"If-Match": '"1"'})).status_code == 200
    site.clock.forward(300)
    await site.settle()
    assert [run.nominal_at for run in await site.runs()][-1] == site.clock.now()
    assert len(await site.runs()) == 3


async def test_pause_with_a_note_and_resume(http: httpx.AsyncClient, site: Site) -> None:
    await http.post("/schedules", json=HOURLY)
    paused = (await http.post("/schedules/sales/pause", json={"note": "stocktaking"})).json()
    assert (paused["paused"], paused["note"], paused["version"]) == (True, "stocktaking", 2)
    again = (await http.post("/schedules/sales/pause")).json()
    assert (again["note"], again["version"]) == ("stocktaking", 2)
    site.clock.forward(HOUR)
    await site.settle()
    resumed = (await http.post("/schedules/sales/resume")).json()
    assert (resumed["paused"], resumed["note"], resumed["paused_at"]) == (False, "", None)
    assert (await http.post("/schedules/sales/resume")).json()["version"] == resumed["version"]
    assert await site.statuses() == [RunStatus.PAUSED]


async def test_skip_next_skips_one_tick_also_when_it_is_repeated(http: httpx.AsyncClient, site: Site) -> None:
    await http.post("/schedules", json=HOURLY)
    first = (await http.post("/schedules/sales/skip-next")).json()
    assert (first["skip_at"], first["next_at"]) == ("2026-11-25T11:00:00.000Z", "2026-11-25T12:00:00.000Z")
    assert (await http.post("/schedules/sales/skip-next")).json()["skip_at"] == first["skip_at"]
    for _ in range(2):
        site.clock.forward(HOUR)
        await site.settle()
    assert await site.statuses() == [RunStatus.SKIPPED_BY_OPERATOR, RunStatus.FIRED]
    assert (await http.get("/schedules/sales")).json()["skip_at"] is None


async def test_run_now_makes_a_job_each_time_and_moves_no_tick(http: httpx.AsyncClient, site: Site) -> None:
    await http.post("/schedules", json=HOURLY)
    before = (await http.get("/schedules/sales")).json()["next_at"]
    await http.post("/schedules/sales/pause")
    answers = [await http.post("/schedules/sales/run-now") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    first, second = (answer.json()["job_id"] for answer in answers)
    assert answers[0].headers["Location"] == f"/jobs/{first}"
    assert (first, second) == ("sales.manual.20261125T100000Z", "sales.manual.20261125T100000.001Z")
    assert (await site.job(first)).kind == "manual"
    document = (await http.get("/schedules/sales")).json()
    assert (document["next_at"], document["running"]) == (before, [first, second])


async def test_a_job_that_cannot_be_made_now_is_refused(http: httpx.AsyncClient, site: Site) -> None:
    job = {**JOB, "targets": {"clients": ["unknown"]}}
    await http.post("/schedules", json={**HOURLY, "job": job})
    answer = await http.post("/schedules/sales/run-now")
    assert (answer.status_code, answer.json()["detail"]) == (422, "no job could be made: client 'unknown' is not known")
    assert await site.runs() == []
    assert await site.jobs() == {}


async def test_backfill_runs_oldest_first_one_at_a_time(http: httpx.AsyncClient, site: Site) -> None:
    await http.post("/schedules", json=HOURLY)
    span = {"from": "2026-11-25T07:00:00Z", "to": "2026-11-25T09:30:00Z"}
    assert (await http.post("/schedules/sales/backfill", json=span)).json() == {"queued": 3, "left_out": 0}
    assert (await http.post("/schedules/sales/backfill", json=span)).json() == {"queued": 0, "left_out": 3}
    for n in range(3):
        await site.settle()
        statuses = await site.statuses()
        assert statuses == [RunStatus.BACKFILLED] * (n + 1) + [RunStatus.QUEUED] * (2 - n)
        await site.end_job((await site.runs())[n].job_id)
    assert (await site.runs())[0].job_id == "sales.backfill.20261125T070000Z"


async def test_backfill_leaves_out_ticks_that_have_a_job(http: httpx.AsyncClient, site: Site) -> None:
    await http.post("/schedules", json=HOURLY)
    site.clock.forward(HOUR)
    await site.settle()
    span = {"from": "2026-11-25T10:00:00Z", "to": "2026-11-25T11:00:00Z"}
    assert (await http.post("/schedules/sales/backfill", json=span)).json() == {"queued": 1, "left_out": 1}


@pytest.mark.parametrize(
    ("span", "why"),
    [
        ({"from": "2026-11-25T08:00:00Z", "to": "2026-11-25T07:00:00Z"}, "must end after it begins"),
        ({"from": "2026-11-25T08:00:00Z", "to": "2026-11-26T07:00:00Z"}, "not in the future"),
        ({"from": "2026-11-25T08:10:00Z", "to": "2026-11-25T08:20:00Z"}, "no tick in this span"),
        ({"from": "2016-11-25T08:10:00Z", "to": "2026-11-25T08:20:00Z"}, "more than 10000 ticks"),
        ({"from": "yesterday", "to": "2026-11-25T08:20:00Z"}, "from: must be an RFC 3339 instant"),
        ({"from": "2026-02-30T08:10:00Z", "to": "2026-11-25T08:20:00Z"}, "from: day is out of range for month"),
    ],
)
async def test_a_span_that_cannot_be_backfilled_is_refused(
    http: httpx.AsyncClient, span: dict[str, str], why: str
) -> None:
    await http.post("/schedules", json=HOURLY)
    answer = await http.post("/schedules/sales/backfill", json=span)
    assert (answer.status_code, why in answer.json()["detail"]) == (422, True), answer.json()


async def test_a_preview_shows_utc_local_time_and_the_change_of_the_clocks(http: httpx.AsyncClient, site: Site) -> None:
    site.clock.forward(120 * 86_400.0)
    await http.post(
        "/schedules", json={"schedule_id": "sales", "cron": "30 2 * * *", "zone": "Europe/Berlin", "job": JOB}
    )
    found = (await http.get("/schedules/sales/preview", params={"count": 5})).json()["ticks"]
    assert len(found) == 5
    assert {
        "at": "2027-03-28T01:00:00.000Z",
        "local": "2027-03-28T03:00:00+02:00",
        "note": "02:30 does not exist on this day: the tick is at 03:00, right after the gap",
    } in found
    assert (await http.get("/schedules/sales/preview", params={"count": 0})).status_code == 422
    assert (await http.get("/schedules/none/preview")).status_code == 404


async def test_every_run_is_listed_with_its_reason(http: httpx.AsyncClient, site: Site) -> None:
    await http.post("/schedules", json=HOURLY)
    for _ in range(3):
        site.clock.forward(HOUR)
        await site.settle()
    page = (await http.get("/schedules/sales/runs", params={"limit": 2})).json()
    rest = (await http.get("/schedules/sales/runs", params={"limit": 2, "cursor": page["cursor"]})).json()
    assert [run["status"] for run in (*page["runs"], *rest["runs"])] == ["skipped_overlap", "skipped_overlap", "fired"]
    assert rest["cursor"] is None
    assert rest["runs"][0] == {
        "kind": "tick",
        "nominal_at": "2026-11-25T11:00:00.000Z",
        "status": "fired",
        "reason": {"code": "on_time", "text": "the tick was due", "next_wake_at": None},
        "at": "2026-11-25T11:00:00.000Z",
        "job_id": "sales.20261125T110000Z",
        "ended_at": None,
        "outcome": None,
    }
    fired = (await http.get("/schedules/sales/runs", params={"status": "fired", "from": "2026-11-25T11:00:00Z"})).json()
    assert len(fired["runs"]) == 1
    assert (await http.get("/schedules/none/runs")).status_code == 404


async def test_coverage_answers_who_is_missing(http: httpx.AsyncClient, site: Site) -> None:
    await http.post("/schedules", json={**HOURLY, "job": TICK_JOB})
    site.clock.forward(HOUR)
    await site.settle()
    await site.end_execution("sales.20261125T110000Z", "till-1", ExecutionState.SUCCEEDED)
    await site.end_execution("sales.20261125T110000Z", "till-2", ExecutionState.FAILED, ReasonCode.NO_MATCH)
    await site.runner.cover()
    found = (await http.get("/schedules/sales/coverage", params={"state": "missing"})).json()
    assert models.CoverageDocument.model_validate(found).model_dump(by_alias=True, mode="json") == found
    (tick,) = found["ticks"]
    assert {name: tick[name] for name in ("nominal_at", "status", "clients", "proven", "missing", "pending")} == {
        "nominal_at": "2026-11-25T11:00:00.000Z",
        "status": "fired",
        "clients": 2,
        "proven": 1,
        "missing": 1,
        "pending": 0,
    }
    assert found["clients"] == [
        {
            "client_id": "till-2",
            "cells": [
                {
                    "nominal_at": "2026-11-25T11:00:00.000Z",
                    "state": "missing",
                    "reason_code": "no_match",
                    "healing_job_id": None,
                }
            ],
        }
    ]
    assert (found["to"], found["cursor"]) == ("2026-11-25T11:00:00.000Z", None)
    span = {"from": "2026-11-25T08:00:00Z", "to": "2026-11-25T09:00:00Z"}
    assert (await http.get("/schedules/sales/coverage", params=span)).json()["ticks"] == []


@pytest.mark.parametrize(
    "instant",
    [
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.999999Z"),
        "1969-12-31T23:59:59Z",
    ],
)
async def test_an_instant_that_cannot_be_shown_in_utc_is_refused(http: httpx.AsyncClient, instant: str) -> None:
    await http.post("/schedules", json=HOURLY)
    for name in ("from", "to"):
        answer = await http.get("/schedules/sales/coverage", params={name: instant})
        assert (answer.status_code, "RFC 3339" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("example", "model"),
    [
        (examples.SCHEDULE_ROW, models.ScheduleRow),
        (examples.DRY_RUN, models.ScheduleDryRun),
        (examples.TICK, models.TickDocument),
        (examples.RUN, models.RunDocument),
        (examples.BACKFILLED, models.BackfilledDocument),
        (examples.COVERED_TICK, models.CoveredTickDocument),
        (examples.CELL, models.CellDocument),
        (examples.COVERAGE, models.CoverageDocument),
        (examples.NEW_SCHEDULE, bodies.NewSchedule),
        (examples.BACKFILL, bodies.BackfillBody),
    ],
)
def test_an_example_is_one_of_its_model(example: dict[str, Any], model: type[BaseModel]) -> None:
    found = model.model_validate(example)
    assert set(example) <= set(found.model_dump(by_alias=True))
