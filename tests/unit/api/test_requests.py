"""Requests: what is accepted, and what of it reaches the services."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from control_plane.domain.access import ANONYMOUS
from control_plane.domain.clients import ClientState
from control_plane.domain.uploads.model import State
from control_plane.services.clients.choosing import ClientFilter
from control_plane.services.ports.database import Page
from control_plane.services.uploads.service import TriggerRequest
from schemas.values import DigestName
from tests.support.fake_services import NOW, FakeServices, http_to, make_api

WRONG_DEADLINES: tuple[object, ...] = (
    *(0, -1, 2_592_001, True, [], {}, "tomorrow", "3600"),
    *("2025-11-02", "2025-11-02T10:00:00", "2025-11-02T10:00:00+0100"),
)
TRIGGER = "/trigger-download/restaurant-1"


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def http(services: FakeServices) -> AsyncIterator[httpx.AsyncClient]:
    async with http_to(make_api(services)) as client:
        yield client


def last_trigger(services: FakeServices) -> TriggerRequest:
    """The last trigger that reached the services."""
    requests = [arguments for name, arguments in services.calls if name == "trigger"]
    assert isinstance(requests[-1], TriggerRequest)
    return requests[-1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"content": b""},
        {"content": b"", "headers": {"Content-Type": "application/json"}},
        {"content": b"null", "headers": {"Content-Type": "application/json"}},
        {"json": {}},
        {"json": {"file_path": None, "metadata": {}, "options": {}, "deadline": None}},
    ],
)
async def test_the_body_is_optional(http: httpx.AsyncClient, services: FakeServices, body: dict[str, Any]) -> None:
    answer = await http.post(TRIGGER, **body)
    assert answer.status_code == 200
    request = last_trigger(services)
    assert (request.client_id, request.file_path) == ("restaurant-1", None)
    assert services.principals == [replace(ANONYMOUS, address="127.0.0.1")]
    assert (request.deadline, request.idempotency_key, dict(request.metadata)) == (None, None, {})


async def test_every_member_of_the_body_reaches_the_service(http: httpx.AsyncClient, services: FakeServices) -> None:
    body = {
        "file_path": "/data/Bücher & more.bin",
        "metadata": {"key": ["value", 1, None]},
        "options": {"priority": 3.0, "on_change": "prefix", "compression": "gzip", "max_bytes_per_second": 1000},
        "deadline": 3600,
    }
    answer = await http.post(TRIGGER, json=body, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 200
    request = last_trigger(services)
    assert (request.file_path, request.metadata) == (body["file_path"], body["metadata"])
    assert (request.options.priority, request.options.on_change, request.options.compression) == (3, "prefix", "gzip")
    assert (request.options.max_bytes_per_second, request.options.give_up_after) == (1000, 86_400)
    assert (request.deadline, request.idempotency_key) == (NOW + 3600, "once")


@pytest.mark.parametrize(
    ("deadline", "at"),
    [
        (0.5, NOW + 0.5),
        (2_592_000, NOW + 2_592_000),
        ("2025-11-02T10:00:00Z", NOW + 86_400),
        ("2025-11-02T12:00:00.5+02:00", NOW + 86_400.5),
    ],
)
async def test_a_deadline_is_an_instant_or_seconds_from_now(
    http: httpx.AsyncClient, services: FakeServices, deadline: object, at: float
) -> None:
    assert (await http.post(TRIGGER, json={"deadline": deadline})).status_code == 200
    assert last_trigger(services).deadline == at


async def test_the_digest_of_a_request_is_independent_of_its_spelling(
    http: httpx.AsyncClient, services: FakeServices
) -> None:
    bodies = [b'{"file_path":"/a","metadata":{"a":1,"b":2}}', b'{ "metadata": {"b": 2, "a": 1}, "file_path": "/a" }']
    for body in bodies:
        await http.post(TRIGGER, content=body, headers={"Content-Type": "application/json"})
    await http.post(TRIGGER, json={"file_path": "/a", "metadata": {"a": 1, "b": 3}})
    one, same, other = [arguments.body_digest for name, arguments in services.calls if name == "trigger"]
    assert one == same != other
    assert len(one) == 64


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"file_paht": "/a"}, "file_paht: extra inputs are not permitted"),
        ({"file_path": ""}, "file_path: string should have at least 1 character"),
        ({"file_path": "a\0b"}, "file_path: must not hold a NUL"),
        ({"file_path": "/" + "a" * 4096}, "file_path: string should have at most 4096 characters"),
        ({"file_path": 7}, "file_path: input should be a valid string"),
        ({"metadata": []}, "metadata: input should be a valid dictionary"),
        ({"metadata": {"a": "x" * 5000}}, "metadata: metadata of 5008 bytes is too large: at most 4096 are kept"),
        ({"metadata": {"a": [[[[[[[[1]]]]]]]]}}, "metadata: nests deeper than 8"),
        ({"options": {"priority": 1.5}}, "options.priority: input should be a valid integer"),
        ({"options": {"priority": "1"}}, "options.priority: input should be a valid integer"),
        ({"options": {"on_change": "ignore"}}, "options.on_change: input should be 'fail' or 'prefix'"),
        ({"options": {"colour": 1}}, "options.colour: extra inputs are not permitted"),
        *(({"deadline": wrong}, "deadline: must be an RFC 3339 instant") for wrong in WRONG_DEADLINES),
        ({"deadline": "2025-13-02T10:00:00Z"}, "deadline: month must be in 1..12"),
        ([], "body: input should be a valid dictionary"),
        ("x", "body: input should be a valid dictionary"),
    ],
)
async def test_a_wrong_body_is_one_clear_sentence(
    http: httpx.AsyncClient, services: FakeServices, body: object, detail: str
) -> None:
    answer = await http.post(TRIGGER, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(detail)
    assert services.calls == []


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe{",
        b"[" * 20_000,
        b'{"metadata":{"a":' + b"9" * 5000 + b"}}",
    ],
)
async def test_a_body_that_is_no_json_is_refused_with_that_title(http: httpx.AsyncClient, content: bytes) -> None:
    answer = await http.post(TRIGGER, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["title"]) == (400, "The body is not JSON")


@pytest.mark.parametrize(
    "content",
    [b'{"metadata":{"a":NaN}}', b'{"metadata":{"a":1e999}}', b'{"metadata":{"\\ud800":1}}', b'{"file_path":"\\ud800"}'],
)
async def test_json_that_not_every_parser_reads_is_refused(http: httpx.AsyncClient, content: bytes) -> None:
    answer = await http.post(TRIGGER, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


async def test_a_body_needs_the_content_type_of_json(http: httpx.AsyncClient) -> None:
    form = await http.post(TRIGGER, data={"file_path": "/a"})
    bare = await http.post(TRIGGER, content=b'{"file_path":"/a"}')
    assert [answer.status_code for answer in (form, bare)] == [415, 415]
    assert "application/json" in form.json()["title"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, b"caf\xe9"])
async def test_an_idempotency_key_is_visible_ascii(http: httpx.AsyncClient, key: str | bytes) -> None:
    raw = key if isinstance(key, bytes) else key.encode()
    answer = await http.post(TRIGGER, headers=[(b"Idempotency-Key", raw)])
    assert answer.status_code == 422
    assert answer.json()["detail"] == "idempotency-key: must be 1 to 255 visible ASCII characters"


@pytest.mark.parametrize("client_id", ["cli-1", "control-plane", "operator-x", "a%2Fb", "%2B", "a" * 65, "a%0A", ".a"])
async def test_an_invalid_client_id_is_refused(http: httpx.AsyncClient, client_id: str) -> None:
    paths = (f"/trigger-download/{client_id}", f"/status/{client_id}", f"/clients/{client_id}")
    answers = [await http.request("POST" if "trigger" in path else "GET", path) for path in paths]
    assert {answer.status_code for answer in answers} <= {404, 422}
    assert {answer.json()["type"].rpartition("/")[2] for answer in answers} <= {"bad-input", "not-found"}


async def test_an_unknown_client_is_named(http: httpx.AsyncClient) -> None:
    answer = await http.post("/trigger-download/restaurant-9")
    assert answer.status_code == 404
    assert "'restaurant-9'" in answer.json()["detail"]


async def test_uploads_are_filtered(http: httpx.AsyncClient, services: FakeServices) -> None:
    query = "client_id=restaurant-1&status=failed&error=file_not_found&limit=7&cursor=abc"
    assert (await http.get(f"/uploads?{query}")).status_code == 200
    where, page, reason = services.calls[-1][1]
    assert reason is None
    assert (where.client_id, where.error) == ("restaurant-1", "file_not_found")
    assert where.states == {State.FAILED, State.REJECTED, State.EXPIRED}
    assert page == Page(7, "abc")


async def test_clients_are_filtered_by_labels(http: httpx.AsyncClient, services: FakeServices) -> None:
    assert (await http.get("/clients?selector=site%3Dberlin,!retired&state=offline&limit=1")).status_code == 200
    assert services.calls[-1][1] == (
        ClientFilter(None, "site=berlin,!retired", ClientState.OFFLINE),
        Page(1, None),
    )


@pytest.mark.parametrize(
    "path",
    [
        "/uploads?statsu=failed",
        "/uploads?status=done",
        "/uploads?state=in-progress",
        "/uploads?limit=0",
        "/uploads?limit=501",
        "/uploads?limit=ten",
        "/uploads?cursor=",
        "/uploads?client_id=cli-1",
        "/uploads?error=DROP%20TABLE",
        "/clients?label=site=berlin",
        "/clients?state=away",
        "/clients?selector=" + "x" * 8_193,
        "/clients/restaurant-1/files",
        "/clients/restaurant-1/files?pattern=",
        "/clients/restaurant-1/files?pattern=a%00b",
        "/clients/restaurant-1/files?pattern=a&digest=rot13",
        "/uploads/a%20b",
        "/uploads/upload-1?clientid=x",
        "/jobs?schedule_id=a%00",
        "/budgets/site/a%00",
        "/budgets/a%00/berlin",
    ],
)
async def test_a_wrong_query_is_refused(http: httpx.AsyncClient, services: FakeServices, path: str) -> None:
    answer = await http.get(path)
    assert (answer.status_code, services.calls) == (422, [])
    assert answer.json()["detail"]


async def test_the_query_for_files_reaches_the_service(http: httpx.AsyncClient, services: FakeServices) -> None:
    answer = await http.get("/clients/restaurant-1/files?pattern=/data/*.bin&limit=9&cursor=c&digest=md5&folders=true")
    client_id, wanted = services.calls[-1][1]
    assert (client_id, wanted.pattern, wanted.limit, wanted.cursor) == ("restaurant-1", "/data/*.bin", 9, "c")
    assert (wanted.digest, wanted.folders) == (DigestName.MD5, True)
    assert answer.json() == {
        "files": [{"path": "/data/a", "size": 1, "mtime_ns": 3, "digest": None, "folder": False}],
        "cursor": "next",
        "live": True,
        "as_of": "2025-11-01T10:00:00.000Z",
        "reason": None,
    }


async def test_the_client_id_of_an_upload_reaches_the_service(http: httpx.AsyncClient, services: FakeServices) -> None:
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/url")):
        assert (await http.request(method, f"/uploads/upload-1{path}?client_id=restaurant-1")).status_code == 200
        assert services.calls[-1] == ("upload", ("upload-1", "restaurant-1"))


def test_the_clock_of_the_fake_shows_the_instant_of_the_examples() -> None:
    assert datetime.fromtimestamp(NOW, UTC).isoformat() == "2025-11-01T10:00:00+00:00"


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/clients", "/status/restaurant-1", "/openapi.json"])
async def test_head_is_answered_wherever_get_is_without_a_body(http: httpx.AsyncClient, path: str) -> None:
    """Monitors ask with HEAD; `curl -I` and `wget --spider` do so too."""
    got, head = await http.get(path), await http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers} == {**got.headers}


async def test_head_of_a_path_without_get_is_refused_with_the_methods(http: httpx.AsyncClient) -> None:
    answer = await http.head(TRIGGER)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
