"""Expected clients, labels and groups over REST: the real services, on SQLite."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.adapters.database import SqlDatabase, migrate
from control_plane.api import examples
from control_plane.api.fleet.bodies import CSV_EXAMPLE, ExpectedClientBody
from control_plane.api.fleet.models import GroupDocument
from control_plane.domain.jobs.model import ExecutionState
from control_plane.domain.jobs.spec import Targets
from control_plane.services.clients.targeting import set_hash
from control_plane.services.engine import Engine, Ports, build_engine
from control_plane.services.jobs.creation import create_job
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Records
from schemas.messages import Presence
from tests.support.fake_services import FakeServices, fleet_api, http_to
from tests.support.fakes import FakeClock, FakeMessenger, FakeObjects
from tests.support.jobs import a_spec

CSV = {"Content-Type": "text/csv"}
PLACE: dict[str, Any] = {"timezone": "Europe/Berlin", "roots": ("/data",), "types": ("sales",)}


@dataclass
class Site:
    """REST over an engine whose loops do not run, and its clock."""

    http: httpx.AsyncClient
    engine: Engine
    clock: FakeClock

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def ids(self, **query: str) -> list[str]:
        return [row["client_id"] for row in (await self.get("/clients", **query))["clients"]]

    async def presence(self, client_id: str, *, epoch: int = 1, labels: dict[str, str] | None = None) -> None:
        """A birth, applied at once."""
        message = Presence(client_id, "online", "install-1", epoch, 0, labels=labels or {}, **PLACE)
        registry = self.engine.registry
        registry.receive(message)
        await registry._commit([await registry._waiting.get()])


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: faster than migrating one for each test."""
    path = tmp_path_factory.mktemp("empty") / "backhaul.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def site(tmp_path: Path, empty: Path) -> AsyncIterator[Site]:
    copy = shutil.copy(empty, tmp_path / "backhaul.db")
    clock, database = FakeClock(), SqlDatabase.open(f"sqlite:///{copy}")
    engine = build_engine(Ports(database, FakeObjects(), FakeMessenger(), clock), lambda *_: None, Policy(), fleet=True)
    services = FakeServices()
    async with http_to(fleet_api(services, engine)) as http:
        yield Site(http, engine, clock)
    await database.close()


# --- expected clients -------------------------------------------------------------------------------------------------


async def test_a_client_is_expected_before_it_was_ever_seen(site: Site) -> None:
    body = {"client_id": "shop-7", "labels": {"site": "berlin"}, "note": "opens in May"}
    created = await site.http.post("/clients", json=body)
    assert (created.status_code, created.headers["Location"]) == (201, "/clients/shop-7")
    shown = created.json()
    assert shown == await site.get("/clients/shop-7")
    assert (shown["state"], shown["connected"], shown["last_activity"]) == ("never_seen", False, None)
    assert (shown["reason"]["code"], shown["install_id"], shown["expected"]) == ("client_never_seen", None, True)
    assert (shown["labels"], shown["set_labels"], shown["device_labels"]) == (
        {"site": "berlin"},
        {"site": "berlin"},
        {},
    )
    assert (await site.http.post("/clients", json=body)).status_code == 200
    assert (await site.get("/status/shop-7"))["last_heartbeat"] is None


async def test_the_first_presence_of_an_expected_client_fills_it_in(site: Site) -> None:
    await site.http.post("/clients", json={"client_id": "shop-7", "labels": {"site": "berlin"}, "note": "new"})
    await site.presence("shop-7", labels={"site": "oslo", "floor": "1"})
    shown = await site.get("/clients/shop-7")
    assert (shown["state"], shown["expected"], shown["note"]) == ("connected", True, "new")
    assert shown["labels"] == {"site": "berlin", "floor": "1"}
    assert shown["device_labels"] == {"site": "oslo", "floor": "1"}
    assert (shown["timezone"], shown["roots"], shown["types"]) == ("Europe/Berlin", ["/data"], ["sales"])
    assert await site.ids(selector="site=berlin,floor") == ["shop-7"]


async def test_many_clients_are_expected_at_once_and_again_without_effect(site: Site) -> None:
    many = [{"client_id": f"shop-{number}"} for number in range(1, 4)]
    assert (await site.http.post("/clients", json=many)).json() == {"clients": 3, "created": 3, "changed": 0}
    assert (await site.http.post("/clients", json=many)).json() == {"clients": 3, "created": 0, "changed": 0}
    many[0]["note"] = "moved"
    assert (await site.http.post("/clients", json=many)).json() == {"clients": 3, "created": 0, "changed": 1}


