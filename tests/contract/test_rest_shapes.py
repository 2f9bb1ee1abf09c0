"""The shapes of REST, member by member, and that the OpenAPI document has them all."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import validate

from control_plane.api import examples, models
from control_plane.api.app import ROUTERS
from control_plane.api.bodies import TriggerBody
from control_plane.domain.uploads.model import PartRecord, Proof, State
from control_plane.services.readiness import Readiness
from control_plane.services.uploads.views import UploadView
from schemas.parts import MIB
from schemas.topics import Channel
from tests.support.fake_services import NOW, SECRET, FakeServices, a_client, an_upload, http_to, make_api

UPLOAD = {
    *("upload_id", "client_id", "file_path", "s3_key", "status", "state", "progress", "completed_parts"),
    *("total_parts", "bytes_uploaded", "file_size", "attempt", "proof", "receipt", "after", "encrypt_to"),
    *("reason", "error", "message"),
    *("metadata", "origin", "job_id", "deadline", "created_at", "updated_at", "completed_at"),
}
OPERATIONS = {
    "exportAudit",
    "listAudit",
    "triggerDownload",
    *("listUploads", "getUpload", "cancelUpload", "retryUpload", "getObjectUrl"),
    *("getReceipt", "verifyUpload"),
    *("expectClients", "setLabels", "changeLabels", "dropLabel"),
    *("listGroups", "createGroup", "getGroup", "putGroup", "deleteGroup"),
    *("getClientStatus", "listClients", "getClient", "forgetClient", "listFiles"),
    "streamEvents",
    *("createWebhook", "listWebhooks", "getWebhook", "changeWebhook", "deleteWebhook"),
    *("listDeliveries", "replayDelivery", "replayDead"),
    *("createJob", "listJobs", "getJob", "tuneJob", "pauseJob", "resumeJob", "cancelJob", "extendJob", "approveJob"),
    *("rejectJob", "retryJob", "addClientsToJob", "listExecutions", "listJobFiles", "getManifest", "getResults"),
    *("createSchedule", "listSchedules", "getSchedule", "replaceSchedule", "deleteSchedule", "pauseSchedule"),
    *("resumeSchedule", "skipNextTick", "runScheduleNow", "backfillSchedule", "previewSchedule", "listRuns"),
    *("getCoverage",),
    *("listBudgets", "getBudget", "putBudget", "deleteBudget"),
    *("getHealth", "getReadiness", "getHealthDetails", "getMetrics", "getFleet", "getFleetHistory"),
    *("getSession", "signIn", "signOut", "createSessionCode"),
    *("listTokens", "getToken", "revokeToken"),
    *("enrollDevice", "listDevices", "getDevice", "rotateDevice", "revokeDevice", "acceptDeviceKey", "forgetDevice"),
    *("listEnrollments", "approveEnrollment", "rejectEnrollment", "askToEnroll", "pollEnrollment"),
    *("createBatch", "listBatches", "revokeBatch"),
    *("getKeys", "putKeys"),
    *("labelClients", "getClientHistory", "cancelUploads", "getUploadTimeline"),
}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def http(services: FakeServices) -> AsyncIterator[httpx.AsyncClient]:
    async with http_to(make_api(services)) as client:
        yield client


async def document(**settings: str) -> dict[str, Any]:
    """The OpenAPI document of an application with these settings."""
    return make_api(FakeServices(), **settings).openapi()


def routes() -> Iterator[APIRoute]:
    """Every route of the document."""
    for router in ROUTERS:
        yield from (one for one in router.routes if isinstance(one, APIRoute) and one.include_in_schema)


async def test_trigger(http: httpx.AsyncClient) -> None:
    answer = await http.post("/trigger-download/restaurant-1", json={"file_path": "/data/custom-file.bin"})
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "message": "Download triggered for client restaurant-1",
        "upload_id": "upload-1",
        "s3_key": "uploads/restaurant-1/20251101-100000-test-file.bin",
        "status": "queued",
    }


async def test_status_of_a_client(http: httpx.AsyncClient) -> None:
    assert (await http.get("/status/restaurant-1")).json() == {
        "client_id": "restaurant-1",
        "connected": True,
        "connected_at": "2025-11-01T09:55:00.000Z",
        "last_heartbeat": "2025-11-01T09:59:55.000Z",
        "current_upload": {
            "upload_id": "upload-1",
            "file_path": "/data/test-file.bin",
            "status": "queued",
            "progress": 0.0,
        },
        "reason": None,
    }


async def test_a_client_that_does_nothing_has_no_current_upload(
    http: httpx.AsyncClient, services: FakeServices
) -> None:
    services.views.clear()
    services.known["restaurant-1"] = a_client(online=False)
    answer = (await http.get("/status/restaurant-1")).json()
    assert (answer["connected"], answer["current_upload"]) == (False, None)


async def test_clients(http: httpx.AsyncClient) -> None:
    row = {
        "client_id": "restaurant-1",
        "connected": True,
        "state": "connected",
        "last_activity": "2025-11-01T09:59:55.000Z",
        "labels": {"site": "berlin"},
        "reason": None,
    }
    listed = (await http.get("/clients")).json()
    assert listed == {"clients": [{**listed["clients"][0], **row}], "count": 1, "set": None, "cursor": None}
    assert listed["clients"][0]["open_uploads"] == 0, listed
    whole = (await http.get("/clients/restaurant-1")).json()
    assert {name: whole[name] for name in row} == row
    assert (whole["supported"], whole["agent"]["version"]) == (True, "1.0.0")
    assert whole["reason"] is None


async def test_a_client_without_commands_has_a_reason_and_its_code(
    http: httpx.AsyncClient, services: FakeServices
) -> None:
    services.known["restaurant-1"] = a_client(conflict_at=NOW - 5)
    whole = (await http.get("/clients/restaurant-1")).json()
    assert whole["reason"]["text"].startswith("two devices share this client id")
    assert whole["reason"]["code"] == "client_conflict"


async def test_a_client_over_its_budget_is_shown_as_noisy(http: httpx.AsyncClient, services: FakeServices) -> None:
    while services.budget.take("restaurant-1", Channel.STATUS, 100):
        pass
    for path in ("/clients/restaurant-1", "/status/restaurant-1"):
        assert (await http.get(path)).json()["reason"]["code"] == "client_noisy"
    assert (await http.get("/clients")).json()["clients"][0]["reason"]["code"] == "client_noisy"


async def test_an_upload(http: httpx.AsyncClient, services: FakeServices) -> None:
    upload = an_upload(
        state=State.COMPLETED,
        file_size=10 * MIB,
        part_size=5 * MIB,
        parts={1: PartRecord("d", "e"), 2: PartRecord("d", "e")},
        proof=Proof.ETAG,
        metadata={"key": "value"},
        completed_at=1_761_991_205.5,
    )
    services.views["upload-1"] = UploadView(upload, None, None)
    shown = (await http.get("/uploads/upload-1")).json()
    assert set(shown) == UPLOAD
    oldest = ("upload_id", "status", "progress", "completed_parts", "total_parts", "bytes_uploaded")
    assert [shown[name] for name in oldest] == ["upload-1", "completed", 100.0, 2, 2, 10_485_760]
    assert (shown["proof"], shown["metadata"], shown["origin"]) == ("etag", {"key": "value"}, "rest")
    assert shown["completed_at"] == "2025-11-01T10:00:05.500Z"
    assert all(INSTANT.fullmatch(shown[name]) for name in ("created_at", "updated_at", "completed_at"))


async def test_a_waiting_upload_has_a_reason_and_a_next_wake_up(http: httpx.AsyncClient) -> None:
    for path in ("/uploads/upload-1", "/uploads"):
        answer = (await http.get(path)).json()
        shown = answer.get("uploads", [answer])[0]
        assert (shown["reason"]["text"], shown["reason"]["code"]) == ("the client is offline", "client_offline")
        assert shown["reason"]["next_wake_at"] == "2025-11-01T10:00:30.000Z"


async def test_lists_end_with_a_cursor(http: httpx.AsyncClient) -> None:
    answer = (await http.get("/uploads")).json()
    assert set(answer) == {"uploads", "cursor"}
    assert (set(answer["uploads"][0]), answer["cursor"]) == (UPLOAD, "next")


async def test_actions_on_an_upload(http: httpx.AsyncClient) -> None:
    cancelled = await http.post("/uploads/upload-1/cancel")
    again = await http.post("/uploads/upload-1/retry")
    url = await http.get("/uploads/upload-1/url")
    assert (cancelled.json()["state"], again.json()["upload_id"]) == ("cancelled", "upload-2")
    assert url.json() == {
        "upload_id": "upload-1",
        "url": "https://s3.example/uploads/key?X-Amz-Signature=abc",
        "expires_in": 900.0,
    }


async def test_deleting_a_client_has_an_empty_answer(http: httpx.AsyncClient) -> None:
    answer = await http.delete("/clients/restaurant-1")
    assert (answer.status_code, answer.content) == (204, b"")


async def test_health(http: httpx.AsyncClient, services: FakeServices) -> None:
    services.fault = RuntimeError("everything else is broken")
    assert (await http.get("/health")).json() == {"status": "ok", "timestamp": "2025-11-01T10:00:00.000Z"}


async def test_readiness_names_what_is_unavailable(http: httpx.AsyncClient, services: FakeServices) -> None:
    ready = await http.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.json()["probe"]["part_digests"] == ["md5"]
    names = ("broker", "database", "object_store", "clock", "store")
    assert ready.json()["checks"] == dict.fromkeys(names, "ok")
    checks = {"broker": "not connected", "database": "ok", "object_store": "no route", "clock": "ok"}
    services.state = Readiness(ready=False, checks=checks, probe=None)
    answer = await http.get("/health/ready")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json() == {"status": "not ready", "checks": {**checks, "store": "no route"}, "probe": None}


async def test_metrics_are_prometheus_text(http: httpx.AsyncClient) -> None:
    await http.get("/uploads/upload-1")
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    counted = 'backhaul_http_requests_total{method="GET",route="/uploads/{upload_id}",status="200"} 1.0'
    assert counted in answer.text.splitlines()


@pytest.mark.parametrize("settings", [{}, {"JWT_SECRET": SECRET}], ids=["open", "token"])
async def test_the_openapi_document_is_valid(settings: dict[str, str]) -> None:
    described = await document(**settings)
    validate(described)
    assert described["openapi"].startswith("3.1.")


async def test_every_operation_has_a_unique_name() -> None:
    paths = (await document())["paths"]
    assert {operation["operationId"] for methods in paths.values() for operation in methods.values()} == OPERATIONS
    assert {route.operation_id for route in routes()} == OPERATIONS


async def test_every_operation_but_health_and_the_session_needs_a_token() -> None:
    paths = (await document(JWT_SECRET=SECRET))["paths"]
    open_paths = [
        path for path, methods in paths.items() if any({} in one.get("security", [{}]) for one in methods.values())
    ]
    assert sorted(open_paths) == ["/enroll", "/enroll/poll", "/health", "/session"]
    assert "security" not in json.dumps(await document())


async def test_every_failure_in_the_document_is_a_problem_document() -> None:
    paths = (await document(JWT_SECRET=SECRET))["paths"]
    others = [
        (path, status)
        for path, methods in paths.items()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        if int(status) >= 400 and list(answer["content"]) != ["application/problem+json"]
    ]
    # Not ready has a separate answer, which names what is unavailable.
    assert others == [("/health/ready", "503")]


def test_examples_agree_with_the_models() -> None:
    pairs: list[tuple[type[models.Output], dict[str, Any]]] = [
        (models.Triggered, examples.TRIGGERED),
        (models.ClientStatus, examples.CLIENT_STATUS),
        (models.ClientPage, examples.CLIENT_PAGE),
        (models.Client, examples.CLIENT),
        (models.UploadPage, examples.UPLOAD_PAGE),
        (models.ObjectUrl, examples.OBJECT_URL),
        (models.FilePage, examples.FILE_PAGE),
        (models.Health, examples.HEALTH),
        (models.Readiness, examples.READINESS),
        (models.ProblemDocument, examples.PROBLEM),
    ]
    for model, example in pairs:
        assert model.model_validate(example).model_dump(mode="json") == example
    TriggerBody.model_validate(examples.TRIGGER)
    assert set(examples.UPLOAD) == UPLOAD


async def test_an_instant_is_parsed_by_the_standard_library(http: httpx.AsyncClient) -> None:
    at = (await http.get("/health")).json()["timestamp"]
    assert datetime.fromisoformat(at).utcoffset() is not None
