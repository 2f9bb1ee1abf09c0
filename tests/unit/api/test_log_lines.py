"""What REST logs: each command, each disclosure and each denial, with its caller and address; nothing else."""

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from control_plane.api.auth import create_token
from control_plane.observability import Metrics
from control_plane.settings import Settings
from tests.support.fake_services import SECRET, FakeServices, api_over, http_to

# Made when this file is read, and used when the other files of the run are through: an hour may be over by then.
TOKEN = {"Authorization": f"Bearer {create_token(SECRET, 'ann', 86_400)}"}
DISCLOSURES = {"/clients/{client_id}/files", "/uploads/{upload_id}/url"}
OF_JOBS = {"/jobs/{job_id}/files", "/jobs/{job_id}/manifest", "/jobs/{job_id}/results"}
QUIET = ("/clients", "/clients/{client_id}", "/status/{client_id}", "/uploads", "/uploads/{upload_id}", "/health")


class Recording(Metrics):
    """Keeps the events."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        self.lines.append((event, dict(facts)))


def api(recorded: Recording, **settings: str) -> FastAPI:
    return api_over(FakeServices(), Settings.load({"JWT_SECRET": SECRET, **settings}), recorded)


async def logged(method: str, path: str, headers: dict[str, str], **settings: str) -> list[tuple[str, dict[str, Any]]]:
    recorded = Recording()
    async with http_to(api(recorded, **settings), headers=headers) as http:
        await http.request(method, path)
    return recorded.lines


@pytest.mark.parametrize(
    ("method", "path", "event", "facts"),
    [
        ("POST", "/trigger-download/restaurant-1", "rest.command", {"status": 200, "client_id": "restaurant-1"}),
        ("DELETE", "/clients/restaurant-9", "rest.command", {"status": 404}),
        ("GET", "/uploads/upload-1/url", "rest.disclosure", {"status": 200, "upload_id": "upload-1"}),
        ("HEAD", "/uploads/upload-1/url", "rest.disclosure", {"status": 200}),
        ("GET", "/clients/restaurant-1/files?pattern=/data/*", "rest.disclosure", {"pattern": "/data/*"}),
    ],
)
async def test_an_effect_is_one_line_whatever_the_method(
    method: str, path: str, event: str, facts: dict[str, Any]
) -> None:
    """A GET that reads a file's bytes or names is an effect as a POST is."""
    [(name, line)] = await logged(method, path, TOKEN)
    assert name == event
    who = {"caller": "ann", "address": "127.0.0.1", "method": method, "path": path.partition("?")[0]}
    assert line.items() >= {**who, **facts}.items()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer x"}, 401),
        ({**TOKEN, "Origin": "https://evil.example"}, 403),
        ({**TOKEN, "Host": "evil.example"}, 421),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_denial_is_one_line(method: str, headers: dict[str, str], status: int) -> None:
    [(name, line)] = await logged(method, "/clients/" + "x" * 5000, headers)
    assert (name, line["status"], line["address"]) == ("rest.denied", status, "127.0.0.1")
    assert len(line["path"]) <= 256


def test_every_route_that_discloses_is_known() -> None:
    """Names or bytes of files. A new one must be put into one of the two lists."""
    served = [route for route in api(Recording()).routes if isinstance(route, APIRoute)]
    assert len(served) > len(DISCLOSURES | OF_JOBS)
    marked = {route.path for route in served if "discloses(request" in inspect.getsource(route.endpoint)}
    assert marked == DISCLOSURES | OF_JOBS


async def test_what_discloses_no_file_is_not_logged() -> None:
    recorded = Recording()
    application = api(recorded)
    async with http_to(application, headers=TOKEN) as http:
        for path in QUIET:
            answer = await http.get(path.format(client_id="restaurant-1", upload_id="upload-1"))
            assert answer.status_code == 200, path
        assert recorded.lines == []
        for path in DISCLOSURES:
            query = {"pattern": "/**"} if path.endswith("files") else {}
            await http.get(path.format(client_id="restaurant-1", upload_id="upload-1"), params=query)
    assert [event for event, _ in recorded.lines] == ["rest.disclosure"] * len(DISCLOSURES)


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("10.9.9.9, 203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("203.0.113.7, \x1b[2J", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
async def test_behind_one_proxy_the_address_is_the_one_that_the_proxy_added(forwarded: str, address: str) -> None:
    """What stands before the last comma was sent by the caller."""
    headers = {**TOKEN, "X-Forwarded-For": forwarded}
    [(_, line)] = await logged("GET", "/uploads/upload-1/url", headers, TRUSTED_PROXIES="1")
    assert line["address"] == address


async def test_without_a_trusted_proxy_the_header_is_ignored() -> None:
    [(_, line)] = await logged("GET", "/uploads/upload-1/url", {**TOKEN, "X-Forwarded-For": "203.0.113.7"})
    assert line["address"] == "127.0.0.1"