async def test_a_csv_names_clients_with_labels_and_notes(site: Site) -> None:
    text = 'id,labels,note\r\nshop-1,"site=berlin, ring=beta",Hauptstraße 1\r\nshop-2,,\r\n'
    answer = await site.http.post("/clients", content=("\ufeff" + text).encode(), headers=CSV)
    assert answer.json() == {"clients": 2, "created": 2, "changed": 0}
    shown = await site.get("/clients/shop-1")
    assert (shown["labels"], shown["note"]) == ({"site": "berlin", "ring": "beta"}, "Hauptstraße 1")
    # A column that is left out leaves what is there.
    await site.http.post("/clients", content=b"note,id\nmoved,shop-1\n", headers=CSV)
    again = await site.get("/clients/shop-1")
    assert (again["labels"], again["note"]) == (shown["labels"], "moved")


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "must name its columns"),
        ("client,labels\na,b=c\n", "must name its columns"),
        ("id,id\na,b\n", "must name its columns"),
        ("id\n", "1 to 20000 clients"),
        ("id,note\na\n", "line 2: there are more or fewer columns"),
        ("id,note\na,b,c\n", "line 2: there are more or fewer columns"),
        ("id,labels\nb,x=1\na,site\n", "line 3: labels are written as"),
        ('id,labels\na,"x=1,x=2"\n', "line 2: labels are written as"),
        ("id\na/b\n", "client id 'a/b' is not allowed"),
        ("id\na\na\n", "'a' is named twice"),
        ('id\n"a\n', "the CSV cannot be read"),
        ("id\n\xff\n", "not UTF-8"),
    ],
)
async def test_a_wrong_csv_is_refused_as_a_whole(site: Site, text: str, detail: str) -> None:
    answer = await site.http.post("/clients", content=text.encode("latin-1"), headers=CSV)
    assert (answer.status_code, detail in answer.json()["detail"]) == (422, True), answer.text
    assert await site.ids() == []


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ("{", 400, ""),
        ("[]", 422, "1 to 20000 clients"),
        ("7", 422, ""),
        ('{"client_id": "a", "label": {}}', 422, "label: extra inputs are not permitted"),
        ('[{"client_id": "a"}, {"client_id": 7}]', 422, "1.client_id: input should be a valid string"),
        ('{"client_id": "cli-7"}', 422, "is not allowed"),
        ('{"client_id": "a", "labels": {"": "x"}}', 422, "a name and a value"),
        ('{"client_id": "a", "labels": {"x": "a\\u0000"}}', 422, "a name and a value"),
        ('{"client_id": "a", "labels": {"x": 7}}', 422, "valid string"),
        ('{"client_id": "a", "note": "\\u0000"}', 422, "a note has"),
    ],
)
async def test_a_wrong_body_is_refused(site: Site, body: str, status: int, detail: str) -> None:
    answer = await site.http.post("/clients", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, detail in answer.json().get("detail", "")) == (status, True), answer.text
    assert await site.ids() == []


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([0] * 2_000, "0: input should be"),
        ({"client_id": "a", "labels": {str(number): 0 for number in range(2_000)}}, "2000 faults"),
    ],
)
async def test_the_faults_of_a_large_body_are_not_all_described(site: Site, body: object, detail: str) -> None:
    """Those that four megabytes have room for would take gigabytes."""
    answer = await site.http.post("/clients", json=body)
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]
    assert "more)" not in answer.json()["detail"]


