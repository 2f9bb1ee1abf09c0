"""Budgets over REST and from the command line: set, seen with their users and waiters, retuned, deleted."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner

from control_plane.cli.commands import build
from control_plane.services.gate.budgets import BudgetService
from control_plane.services.ports.database import Records
from schemas.parts import MIB
from tests.support.fake_services import NOW, FakeServices, http_to, make_api
from tests.support.fakes import OPERATOR
from tests.support.gates import a_keeper, a_request, add_client
from tests.support.inline_database import InlineDatabase


@pytest.fixture
def database(tmp_path: Path) -> InlineDatabase:
    """An empty database."""
    return InlineDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}")


@pytest.fixture
def api(database: InlineDatabase) -> FastAPI:
    """REST, with the budgets of the database."""
    services = FakeServices()
    api = make_api(services)
    api.state.budgets = BudgetService(database=database, clock=services)
    return api


def use(records: Records) -> None:
    """Two clients ask: one is granted, one waits."""
    for client_id in ("client-1", "client-2"):
        add_client(records, client_id, site="berlin")
        a_keeper().may_grant(records, a_request(client_id), NOW)


async def test_a_budget_is_set_seen_retuned_and_deleted(api: FastAPI, database: InlineDatabase) -> None:
    async with http_to(api) as http:
        made = await http.put("/budgets/site/berlin", json={"bytes_per_second": "1MiB"})
        assert (made.status_code, made.headers["location"]) == (201, "/budgets/site/berlin")
        await database.write(use)
        seen: dict[str, Any] = (await http.get("/budgets/site/berlin")).json()
        assert (seen["bytes_per_second"], seen["waiting"]) == (MIB, 1)
        assert [(one["client_id"], one["bytes"]) for one in seen["users"]] == [("client-1", 10 * MIB)]
        assert [(one["client_id"], one["absent"]) for one in seen["waiters"]] == [("client-2", False)]
        assert seen["users"][0]["until"] == seen["spent_until"]
        again = await http.put("/budgets/site/berlin", json={"bytes_per_second": 5 * MIB})
        assert (again.status_code, again.json()["bytes_per_second"]) == (200, 5 * MIB)
        assert again.json()["spent_until"] < seen["spent_until"]
        assert (await http.get("/budgets")).json()["budgets"] == [again.json()]
        assert (await http.delete("/budgets/site/berlin")).status_code == 204
        assert (await http.get("/budgets")).json()["budgets"] == []


async def test_a_budget_holds_from_the_next_grant_on(database: InlineDatabase) -> None:
    """Though the gate has read the list of budgets a moment before."""
    keeper, services = a_keeper(), FakeServices()
    budgets = BudgetService(database=database, clock=services, on_change=keeper.read_again)
    await database.write(lambda records: add_client(records, "client-1", site="berlin"))

    def concerned(records: Records) -> bool:
        return keeper.concerns(records, a_request("client-1"), records.clients.get("client-1"), NOW)

    assert not await database.read(concerned)
    await budgets.put_budget(OPERATOR, "site", "berlin", MIB)
    assert await database.read(concerned)


async def test_budgets_are_listed_in_pages(api: FastAPI) -> None:
    async with http_to(api) as http:
        for label, value in (("site", "b"), ("model", "z"), ("site", "a")):
            await http.put(f"/budgets/{label}/{value}", json={"bytes_per_second": 1})
        first = (await http.get("/budgets?limit=2")).json()
        last = (await http.get("/budgets", params={"limit": 2, "cursor": first["cursor"]})).json()
        seen = [(one["label"], one["value"]) for one in (*first["budgets"], *last["budgets"])]
        assert (seen, last["cursor"]) == ([("model", "z"), ("site", "a"), ("site", "b")], None)
        assert (await http.get("/budgets?cursor=x")).status_code == 422


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_budget_that_is_not_there_is_not_found(api: FastAPI, method: str) -> None:
    async with http_to(api) as http:
        answer = await http.request(method, "/budgets/site/paris")
        assert (answer.status_code, answer.json()["type"]) == (404, "/help/reasons/unknown-budget")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/budgets/site/berlin", {"bytes_per_second": 0}),
        ("/budgets/site/berlin", {"bytes_per_second": "fast"}),
        ("/budgets/site/berlin", {"bytes_per_second": "2000TiB"}),
        ("/budgets/site/berlin", {"bytes_per_second": 1, "more": 2}),
        ("/budgets/site/berlin", {}),
        ("/budgets/a%3Db/c", {"bytes_per_second": 1}),
        ("/budgets/a%0Ab/c", {"bytes_per_second": 1}),
    ],
)
async def test_a_budget_that_cannot_be_is_refused(api: FastAPI, path: str, body: dict[str, object]) -> None:
    async with http_to(api) as http:
        assert (await http.put(path, json=body)).status_code == 422
        assert (await http.get("/budgets")).json()["budgets"] == []


@contextmanager
def served(api: FastAPI) -> Iterator[str]:
    """The API on a port of this machine."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(api, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)


def test_budgets_from_the_command_line(api: FastAPI) -> None:
    with served(api) as url:

        def run(*arguments: str) -> tuple[int, Any]:
            ended = CliRunner().invoke(build(), ["--server", url, "--json", "budget", *arguments])
            return ended.exit_code, json.loads(ended.stdout) if ended.stdout else ended.stderr

        code, made = run("set", "site=berlin", "2MiB")
        assert (code, made["bytes_per_second"]) == (0, 2 * MIB)
        assert run("set", "site=berlin", "4194304")[1]["bytes_per_second"] == 4 * MIB
        httpx.put(f"{url}/budgets/model/pi%2F4", json={"bytes_per_second": 7}).raise_for_status()
        assert [one["value"] for one in run("list")[1]["budgets"]] == ["pi/4", "berlin"]
        assert run("show", "site=berlin")[1]["waiting"] == 0
        assert run("delete", "site=berlin") == (0, {"label": "site=berlin", "deleted": True})
        code, said = run("show", "site=berlin")
        assert (code, said["detail"]) == (1, "there is no budget for site=berlin")
        assert [run("show", label)[0] for label in ("berlin", "a/b=c")] == [2, 2]
        shown = CliRunner().invoke(build(), ["--server", url, "budget", "list"])
        assert "model=pi/4" in shown.stdout
