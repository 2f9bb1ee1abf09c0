"""`backhaul schedule` against REST on a real database, without a socket between."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from control_plane.cli.main import build
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.session import CliSession
from tests.support.fake_services import HOST, FakeServices, make_api
from tests.support.schedules import Site, a_database

Run = Callable[..., Result]
CREATE = ("schedule", "create", "--id", "sales", "--cron", "30 2 * * *", "--zone", "Europe/Berlin")


class Inline(httpx.BaseTransport):
    """Calls the application in an event loop of its own."""

    def __init__(self, api: FastAPI) -> None:
        self._api = api

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._call(request))

    async def _call(self, request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._api)) as http:
            answer = await http.request(
                request.method, request.url, content=request.read(), headers=dict(request.headers)
            )
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command; each has its own connection to one control plane."""
    api = make_api(FakeServices())
    database = a_database(tmp_path)
    api.state.schedules = Site(database).service

    def connect(_: CliSession) -> ControlPlane:
        plane = ControlPlane(HOST)
        plane._http = httpx.Client(transport=Inline(api), base_url=HOST)
        return plane

    monkeypatch.setattr(CliSession, "connect", connect)
    yield lambda *arguments: CliRunner().invoke(build(), list(arguments))
    asyncio.run(database.close())


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def create(run: Run, *more: str) -> dict[str, Any]:
    return document(run(*CREATE, "-c", "till-1", "-p", "/data/{tick:%Y%m%d}.csv", *more, "--json"))


def test_a_schedule_from_options(run: Run) -> None:
    made = create(run)
    assert (made["schedule_id"], made["cron"], made["overlap"]) == ("sales", "30 2 * * *", "allow")
    assert made["job"]["targets"]["clients"] == ["till-1"]
    assert [one["schedule_id"] for one in document(run("schedule", "list", "--json"))["schedules"]] == ["sales"]
    assert document(run("schedule", "show", "sales", "--json"))["next_at"] == "2026-11-26T01:30:00.000Z"


def test_a_schedule_from_a_file_and_options(run: Run, tmp_path: Path) -> None:
    body = {"every": "6h", "job": {"targets": {"selector": "kind=till"}, "files": {"paths": ["/data/*.csv"]}}}
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps(body))
    made = document(run("schedule", "create", "-f", str(file), "--id", "sales", "--every", "2h", "--json"))
    assert (made["every"], made["job"]["targets"]["selector"]) == ("2h", "kind=till")
    replaced = document(run("schedule", "create", "-f", str(file), "--id", "sales", "--replace", "--json"))
    assert (replaced["every"], replaced["version"]) == ("6h", 2)


def test_a_dry_run_makes_nothing(run: Run) -> None:
    assert create(run, "--dry-run")["schedule_id"] == "sales"
    assert document(run("schedule", "list", "--json"))["schedules"] == []


def test_preview_names_the_change_of_the_clocks(run: Run) -> None:
    create(run)
    shown = run("schedule", "preview", "sales", "-n", "200")
    assert shown.exit_code == 0
    assert "02:30 does not exist on this day" in " ".join(shown.stdout.split())


def test_the_verbs(run: Run) -> None:
    create(run)
    assert document(run("schedule", "pause", "sales", "--note", "stocktaking", "--json"))["note"] == "stocktaking"
    assert "stocktaking" in run("schedule", "show", "sales").stdout
    assert document(run("schedule", "resume", "sales", "--json"))["paused"] is False
    assert document(run("schedule", "skip-next", "sales", "--json"))["skip_at"] == "2026-11-26T01:30:00.000Z"
    assert document(run("schedule", "run-now", "sales", "--json"))["job_id"] == "sales.manual.20261125T100000Z"
    filled = run("schedule", "backfill", "sales", "--from", "2026-11-20", "--to", "2026-11-22", "--json")
    assert document(filled) == {"queued": 3, "left_out": 0}
    listed = document(run("schedule", "runs", "sales", "--json"))["runs"]
    assert [one["status"] for one in listed] == ["fired", "queued", "queued", "queued"]
    assert run("schedule", "rm", "sales").exit_code == 0
    gone = run("schedule", "show", "sales")
    assert (gone.exit_code, "schedule 'sales' is not known" in gone.output) == (1, True)


def test_coverage_has_a_line_for_each_tick(run: Run) -> None:
    create(run)
    document(run("schedule", "backfill", "sales", "--from", "2026-11-20", "--to", "2026-11-22", "--json"))
    shown = run("schedule", "coverage", "sales", "--from", "2026-11-20", "--to", "2026-11-22")
    assert shown.exit_code == 0
    assert shown.stdout.count("queued") == 3
    assert len(document(run("schedule", "coverage", "sales", "--json"))["ticks"]) == 3


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--client", "a", "--path", "/a"), "give --cron, --every, or --file"),
        (("--every", "1h", "--path", "/a"), "give --client or --selector, or --file"),
        (("--every", "1h", "--client", "a"), "give --path, or --file"),
        (("--every", "1h", "-c", "a", "-p", "/a", "--replace"), "--replace needs the schedule's id"),
        (("--every", "1h", "-c", "a", "-p", "/a", "--id", "a", "--replace", "--dry-run"), "--replace has no --dry-run"),
        (("--file", "/no/such/file"), "No such file or directory"),
    ],
)
def test_options_that_are_missing_or_contradict_are_named(run: Run, arguments: tuple[str, ...], why: str) -> None:
    ended = run("schedule", "create", *arguments)
    assert (ended.exit_code, why in ended.output) == (2, True), ended.output


def test_an_instant_that_is_none_is_refused(run: Run) -> None:
    create(run)
    ended = run("schedule", "backfill", "sales", "--from", "yesterday", "--to", "2026-11-22")
    assert (ended.exit_code, "is no instant: write 2026-11-20" in ended.output) == (2, True)