async def test_a_body_of_another_type_is_refused(site: Site) -> None:
    answer = await site.http.post("/clients", content=b"id\na\n", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


async def test_an_expected_client_can_be_deleted(site: Site) -> None:
    await site.http.post("/clients", json={"client_id": "shop-7"})
    assert (await site.http.delete("/clients/shop-7")).status_code == 204
    assert (await site.http.get("/clients/shop-7")).status_code == 404


# --- labels -----------------------------------------------------------------------------------------------------------


async def test_labels_of_an_operator_are_replaced_and_dropped_and_those_of_the_device_stay(site: Site) -> None:
    await site.presence("shop-7", labels={"site": "oslo"})
    path = "/clients/shop-7/labels"
    first = await site.http.put(path, json={"site": "berlin", "example.com/ring": "beta"})
    assert first.json()["labels"] == {"site": "berlin", "example.com/ring": "beta"}
    assert await site.ids(selector="site=oslo") == []
    dropped = await site.http.delete(f"{path}/example.com/ring")
    assert dropped.json()["set_labels"] == {"site": "berlin"}
    assert (await site.http.delete(f"{path}/unknown")).json()["set_labels"] == {"site": "berlin"}
    last = await site.http.put(path, json={})
    assert (last.json()["labels"], last.json()["set_labels"]) == ({"site": "oslo"}, {})
    assert await site.ids(selector="site=oslo") == ["shop-7"]


async def test_a_patch_changes_some_labels_and_leaves_the_others(site: Site) -> None:
    await site.presence("shop-7")
    path = "/clients/shop-7/labels"
    await site.http.put(path, json={"site": "berlin", "ring": "beta", "floor": "1"})
    changed = await site.http.patch(path, json={"site": "paris", "ring": None, "unknown": None})
    assert changed.json()["set_labels"] == {"site": "paris", "floor": "1"}
    too_many = await site.http.patch(path, json={f"l{number}": "" for number in range(64)})
    assert too_many.status_code == 422
    assert (await site.http.patch(path, json={"site": 7})).status_code == 422
    assert (await site.http.patch("/clients/unknown/labels", json={})).status_code == 404
    assert (await site.get("/clients/shop-7"))["set_labels"] == {"site": "paris", "floor": "1"}


async def test_labels_survive_the_next_presence(site: Site) -> None:
    await site.presence("shop-7", labels={"site": "oslo"})
    await site.http.put("/clients/shop-7/labels", json={"site": "berlin"})
    await site.presence("shop-7", epoch=2, labels={"site": "bergen", "floor": "1"})
    shown = await site.get("/clients/shop-7")
    assert (shown["labels"], shown["device_labels"]["site"]) == ({"site": "berlin", "floor": "1"}, "bergen")
    assert await site.ids(selector="site=berlin,floor=1") == ["shop-7"]


@pytest.mark.parametrize("labels", [[], {"a": 7}, {"a": "x" * 257}, {"": "a"}, {f"l{n}": "" for n in range(65)}])
async def test_wrong_labels_are_refused(site: Site, labels: object) -> None:
    await site.presence("shop-7")
    assert (await site.http.put("/clients/shop-7/labels", json=labels)).status_code == 422
    assert (await site.get("/clients/shop-7"))["labels"] == {}


async def test_labels_of_an_unknown_client_are_404(site: Site) -> None:
    assert (await site.http.put("/clients/shop-7/labels", json={})).status_code == 404
    assert (await site.http.delete("/clients/shop-7/labels/site")).status_code == 404


# --- selection --------------------------------------------------------------------------------------------------------


async def test_clients_are_listed_by_selector_and_state_with_count_and_set(site: Site) -> None:
    await site.http.post("/clients", json=[{"client_id": f"shop-{n}", "labels": {"site": "berlin"}} for n in range(3)])
    await site.presence("till-1", labels={"site": "berlin", "retired": ""})
    await site.presence("till-2")
    found = await site.get("/clients", selector="site=berlin,!retired", limit="2")
    assert (found["count"], found["set"]) == (3, set_hash(["shop-0", "shop-1", "shop-2"]))
    rest = await site.get("/clients", selector="site=berlin,!retired", limit="2", cursor=found["cursor"])
    assert [row["client_id"] for row in rest["clients"]] == ["shop-2"]
    assert (rest["count"], rest["set"], rest["cursor"]) == (found["count"], found["set"], None)
    assert await site.ids(state="never_seen") == ["shop-0", "shop-1", "shop-2"]
    assert await site.ids(state="connected") == ["till-1", "till-2"]
    assert await site.ids(state="connected", selector="site") == ["till-1"]
    site.clock.time += 100
    assert await site.ids(state="offline") == ["till-1", "till-2"]
    everything = await site.get("/clients")
    assert (everything["count"], everything["set"]) == (5, None)
    assert (await site.get("/clients", selector=""))["set"] == set_hash(await site.ids())


async def test_a_wrong_selector_is_422_with_its_position(site: Site) -> None:
    answer = await site.http.get("/clients", params={"selector": "site=berlin,"})
    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["type"], problem["position"], problem["selector"]) == (
        "/help/reasons/bad-selector",
        12,
        "site=berlin,",
    )


# --- groups -----------------------------------------------------------------------------------------------------------


