"""What callers do over REST, and the records of it.

Rule: the application is the whole one, over SQLite; broker and object store are away. Where every call is made, and so
has to succeed, the services are those of `two_sites`.
"""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from msgspec import to_builtins

from control_plane.adapters.webhooks import HttpWebhookSender
from control_plane.api.auth import create_token
from control_plane.bootstrap import create_app
from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.devices import Device, DeviceState
from control_plane.domain.webhooks import Delivery, DeliveryState, Webhook
from control_plane.services.audit.ports import AuditFilter
from control_plane.services.events.webhooks.service import WebhookService
from control_plane.services.ports.database import Page, Records
from control_plane.settings import Settings
from schemas.signing.canonical import fingerprint
from tests.docs.cli_fields import openapi
from tests.support.devices import AskingDevice
from tests.support.fake_services import HOST, NOW, http_to
from tests.support.signed_fleet import Roots, entry_of
from tests.support.two_sites import PLANE_KEY, Fleet, fleet_of

SECRET: Final = "a secret of at least thirty-two bytes"
LIFE: Final = 86_400.0
"""Seconds: a token is made when this file is read, and used when the other files of the run are through."""


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


async def test_a_record_shows_who_did_what_from_where_and_why(http: httpx.AsyncClient) -> None:
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


HOOK: Final = "0123456789abcdef"
ONE: Final = {"clients": ["berlin-1"]}
OF_BERLIN: Final = {"targets": {"selector": "site"}, "files": {"paths": ["/data/*.csv"]}}
CHANGING: Final[dict[str, tuple[str, Act, object]]] = {
    "expectClients": ("/clients", Act.CLIENT_EXPECT, {"client_id": "berlin-9"}),
    "setLabels": ("/clients/berlin-1/labels", Act.CLIENT_LABEL, {"floor": "1"}),
    "changeLabels": ("/clients/berlin-1/labels", Act.CLIENT_LABEL, {"floor": "2"}),
    "dropLabel": ("/clients/berlin-1/labels/floor", Act.CLIENT_LABEL, None),
    "labelClients": ("/clients/labels", Act.CLIENT_LABEL_MANY, {"where": ONE, "labels": {"ring": "beta"}}),
    "createGroup": ("/groups", Act.GROUP_PUT, {"name": "tills", **ONE}),
    "putGroup": ("/groups/tills", Act.GROUP_PUT, {"selector": "site=berlin"}),
    "deleteGroup": ("/groups/tills", Act.GROUP_DELETE, None),
    "putBudget": ("/budgets/site/berlin", Act.BUDGET_PUT, {"bytes_per_second": 1_000_000}),
    "deleteBudget": ("/budgets/site/berlin", Act.BUDGET_DELETE, None),
    "triggerDownload": ("/trigger-download/berlin-1", Act.UPLOAD_TRIGGER, {"file_path": "/data/a"}),
    "cancelUpload": ("/uploads/berlin-upload-1/cancel", Act.UPLOAD_CANCEL, None),
    "retryUpload": ("/uploads/berlin-upload-2/retry", Act.UPLOAD_RETRY, None),
    "verifyUpload": ("/uploads/berlin-upload-3/verify", Act.UPLOAD_VERIFY, None),
    "cancelUploads": ("/uploads/cancel", Act.UPLOAD_CANCEL, {"where": ONE}),
    "createJob": ("/jobs", Act.JOB_CREATE, OF_BERLIN),
    "tuneJob": ("/jobs/berlin-job", Act.JOB_CHANGE, {"priority": 3}),
    "pauseJob": ("/jobs/berlin-job/pause", Act.JOB_PAUSE, None),
    "resumeJob": ("/jobs/berlin-job/resume", Act.JOB_RESUME, None),
    "extendJob": ("/jobs/berlin-job/extend", Act.JOB_EXTEND, {"deadline": "2h"}),
    "rejectJob": ("/jobs/berlin-job/reject", Act.JOB_REJECT, {"where": ONE}),
    "approveJob": ("/jobs/berlin-job/approve", Act.JOB_APPROVE, {"as_of": "2030-01-01T00:00:00Z"}),
    "addClientsToJob": ("/jobs/berlin-job/add-clients", Act.JOB_ADD_CLIENTS, {"clients": ["berlin-*"]}),
    "retryJob": ("/jobs/berlin-job/retry", Act.JOB_RETRY, {"where": ONE}),
    "cancelJob": ("/jobs/berlin-job/cancel", Act.JOB_CANCEL, None),
    "createSchedule": ("/schedules", Act.SCHEDULE_CREATE, {"schedule_id": "own", "every": "1h", "job": OF_BERLIN}),
    "replaceSchedule": ("/schedules/own", Act.SCHEDULE_REPLACE, {"every": "2h", "job": OF_BERLIN}),
    "pauseSchedule": ("/schedules/own/pause", Act.SCHEDULE_PAUSE, None),
    "resumeSchedule": ("/schedules/own/resume", Act.SCHEDULE_RESUME, None),
    "skipNextTick": ("/schedules/own/skip-next", Act.SCHEDULE_SKIP, None),
    "runScheduleNow": ("/schedules/own/run-now", Act.SCHEDULE_RUN, None),
    "backfillSchedule": (
        "/schedules/shared-schedule/backfill",
        Act.SCHEDULE_BACKFILL,
        {"from": "2025-11-01T07:00:00Z", "to": "2025-11-01T09:00:00Z"},
    ),
    "deleteSchedule": ("/schedules/own", Act.SCHEDULE_DELETE, None),
    "createWebhook": ("/webhooks", Act.WEBHOOK_CREATE, {"url": "https://example.com/hook"}),
    "changeWebhook": (f"/webhooks/{HOOK}", Act.WEBHOOK_CHANGE, {"enabled": False}),
    "replayDelivery": (f"/webhooks/{HOOK}/deliveries/1/replay", Act.WEBHOOK_REPLAY, None),
    "replayDead": (f"/webhooks/{HOOK}/replay", Act.WEBHOOK_REPLAY, None),
    "deleteWebhook": (f"/webhooks/{HOOK}", Act.WEBHOOK_DELETE, None),
    "createSessionCode": ("/session/codes", Act.SESSION_CODE, None),
    "signIn": ("/session", Act.SESSION_BEGIN, {"token": create_token(SECRET, "ann", LIFE)}),
    "signOut": ("/session", Act.SESSION_END, None),
    "revokeToken": ("/tokens/of-ben/revoke", Act.TOKEN_REVOKE, None),
    "enrollDevice": ("/devices", Act.DEVICE_ENROLL, {"client_id": "till-7"}),
    "rotateDevice": ("/devices/till-7/rotate", Act.DEVICE_ROTATE, {}),
    "acceptDeviceKey": ("/devices/till-8/accept-key", Act.DEVICE_ACCEPT_KEY, {"fingerprint": fingerprint(b"o" * 32)}),
    "revokeDevice": ("/devices/till-7/revoke", Act.DEVICE_REVOKE, None),
    "forgetDevice": ("/devices/till-7", Act.DEVICE_FORGET, None),
    "approveEnrollment": (
        "/enrollments/{0}/approve",
        Act.DEVICE_APPROVE,
        {"client_id": "till-9", "fingerprint": AskingDevice().fingerprint},
    ),
    "rejectEnrollment": ("/enrollments/{1}/reject", Act.DEVICE_REJECT, None),
    "createBatch": ("/batches", Act.BATCH_CREATE, {"names": "till-b{n}", "count": 2, "expires_in": 60}),
    "revokeBatch": ("/batches/{2}/revoke", Act.BATCH_REVOKE, None),
    "forgetClient": ("/clients/berlin-2", Act.CLIENT_FORGET, None),
    "putKeys": ("/keys", Act.KEYS_PUBLISH, to_builtins(Roots().listing(entry_of(PLANE_KEY.signer.verifier.text)))),
}
"""Each call that may change something: its path, its act and its body, in an order in which all of them succeed."""

