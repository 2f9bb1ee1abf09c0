"""Rights of a token: every call declares its scopes in the OpenAPI document, and is refused without one of them.

Rule: the calls come from the document, so a call that is added later is in each test.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Any, Final

import httpx
import pytest
from fastapi import Request
from fastapi.routing import APIRoute

from control_plane.api.app import ROUTERS
from control_plane.api.auth import OF_DEVICES, OPEN, OPEN_BELOW, SESSION_PATH, check_rights, create_token
from control_plane.api.events.stream import permitted
from control_plane.api.tokens.reach import require_bound
from control_plane.domain.access import ALL, Principal, Scope
from control_plane.domain.errors import Forbidden
from control_plane.services.clients.service import FoundClients
from control_plane.services.events.filters import CHANGE_NAMES, ChangeFilter
from control_plane.services.ports.database import OpenUploads
from tests.support.fake_services import SECRET, FakeServices, an_upload, http_to, make_api

ANY_TOKEN: Final = {("get", "/health/ready"), ("post", "/session/codes")}
"""Calls that every token may make: they show nothing of the fleet, or act on the caller alone."""

Call = tuple[str, str, list[list[str]]]


def document() -> dict[str, Any]:
    found: dict[str, Any] = make_api(FakeServices(), JWT_SECRET=SECRET).openapi()
    return found


def calls() -> Iterator[Call]:
    """(method, path, alternatives of scopes) of every call that needs a token."""
    for path, operations in document()["paths"].items():
        if path in OPEN | OF_DEVICES or path == SESSION_PATH or path.startswith(OPEN_BELOW):
            continue
        for method, operation in operations.items():
            declared = [one["bearer"] for one in operation.get("security", ())]
            yield method, path, declared


CALLS: Final = list(calls())
ROUTES: Final = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def name(call: Call) -> str:
    return f"{call[0]} {call[1]}"


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def http(services: FakeServices) -> AsyncIterator[httpx.AsyncClient]:
    async with http_to(make_api(services, JWT_SECRET=SECRET)) as client:
        yield client


async def request(http: httpx.AsyncClient, call: Call, scopes: frozenset[Scope]) -> httpx.Response:
    """The call, with invalid parameters and body where it has some: the answer is 403 only for want of a scope."""
    path = re.sub(r"\{\w+\}", "%00", call[1])
    token = create_token(SECRET, Principal("me", scopes), 60)
    return await http.request(call[0], path, headers={"Authorization": f"Bearer {token}"}, json=[])


def test_every_route_asks_for_the_scopes_and_the_reach_of_its_caller() -> None:
    served = [route for route in make_api(FakeServices()).routes if isinstance(route, APIRoute)]
    assert len(served) == len(ROUTES) > len(CALLS)
    for route in served:
        asked = [dependency.call for dependency in route.dependant.dependencies]
        assert asked[:2] == [check_rights, require_bound], route.path


@pytest.mark.parametrize("call", CALLS, ids=name)
def test_every_call_declares_its_scopes(call: Call) -> None:
    method, path, declared = call
    assert declared, "a route needs openapi_extra=needs(...)"
    assert set(chain(*declared)) <= set(Scope)
    assert all(declared) != ((method, path) in ANY_TOKEN)


@pytest.mark.parametrize("call", [call for call in CALLS if all(call[2])], ids=name)
async def test_a_call_is_refused_without_a_scope_that_it_declares(
    http: httpx.AsyncClient, services: FakeServices, call: Call
) -> None:
    for missing in {scope for one in call[2] for scope in one}:
        lacking = ALL - {Scope(missing)} if len(call[2]) == 1 else ALL - set(map(Scope, chain(*call[2])))
        answer = await request(http, call, lacking)
        assert (answer.status_code, answer.json()["type"]) == (403, "/help/reasons/forbidden")
        assert any(scope in answer.json()["detail"] for one in call[2] for scope in one)
    assert services.calls == []


@pytest.mark.parametrize("call", CALLS, ids=name)
async def test_a_call_is_not_refused_with_exactly_what_it_declares(call: Call) -> None:
    """The check alone: what the call does then is tested elsewhere."""
    route = next(one for one in ROUTES if one.path_format == call[1] and call[0].upper() in (one.methods or ()))
    for scopes in call[2]:
        caller = Principal("me", frozenset(map(Scope, scopes)))
        scope = {
            "type": "http",
            "method": call[0].upper(),
            "path": call[1],
            "route": route,
            "state": {"caller": caller},
        }
        assert await check_rights(Request(scope)) is None  # type: ignore[func-returns-value]


async def test_a_token_without_scopes_may_do_nothing(http: httpx.AsyncClient, services: FakeServices) -> None:
    for call in CALLS:
        if call[:2] not in ANY_TOKEN:
            assert (await request(http, call, frozenset())).status_code == 403
    assert services.calls == []


@pytest.mark.parametrize("name", CHANGE_NAMES)
def test_each_change_on_the_stream_needs_the_scope_of_its_kind(name: str) -> None:
    """Each has one; a caller that names it and lacks the scope is refused, and one that names none does not get it."""
    readers = [
        scope
        for scope in Scope
        if permitted(ChangeFilter(), Principal("me", frozenset({scope}))).wants(name)
        and permitted(ChangeFilter(), Principal("me", frozenset({scope}))).types
    ]
    assert len(readers) == 1
    lacking = Principal("me", ALL - set(readers))
    assert not permitted(ChangeFilter(), lacking).wants(name)
    with pytest.raises(Forbidden, match=str(readers[0])):
        permitted(ChangeFilter(types=frozenset({name})), lacking)
    assert permitted(ChangeFilter(types=frozenset({name})), Principal("me")).types == {name}


async def test_a_download_list_reads_objects(http: httpx.AsyncClient) -> None:
    token = create_token(SECRET, Principal("me", frozenset({Scope.JOBS_READ})), 60)
    answer = await http.get("/jobs/j/results?format=curl", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, "objects:read" in answer.json()["detail"]) == (403, True)


async def test_the_document_of_a_server_without_tokens_shows_no_rights() -> None:
    text = json.dumps(make_api(FakeServices()).openapi())
    assert "x-rights" not in text
    assert "securitySchemes" not in text


async def test_which_file_a_client_sends_needs_the_right_to_read_uploads(
    http: httpx.AsyncClient, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = {"restaurant-1": OpenUploads(3, an_upload())}
    found = FoundClients(list(services.known.values()), None, 1, None, busy)

    async def clients(*_: object) -> FoundClients:
        return found

    monkeypatch.setattr(services, "clients", clients)
    for scopes, shown in (({Scope.CLIENTS_READ}, False), ({Scope.CLIENTS_READ, Scope.UPLOADS_READ}, True)):
        token = create_token(SECRET, Principal("me", frozenset(scopes)), 60)
        bearer = {"Authorization": f"Bearer {token}"}
        status = (await http.get("/status/restaurant-1", headers=bearer)).json()
        (row,) = (await http.get("/clients", headers=bearer)).json()["clients"]
        assert [one["current_upload"] is not None for one in (status, row)] == [shown, shown]
        assert row["open_uploads"] == 3
