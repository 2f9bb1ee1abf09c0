"""REST against foreign pages, foreign host names, and bodies without end."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from control_plane.api.devices.models import BatchBody
from control_plane.api.gates import LARGE_BODIES, MAX_BODY, SECURITY_HEADERS
from control_plane.domain.batches import MAX_COUNT
from control_plane.settings import Settings, SettingsError
from tests.support.fake_services import HOST, SECRET, FakeServices, http_to, make_api

TRIGGER = "/trigger-download/restaurant-1"
JSON = {"Content-Type": "application/json"}
ANYWHERE = ".".join("0000")


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


@pytest.mark.parametrize(("request_line", "limit"), LARGE_BODIES.items())
async def test_a_request_that_lists_clients_has_a_larger_limit(
    http: httpx.AsyncClient, request_line: tuple[str, str], limit: int
) -> None:
    """And only that method of that path."""
    method, path = request_line
    within = await http.request(method, path, content=b"[]".ljust(limit), headers=JSON)
    beyond = await http.request(method, path, content=b"[]".ljust(limit + 1), headers=JSON)
    elsewhere = await http.request(method, f"{path}/x", content=b"[]".ljust(MAX_BODY + 1), headers=JSON)
    assert (within.status_code != 413, beyond.status_code, elsewhere.status_code) == (True, 413, 413)


def test_a_batch_of_the_most_serials_is_no_larger_than_its_limit() -> None:
    body = BatchBody(
        allowed_roots=("/srv/outbox",),
        labels={},
        names="till-{n}",
        count=MAX_COUNT,
        expires_in=60.0,
        serials=tuple(f"{number:064}" for number in range(MAX_COUNT)),
    )
    assert len(json.dumps(body.model_dump())) < LARGE_BODIES["POST", "/batches"]


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


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://localhost:8080"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
EVERY_AUTH = [{}, {"AUTH": "off"}, {"JWT_SECRET": SECRET}]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_request_of_a_foreign_page_is_refused_whatever_its_method(
    http: httpx.AsyncClient, services: FakeServices, headers: dict[str, str]
) -> None:
    """A foreign page uses the caller's browser, which sends a simple request, an `<img>` too, without asking first."""
    for method, path in (
        ("POST", TRIGGER),
        ("POST", "/uploads/upload-1/cancel"),
        ("DELETE", "/clients/restaurant-1"),
        ("GET", "/clients/restaurant-1/files?pattern=/**"),
        ("HEAD", "/clients/restaurant-1/files?pattern=/**"),
        ("GET", "/clients"),
        ("OPTIONS", "/clients"),
    ):
        answer = await http.request(method, path, headers=headers)
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
    assert services.calls == []


@pytest.mark.parametrize("settings", EVERY_AUTH)
async def test_a_foreign_page_is_refused_whatever_auth_is(settings: dict[str, str]) -> None:
    async with http_to(make_api(FakeServices(), **settings)) as http:
        assert (await http.get("/clients", headers=FOREIGN[0])).status_code == 403


@pytest.mark.parametrize("own", [{"Origin": HOST, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}])
async def test_a_request_of_this_origin_or_of_no_page_is_accepted(http: httpx.AsyncClient, own: dict[str, str]) -> None:
    assert (await http.post(TRIGGER, headers=own)).status_code == 200


@pytest.mark.parametrize("settings", EVERY_AUTH)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil:80",
        "1.2.3.4.5",
        "",
        "[x]",
        "0.0.0.0:80",
        "[::]",
    ],
)
async def test_a_name_that_is_none_of_this_servers_is_refused_whatever_auth_is(
    settings: dict[str, str], host: str
) -> None:
    """DNS rebinding: a foreign page's own name resolves to this server, so its requests are of the same origin."""
    services = FakeServices()
    async with http_to(make_api(services, **settings)) as http:
        for method, path in (("GET", "/clients"), ("POST", TRIGGER)):
            answer = await http.request(method, path, headers={"Host": host, "Origin": f"http://{host}"})
            assert (answer.status_code, answer.json()["type"]) == (421, "/help/reasons/wrong-host")
    assert services.calls == []


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:9", "localhost", "LOCALHOST:8080", "[::1]:8080", "[::1]"),
        *("192.0.2.7", "[2001:db8::7]:80", "one.example", "Two.Example:8443", "listens.example"),
    ],
)
async def test_own_names_and_every_address_are_served(host: str) -> None:
    """A page whose origin is an address comes from that address: no name was resolved anew."""
    names = {"ALLOWED_HOSTS": "one.example, two.example", "SERVER_HOST": "listens.example", "AUTH": "off"}
    async with http_to(make_api(FakeServices(), **names)) as http:
        assert (await http.get("/clients", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("names", [{}, {"ALLOWED_HOSTS": ANYWHERE}])
async def test_the_address_of_all_addresses_is_a_name_only_where_it_is_listed(names: dict[str, str]) -> None:
    """Browsers take http://0.0.0.0 for this machine and send no `Sec-Fetch-Site` to it, so no foreign page is seen."""
    async with http_to(make_api(FakeServices(), SERVER_HOST=ANYWHERE, AUTH="off", **names)) as http:
        assert (await http.get("/clients", headers={"Host": f"{ANYWHERE}:8080"})).status_code == (200 if names else 421)


async def test_a_health_check_may_use_any_name(http: httpx.AsyncClient) -> None:
    """A supervisor that is refused would restart the control plane."""
    assert (await http.get("/health", headers={"Host": "pod-7.internal"})).status_code == 200


@pytest.mark.parametrize("names", ["https://a.example", "a.example:80", "*", "a b", "-a"])
def test_allowed_hosts_are_names_without_ports(names: str) -> None:
    with pytest.raises(SettingsError, match="ALLOWED_HOSTS"):
        Settings.load({"ALLOWED_HOSTS": names})