OF_DEVICES: Final = {"askToEnroll", "pollEnrollment"}
"""A device asks; what an operator decides about it is an act."""

METHODS: Final = {
    operation["operationId"]: method.upper()
    for item in openapi()["paths"].values()
    for method, operation in item.items()
}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Berlin, for callers with tokens, and a webhook with two dead deliveries."""
    async with fleet_of(tmp_path / "berlin", "berlin", jwt_secret=SECRET) as found:
        clock = found.api.state.clock
        found.api.state.webhooks = WebhookService(found.database, clock, HttpWebhookSender(), on_change=lambda: None)

        def dead(number: int) -> Delivery:
            return Delivery(
                webhook_id=HOOK,
                number=number,
                type="upload.created",
                subject=str(number),
                body="{}",
                state=DeliveryState.DEAD,
                due_at=None,
                since=NOW,
                tried_at=NOW,
            )

        def work(records: Records) -> None:
            records.webhooks.save(
                Webhook(
                    webhook_id=HOOK,
                    url="https://example.com/",
                    types=(),
                    selector="",
                    secret=SECRET,
                    enabled=True,
                    note="",
                    position=0,
                    created_at=NOW,
                    created_by="ann",
                )
            )
            records.webhooks.add([dead(1), dead(2)])

        await found.database.write(work)
        found.http.headers["Authorization"] = f"Bearer {create_token(SECRET, 'ann', 600)}"
        yield found


async def acts_of(fleet: Fleet) -> list[dict[str, Any]]:
    """The records, newest first."""
    found, _ = await fleet.database.read(lambda records: records.audit.list(AuditFilter(), Page(500)))
    return [one.document for one in found]


async def test_every_changing_call_over_rest_leaves_its_record(fleet: Fleet) -> None:
    assert set(CHANGING) == {name for name, method in METHODS.items() if method != "GET"} - OF_DEVICES
    requests = fleet.api.state.enrollments
    codes = [(await requests.begin(AskingDevice(seed * 32).ask(), "")).user_code for seed in (b"d", b"e")]
    alarmed = Device("till-8", DeviceState.ACTIVE, NOW, "ann", public_key=b"k" * 32, other_key=b"o" * 32)
    await fleet.database.write(lambda records: records.devices.save(alarmed))
    count = 0
    for operation, (path, act, body) in CHANGING.items():
        headers = {"Origin": HOST}
        if operation in {"tuneJob", "extendJob", "retryJob", "replaceSchedule"}:
            place = "/".join(path.split("/")[:3])
            headers["If-Match"] = (await fleet.http.get(place)).headers["etag"]
        answer = await fleet.http.request(METHODS[operation], path.format(*codes), json=body, headers=headers)
        assert answer.is_success, (operation, answer.text)
        if operation == "createBatch":
            codes.append(answer.json()["batch_id"])
        found = await acts_of(fleet)
        new = found[: len(found) - count]
        assert new, operation
        assert {(one["act"], one["subject"], one["outcome"]) for one in new} == {(act, "ann", "done")}, operation
        count = len(found)


async def test_the_record_of_clients_that_were_added_to_a_job_names_them(http: httpx.AsyncClient) -> None:
    for client_id in ("till-1", "till-2", "till-3"):
        await done(http, "POST", "/clients", {"client_id": client_id})
    job = {"job_id": "j", "targets": {"clients": ["till-1"]}, "files": {"paths": ["/data/*"]}}
    await done(http, "POST", "/jobs", job)
    assert (await done(http, "POST", "/jobs/j/add-clients", {"clients": ["till-*"]}))["acted_on"] == 2
    (added,) = await records(http, act="job.add_clients")
    assert (added["clients"], added["client_count"], added["detail"]["targets"]) == (["till-2", "till-3"], 2, "till-*")
    assert [one["act"] for one in await records(http, client_id="till-2")] == ["job.add_clients", "client.expect"]


@pytest.mark.parametrize(
    ("verb", "body"), [("approve", {"as_of": "2030-01-01T00:00:00Z"}), ("reject", {"where": {"clients": ["berlin-1"]}})]
)
async def test_the_record_of_an_approval_names_the_clients_that_waited(
    fleet: Fleet, verb: str, body: dict[str, object]
) -> None:
    assert (await done(fleet.http, "POST", f"/jobs/berlin-job/{verb}", body))["acted_on"] == 1
    (one,) = await acts_of(fleet)
    assert (one["act"], one["clients"], one["client_count"]) == (f"job.{verb}", ["berlin-1"], 1)


async def test_a_repeat_that_changes_nothing_leaves_no_record(http: httpx.AsyncClient) -> None:
    for _ in range(2):
        await done(http, "POST", "/clients", {"client_id": "till-1", "labels": {"site": "berlin"}})
        await done(http, "PUT", "/groups/tills", {"clients": ["till-1"]})
        job = {"job_id": "j", "targets": {"clients": ["till-1"]}, "files": {"paths": ["/data/*"]}}
        await done(http, "POST", "/jobs", job)
    assert [one["act"] for one in await records(http)] == ["job.create", "group.put", "client.expect"]


async def test_a_repeated_act_leaves_no_record(http: httpx.AsyncClient) -> None:
    """Of a job, a budget and a webhook: what is there already is not done again."""
    await done(http, "POST", "/clients", {"client_id": "till-1", "labels": {"site": "berlin"}})
    job = {"job_id": "j", "targets": {"clients": ["till-1"]}, "files": {"paths": ["/data/*"]}, "priority": 3}
    await done(http, "POST", "/jobs", job)
    hook = await done(http, "POST", "/webhooks", {"url": "https://192.0.2.1/path"})
    rate = {"bytes_per_second": 1_000_000}
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for method, path, body, fresh in (
        ("POST", "/jobs/j/pause", None, 1),
        ("POST", "/jobs/j/resume", None, 1),
        ("PATCH", "/jobs/j", {"priority": 3}, 0),
        ("PATCH", "/jobs/j", {"priority": 4}, 1),
        ("POST", "/jobs/j/add-clients", {"clients": ["till-1"]}, 0),
        ("POST", "/jobs/j/extend", {"deadline": tomorrow}, 1),
        ("POST", "/jobs/j/cancel", None, 1),
        ("PUT", "/budgets/site/berlin", rate, 1),
        ("PATCH", f"/webhooks/{hook['webhook_id']}", {"enabled": False}, 1),
        ("PATCH", f"/webhooks/{hook['webhook_id']}", {"enabled": False}, 0),
    ):
        before = len(await records(http, limit="200"))
        answers = []
        for _ in range(2):
            version = {"If-Match": (await http.get("/jobs/j")).headers["etag"]}
            answers.append(await done(http, method, path, body, **version))
        assert len(await records(http, limit="200")) == before + fresh, (method, path)
        if "/budgets/" in path:
            assert answers[0] == answers[1]


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


async def test_what_a_caller_with_a_reach_looks_for_outside_of_it_is_recorded(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    """It is answered as if it did not exist, to that caller; an auditor sees that it tries names."""
    await done(http, "POST", "/clients", {"client_id": "munich-1", "labels": {"site": "munich"}})
    token = create_token(SECRET, Principal("bob", clients="site=berlin"), 600)
    async with http_to(app, {"Authorization": f"Bearer {token}"}) as bound:
        for path in ("/clients/munich-1", "/jobs/j", "/nothing"):
            assert (await bound.get(path)).status_code == 404
        assert (await bound.patch("/clients/munich-1/labels", json={"a": "b"})).status_code == 404
    assert (await http.get("/clients/munich-2")).status_code == 404
    await app.state.denials.flush()
    found = await records(http, outcome="denied")
    assert [(one["subject"], one["detail"]) for one in reversed(found)] == [
        ("bob", {"method": method, "path": path, "status": 404})
        for method, path in (
            ("GET", "/clients/munich-1"),
            ("GET", "/jobs/j"),
            ("PATCH", "/clients/munich-1/labels"),
        )
    ]


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


async def test_the_keys_are_made_once_beside_the_database_and_only_their_owner_reads_them(
    tmp_path: Path, app: FastAPI
) -> None:
    for name in ("audit-key.json", "signing-key.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    before = app.state.audit.key
    again = create_app(
        Settings.load({"DATABASE_URL": f"sqlite:///{tmp_path / 'backhaul.db'}", "AWS_ENDPOINT": "http://127.0.0.1:9"})
    )
    assert again.state.audit.key == before
