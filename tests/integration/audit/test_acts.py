"""What callers do over REST, and the records of it.

Rule: the application is the whole one, over SQLite; broker and object store are away.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI

from control_plane.api.auth import create_token
from control_plane.bootstrap import create_app
from control_plane.settings import Settings
from tests.support.fake_services import http_to

SECRET: Final = "a secret of at least thirty-two bytes"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """The whole control plane; its loops do not run."""
    return create_app(
        Settings.load(
            {
                "DATABASE_URL": f"sqlite:///{tmp_path / 'backhaul.db'}",
                "JWT_SECRET": SECRET,
                "WEBHOOK_NETWORKS": "192.0.2.0/24",
                "AWS_ACCESS_KEY_ID": "id",
                "AWS_SECRET_ACCESS_KEY": "key",
                "AWS_ENDPOINT": "http://127.0.0.1:9",
            }
        )
    )


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    token = create_token(SECRET, "ann", 600)
    headers = {"Authorization": f"Bearer {token}", "Backhaul-Reason": "ticket 4711: K%C3%B6ln"}
    async with http_to(app, headers) as client:
        yield client


async def records(http: httpx.AsyncClient, **filters: str) -> list[dict[str, Any]]:
    answer = await http.get("/audit", params=filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["records"]
    return found


async def done(http: httpx.AsyncClient, method: str, path: str, body: object = None, **headers: str) -> Any:  # noqa: ANN401
    answer = await http.request(method, path, json=body, headers=headers)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


SCHEDULE: Final = {
    "schedule_id": "nightly",
    "every": "24h",
    "job": {"targets": {"mode": "continuous", "selector": "site=berlin"}, "files": {"paths": ["/data/*"]}},
}


async def test_every_changing_call_over_rest_leaves_its_record(http: httpx.AsyncClient) -> None:
    await done(http, "POST", "/clients", {"client_id": "till-1", "labels": {"site": "berlin"}})
    await done(http, "PATCH", "/clients/till-1/labels", {"floor": "2"})
    await done(http, "PUT", "/groups/tills", {"clients": ["till-*"]})
    await done(http, "DELETE", "/groups/tills")
    await done(http, "PUT", "/budgets/site/berlin", {"bytes_per_second": 1_000_000})
    await done(http, "DELETE", "/budgets/site/berlin")
    job = {"job_id": "j", "targets": {"clients": ["till-1"]}, "files": {"paths": ["/data/*"]}}
    await done(http, "POST", "/jobs", job)
    await done(http, "POST", "/jobs/j/pause")
    await done(http, "POST", "/jobs/j/resume")
    await done(http, "GET", "/jobs/j/files")
    assert (await http.get("/jobs/j/results")).is_success
    await done(http, "POST", "/jobs/j/cancel")
    hook = await done(http, "POST", "/webhooks", {"url": "https://192.0.2.1/secret/path"})
    await done(http, "PATCH", f"/webhooks/{hook['webhook_id']}", {"enabled": False})
    await done(http, "DELETE", f"/webhooks/{hook['webhook_id']}")
    found = await records(http)
    assert [one["act"] for one in reversed(found)] == [
        "client.expect",
        "client.label",
        "group.put",
        "group.delete",
        "budget.put",
        "budget.delete",
        "job.create",
        "job.pause",
        "job.resume",
        "job.files",
        "job.results",
        "job.cancel",
        "webhook.create",
        "webhook.change",
        "webhook.delete",
    ]
    assert {(one["subject"], one["address"], one["reason"]) for one in found} == {
        ("ann", "127.0.0.1", "ticket 4711: Köln")
    }
    created = next(one for one in found if one["act"] == "job.create")
    assert (created["target"], created["clients"], created["detail"]["paths"]) == ("job:j", ["till-1"], "/data/*")
    assert "secret" not in json.dumps(found)
    assert [one["act"] for one in await records(http, target="job:j", act="job.pause")] == ["job.pause"]
    assert {one["act"] for one in await records(http, client_id="till-1")} == {
        "client.expect",
        "client.label",
        "job.create",
    }


async def test_a_repeat_that_changes_nothing_leaves_no_record(http: httpx.AsyncClient) -> None:
    for _ in range(2):
        await done(http, "POST", "/clients", {"client_id": "till-1", "labels": {"site": "berlin"}})
        await done(http, "PUT", "/groups/tills", {"clients": ["till-1"]})
        job = {"job_id": "j", "targets": {"clients": ["till-1"]}, "files": {"paths": ["/data/*"]}}
        await done(http, "POST", "/jobs", job)
    assert [one["act"] for one in await records(http)] == ["job.create", "group.put", "client.expect"]


async def test_a_call_that_fails_leaves_no_record_of_a_change(http: httpx.AsyncClient) -> None:
    assert (await http.delete("/groups/none")).status_code == 404
    assert (await http.post("/jobs/none/pause")).status_code == 404
    assert await records(http) == []


async def test_a_question_that_a_client_does_not_answer_is_recorded_as_failed(http: httpx.AsyncClient) -> None:
    await done(http, "POST", "/clients", {"client_id": "till-1"})
    assert (await http.get("/clients/till-1/files", params={"pattern": "/data/*"})).status_code == 504
    (one,) = await records(http, act="files.list")
    assert (one["outcome"], one["detail"]["pattern"], one["clients"]) == ("failed", "/data/*", ["till-1"])


async def test_a_denied_request_is_recorded(app: FastAPI, http: httpx.AsyncClient) -> None:
    async with http_to(app) as stranger:
        assert (await stranger.get("/jobs?token=secret")).status_code == 401
    await app.state.denials.flush()
    (one,) = await records(http, outcome="denied")
    assert (one["act"], one["subject"], one["address"]) == ("request", "", "127.0.0.1")
    assert one["detail"] == {"method": "GET", "path": "/jobs", "status": 401}


async def test_an_export_has_every_record_and_is_recorded(http: httpx.AsyncClient) -> None:
    await done(http, "PUT", "/budgets/site/berlin", {"bytes_per_second": 1_000_000})
    answer = await http.get("/audit/export")
    assert answer.headers["content-type"].startswith("application/cloudevents+jsonl")
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert [(one["specversion"], one["type"]) for one in events] == [
        ("1.0", "audit.budget.put"),
        ("1.0", "audit.audit.export"),
    ]
    assert events[0]["data"]["record"]["target"] == "budget:site=berlin"
    assert events[1]["data"]["previous"] == events[0]["data"]["hash"]


async def test_the_key_is_made_once_beside_the_database_and_only_its_owner_reads_it(
    tmp_path: Path, app: FastAPI
) -> None:
    file = tmp_path / "audit-key.json"
    assert file.stat().st_mode & 0o777 == 0o600
    before = app.state.audit.key
    again = create_app(
        Settings.load({"DATABASE_URL": f"sqlite:///{tmp_path / 'backhaul.db'}", "AWS_ENDPOINT": "http://127.0.0.1:9"})
    )
    assert again.state.audit.key == before
