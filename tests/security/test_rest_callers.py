"""REST against foreign pages, foreign host names, and bodies without end."""

from collections.abc import AsyncIterator

import httpx
import pytest

from control_plane.api.gates import MAX_BODY, SECURITY_HEADERS
from tests.support.fake_services import HOST, SECRET, FakeServices, http_to, make_api

TRIGGER = "/trigger-download/restaurant-1"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
async def http(services: FakeServices) -> AsyncIterator[httpx.AsyncClient]:
    async with http_to(make_api(services)) as client:
        yield client


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """A body without a Content-Length."""
    for _ in range(size // 1024):
        yield b" " * 1024


async def test_a_body_of_the_largest_size_is_accepted(http: httpx.AsyncClient) -> None:
    body = b"{}".ljust(MAX_BODY)
    assert (await http.post(TRIGGER, content=body, headers=JSON)).status_code == 200


async def test_a_larger_body_is_refused(http: httpx.AsyncClient, services: FakeServices) -> None:
    answer = await http.post(TRIGGER, content=b"{}".ljust(MAX_BODY + 1), headers=JSON)
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert answer.headers["content-type"] == "application/problem+json"
    assert services.calls == []


async def test_the_limit_counts_bytes_and_ignores_content_length(
    http: httpx.AsyncClient, services: FakeServices
) -> None:
    undeclared = await http.post(TRIGGER, content=in_pieces(MAX_BODY * 2), headers=JSON)
    understated = await http.post(TRIGGER, content=in_pieces(MAX_BODY * 2), headers={**JSON, "Content-Length": "2"})
    overstated = await http.post(TRIGGER, content=b"{}", headers={**JSON, "Content-Length": "9" * 30})
    assert [answer.status_code for answer in (undeclared, understated, overstated)] == [413, 413, 413]
    assert services.calls == []


async def test_every_path_has_the_limit(http: httpx.AsyncClient) -> None:
    for method, path in (("POST", "/uploads/upload-1/cancel"), ("GET", "/clients"), ("POST", "/nowhere")):
        assert (await http.request(method, path, content=b"x" * (MAX_BODY + 1))).status_code == 413


@pytest.mark.parametrize("path", ["/health", "/clients", "/nowhere", "/uploads/nope", "/openapi.json"])
async def test_every_answer_has_the_security_headers(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "server" not in answer.headers


async def test_refusals_have_the_security_headers() -> None:
    async with http_to(make_api(FakeServices(), JWT_SECRET=SECRET)) as http:
        answer = await http.get("/clients")
    assert answer.status_code == 401
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_command_from_a_page_of_another_site_is_refused(
    http: httpx.AsyncClient, services: FakeServices, headers: dict[str, str]
) -> None:
    """A browser sends a POST without a body for any page, without a preflight request."""
    for method, path in (("POST", TRIGGER), ("POST", "/uploads/upload-1/cancel"), ("DELETE", "/clients/restaurant-1")):
        answer = await http.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:backhaul:problem:foreign-page")
    assert services.calls == []


async def test_a_command_from_a_page_of_this_origin_is_accepted(http: httpx.AsyncClient) -> None:
    own = {"Origin": HOST, "Sec-Fetch-Site": "same-origin"}
    assert (await http.post(TRIGGER, headers=own)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil:80"])
async def test_a_foreign_host_name_is_refused_without_a_token(
    http: httpx.AsyncClient, services: FakeServices, host: str
) -> None:
    """DNS rebinding: without a token, only the host name distinguishes a foreign page."""
    answer = await http.get("/clients", headers={"Host": host})
    assert answer.status_code == 421
    assert services.calls == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9", "localhost", "localhost:8080", "[::1]:8080", "[::1]"])
async def test_the_names_of_this_machine_are_served(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get("/clients", headers={"Host": host})).status_code == 200


async def test_any_host_name_is_served_with_a_token_or_auth_off() -> None:
    for settings, status in (({"JWT_SECRET": SECRET}, 401), ({"AUTH": "off"}, 200)):
        async with http_to(make_api(FakeServices(), **settings)) as http:
            assert (await http.get("/clients", headers={"Host": "backhaul.example"})).status_code == status