async def test_a_group_is_created_shown_replaced_and_deleted(site: Site) -> None:
    await site.http.post("/clients", json=[{"client_id": "a"}, {"client_id": "b", "labels": {"ring": "beta"}}])
    body = {"name": "beta", "clients": ["a"], "selector": "ring=beta", "note": "first"}
    created = await site.http.post("/groups", json=body)
    assert (created.status_code, created.headers["Location"]) == (201, "/groups/beta")
    shown = await site.get("/groups/beta")
    assert shown == created.json()
    assert (shown["clients"], shown["count"], shown["set"], shown["warnings"]) == (["a"], 2, set_hash(["a", "b"]), [])
    assert (await site.http.post("/groups", json=body)).json() == shown
    assert (await site.http.post("/groups", json={**body, "note": "other"})).status_code == 409
    site.clock.time += 60
    replaced = await site.http.put("/groups/beta", json={"clients": ["*"]})
    assert (replaced.status_code, replaced.json()["count"], replaced.json()["selector"]) == (200, 2, None)
    assert replaced.json()["created_at"] == shown["created_at"] < replaced.json()["updated_at"]
    assert (await site.http.put("/groups/alpha", json={"selector": ""})).status_code == 201
    (alpha, beta) = (await site.get("/groups"))["groups"]
    assert (alpha["name"], beta["name"], beta["entries"]) == ("alpha", "beta", 1)
    assert (await site.http.delete("/groups/beta")).status_code == 204
    assert (await site.http.delete("/groups/beta")).status_code == 404
    assert (await site.http.get("/groups/beta")).status_code == 404


async def test_a_client_of_a_group_that_is_forgotten_becomes_a_warning(site: Site) -> None:
    await site.http.post("/clients", json=[{"client_id": "a"}, {"client_id": "b"}])
    await site.http.post("/groups", json={"name": "both", "clients": ["a", "b"]})
    await site.http.delete("/clients/b")
    shown = await site.get("/groups/both")
    assert (shown["count"], shown["warnings"]) == (1, ["group 'both' names clients that are not known: b"])
    assert (await site.http.put("/groups/both", json={"clients": ["a", "b"], "note": "x"})).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x"}, 422),
        ({"name": "x y", "selector": ""}, 422),
        ({"name": "x", "selector": "a in"}, 422),
        ({"name": "x", "clients": ["group:beta"]}, 422),
        ({"name": "x", "clients": ["a b"]}, 422),
        ({"name": "x", "clients": [f"a{n}*" for n in range(101)]}, 422),
        ({"name": "x", "clients": ["a*"] * 1_001}, 422),
        ({"name": "x", "clients": ["unknown", "shop"]}, 404),
        ({"name": "x", "clients": [], "members": []}, 422),
    ],
)
async def test_a_wrong_group_is_refused(site: Site, body: dict[str, Any], status: int) -> None:
    answer = await site.http.post("/groups", json=body)
    assert answer.status_code == status, answer.text
    assert (await site.get("/groups"))["groups"] == []


async def test_every_unknown_client_of_a_group_is_named(site: Site) -> None:
    answer = await site.http.post("/groups", json={"name": "x", "clients": ["b", "a"]})
    assert answer.json()["client_ids"] == ["a", "b"]


# --- jobs -------------------------------------------------------------------------------------------------------------


async def test_what_an_operator_writes_moves_clients_into_and_out_of_a_continuous_job(site: Site) -> None:
    """At once, and not only when the clients are compared again."""
    database, jobs = site.engine.ports.database, site.engine.jobs
    assert jobs is not None
    await site.http.post("/clients", json=[{"client_id": "a"}, {"client_id": "b", "labels": {"ring": "beta"}}])
    spec = a_spec(targets=Targets(clients=(), selector="ring=beta", mode="continuous"))
    await database.write(lambda records: create_job(records, "job-1", spec, site.clock.now(), "me"))

    async def members() -> dict[str, str]:
        while await jobs.step():
            pass
        return {name: str(state) for name, state in (await database.read(_states)).items()}

    def _states(records: Records) -> dict[str, ExecutionState]:
        return records.jobs.executions.clients("job-1")

    assert await members() == {"b": "queued"}
    await site.http.put("/clients/a/labels", json={"ring": "beta"})
    await site.http.delete("/clients/b/labels/ring")
    await site.http.post("/clients", json={"client_id": "c", "labels": {"ring": "beta"}})
    assert await members() == {"a": "queued", "b": "removed", "c": "queued"}


def test_examples_agree_with_the_models() -> None:
    assert GroupDocument.model_validate(examples.GROUP).model_dump(mode="json") == examples.GROUP
    assert ExpectedClientBody.model_validate(examples.EXPECTED_CLIENT).model_dump() == examples.EXPECTED_CLIENT
    assert CSV_EXAMPLE.startswith("id,labels,note\n")
