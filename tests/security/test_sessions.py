"""Signed-in browsers: codes that are stolen, late or used twice, foreign pages, cookies, and the end of a session.

Rule: two replicas, each an application of its own, share one database; only the clock is a fake.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from control_plane.adapters.database import SqlDatabase
from control_plane.api.auth import COOKIE, LEEWAY, create_token
from control_plane.api.events import stream
from control_plane.observability import Metrics
from control_plane.services.sessions import service
from control_plane.services.sessions.service import CODE_LIFE, SessionService
from control_plane.settings import Settings
from tests.support.fake_services import HOST, SECRET, SILENT, FakeServices, api_over, http_to
from tests.support.fakes import FakeClock

OWN: Final = {"Origin": HOST}
TRIGGER: Final = "/trigger-download/restaurant-1"
REQUESTED: Final = ("GET", "/clients"), ("POST", TRIGGER), ("DELETE", "/clients/restaurant-1"), ("GET", "/metrics")


class Replicas:
    """Two applications over one database, and callers of both."""

    def __init__(self, database: SqlDatabase, path: Path, stack: AsyncExitStack) -> None:
        self.clock = FakeClock()
        self.clock.time = time.time()
        self.path = path
        self._database = database
        self._stack = stack

    async def caller(self, *, secret: str = SECRET, **headers: str) -> httpx.AsyncClient:
        """A browser or a program, with its own cookies, that calls a new replica."""
        sessions = SessionService(self._database, self.clock, secret)
        services = FakeServices()
        services.now = self.clock.now  # type: ignore[method-assign]
        api = api_over(services, Settings.load({"JWT_SECRET": secret}), Metrics(SILENT), sessions=sessions)
        return await self._stack.enter_async_context(http_to(api, headers))

    def token(self, caller: str, lifetime: float = 600) -> str:
        """A token that ends `lifetime` seconds after what this clock shows, which stands still while time passes."""
        return create_token(SECRET, caller, lifetime - (time.time() - self.clock.time))

    async def program(self, lifetime: float = 600) -> httpx.AsyncClient:
        """A caller with a token."""
        return await self.caller(Authorization=f"Bearer {self.token('operator', lifetime)}")

    async def code(self) -> str:
        answer = await (await self.program()).post("/session/codes")
        assert (answer.status_code, answer.json()["expires_in"]) == (201, CODE_LIFE)
        return str(answer.json()["code"])

    async def signed_in(self) -> httpx.AsyncClient:
        """A browser that used a code."""
        browser = await self.caller()
        answer = await browser.post("/session", json={"code": await self.code()}, headers=OWN)
        assert (answer.status_code, answer.json()["caller"]) == (200, "operator")
        return browser


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    path = tmp_path / "backhaul.db"
    database = SqlDatabase.open(f"sqlite:///{path}")
    async with AsyncExitStack() as stack:
        yield Replicas(database, path, stack)
    await database.close()


async def test_a_token_becomes_a_cookie_that_no_script_and_no_other_site_can_use(replicas: Replicas) -> None:
    browser = await replicas.caller()
    # A short name would stand in one random cookie of some thousands.
    caller = "a caller of the till in Berlin"
    answer = await browser.post("/session", json={"token": replicas.token(caller)}, headers=OWN)
    cookie = answer.headers["set-cookie"]
    assert (answer.json()["auth"], answer.json()["caller"]) == (True, caller)
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie
    life = int(re.findall(r"Max-Age=(\d+)", cookie)[0])
    assert 590 <= life <= 600, "the session ends with the token"
    assert not any(word in cookie for word in ("caller", "Berlin"))
    assert (await browser.get("/clients")).status_code == 200


async def test_a_browser_that_came_by_https_sends_its_cookie_by_https_only(replicas: Replicas) -> None:
    """Also behind a proxy, which speaks http to this server: the browser names its own scheme."""
    browser = await replicas.caller()
    headers = {"Origin": HOST.replace("http:", "https:")}
    answer = await browser.post("/session", json={"token": create_token(SECRET, "ana", 600)}, headers=headers)
    assert "Secure" in answer.headers["set-cookie"]


async def test_a_code_signs_one_browser_in_and_only_one(replicas: Replicas) -> None:
    code = await replicas.code()
    browser, thief = await replicas.caller(), await replicas.caller()
    assert (await browser.post("/session", json={"code": code}, headers=OWN)).status_code == 200
    again = await thief.post("/session", json={"code": code}, headers=OWN)
    assert (again.status_code, COOKIE in again.headers.get("set-cookie", "")) == (401, False)
    assert "used" in again.json()["detail"]
    assert (await thief.get("/clients")).status_code == 401
    assert (await browser.get("/clients")).status_code == 200


async def test_a_code_is_of_no_use_after_a_minute(replicas: Replicas) -> None:
    code = await replicas.code()
    replicas.clock.time += CODE_LIFE
    browser = await replicas.caller()
    assert (await browser.post("/session", json={"code": code}, headers=OWN)).status_code == 401
    assert (await browser.get("/clients")).status_code == 401


@pytest.mark.parametrize("guess", ["x", "A" * 43, "' OR 1=1 --", "\u0000"])
async def test_a_guessed_code_or_cookie_signs_no_one_in(replicas: Replicas, guess: str) -> None:
    await replicas.signed_in()
    browser = await replicas.caller()
    assert (await browser.post("/session", json={"code": guess}, headers=OWN)).status_code == 401
    if guess.isprintable():
        assert (await browser.get("/clients", headers={"Cookie": f'{COOKIE}="{guess}"'})).status_code == 401


async def test_a_code_is_no_session_and_a_session_is_no_code(replicas: Replicas) -> None:
    code, browser, other = await replicas.code(), await replicas.signed_in(), await replicas.caller()
    value = browser.cookies[COOKIE]
    assert (await other.get("/clients", headers={"Cookie": f"{COOKIE}={code}"})).status_code == 401
    assert (await other.post("/session", json={"code": value}, headers=OWN)).status_code == 401


async def test_the_database_holds_nothing_that_signs_in(replicas: Replicas) -> None:
    code, browser = await replicas.code(), await replicas.signed_in()
    with sqlite3.connect(replicas.path) as connection:
        stored = repr(connection.execute("SELECT * FROM sessions").fetchall())
    assert "operator" in stored
    assert code not in stored
    assert browser.cookies[COOKIE] not in stored


@pytest.mark.parametrize(("method", "path"), REQUESTED)
async def test_a_signed_in_browser_may_do_what_its_token_may(replicas: Replicas, method: str, path: str) -> None:
    browser = await replicas.signed_in()
    assert (await browser.request(method, path, headers=OWN)).is_success


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"} | OWN],
)
async def test_a_cookie_without_an_own_origin_changes_nothing(replicas: Replicas, headers: dict[str, str]) -> None:
    browser = await replicas.signed_in()
    for method, path in (("POST", TRIGGER), ("DELETE", "/clients/restaurant-1"), ("DELETE", "/session")):
        answer = await browser.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (403, "foreign-page")
    assert (await browser.get("/clients")).status_code == 200, "it is still signed in"


async def test_a_foreign_page_signs_no_browser_in(replicas: Replicas) -> None:
    """It would watch what the person does under its account."""
    browser = await replicas.caller()
    body = {"token": create_token(SECRET, "thief", 600)}
    answer = await browser.post("/session", json=body, headers={"Origin": "https://evil.example"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


async def test_signing_out_ends_the_session_on_every_replica(replicas: Replicas) -> None:
    browser, elsewhere = await replicas.signed_in(), await replicas.caller()
    stolen = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    assert (await elsewhere.get("/clients", headers=stolen)).status_code == 200, "replicas share sessions"
    answer = await browser.delete("/session", headers=OWN)
    assert (answer.status_code, COOKIE in browser.cookies) == (204, False)
    assert (await browser.get("/clients")).status_code == 401
    assert (await elsewhere.get("/clients", headers=stolen)).status_code == 401


async def test_an_open_stream_ends_soon_after_its_session(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SESSION_CHECK", 0.05)
    browser, elsewhere, program = await replicas.signed_in(), await replicas.caller(), await replicas.program()
    cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    followed = asyncio.create_task(elsewhere.get("/events", headers=cookie))
    other = asyncio.create_task(program.get("/events"))
    done, _ = await asyncio.wait([followed, other], timeout=0.5)
    assert not done, "they last"
    await browser.delete("/session", headers=OWN)
    async with asyncio.timeout(60):
        assert (await followed).status_code == 200
    assert not other.done(), "a stream with a token goes on"
    other.cancel()


async def test_a_stream_ends_with_its_token(replicas: Replicas) -> None:
    program = await replicas.program(600)
    replicas.clock.time += 600 + LEEWAY - 0.2
    async with asyncio.timeout(60):
        assert (await program.get("/events")).status_code == 200


async def test_a_session_ends_with_its_token_and_with_the_secret(replicas: Replicas) -> None:
    browser = await replicas.signed_in()
    cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    rotated = await replicas.caller(secret=SECRET[::-1])
    assert (await rotated.get("/clients", headers=cookie)).status_code == 401
    replicas.clock.time += 601
    assert (await browser.get("/clients", headers=cookie)).status_code == 401
    await replicas.code()
    with sqlite3.connect(replicas.path) as connection:
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,), "what has ended is deleted"


async def test_who_asks_without_a_session_is_told_to_sign_in_and_no_more(replicas: Replicas) -> None:
    browser = await replicas.caller()
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Cookie": f"{COOKIE}=nonsense"}):
        answer = await browser.get("/session", headers=headers)
        nobody: dict[str, object] = {"auth": True, "caller": None, "valid_until": None, "scopes": [], "clients": None}
        assert (answer.status_code, answer.json()) == (200, nobody)
    for refused in ("/session/codes", "/clients"):
        assert (await browser.get(refused)).status_code == 401
    assert (await browser.post("/session/codes", headers=OWN)).status_code == 401
    for body in ({}, {"token": "a", "code": "b"}, {"token": "nonsense"}):
        assert (await browser.post("/session", json=body, headers=OWN)).status_code in {401, 422}


async def test_a_token_in_the_header_counts_before_a_cookie(replicas: Replicas) -> None:
    browser = await replicas.signed_in()
    token = create_token(SECRET, "ana", 60)
    answer = await browser.get("/session", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["caller"] == "ana"


async def test_signing_in_again_ends_the_session_that_the_browser_had(replicas: Replicas) -> None:
    """Also one that another page planted."""
    browser, elsewhere = await replicas.signed_in(), await replicas.caller()
    before = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    answer = await browser.post("/session", json={"code": await replicas.code()}, headers=OWN)
    assert answer.status_code == 200
    assert (await browser.get("/clients")).status_code == 200
    assert (await elsewhere.get("/clients", headers=before)).status_code == 401


async def test_a_caller_has_only_so_many_sessions(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that signs in with each call fills no table, and ends no session of another caller."""
    monkeypatch.setattr(service, "MOST_OF_CALLER", 3)
    other, script = await replicas.signed_in(), await replicas.caller()
    for _ in range(6):
        script.cookies.clear()
        body = {"token": create_token(SECRET, "script", 600)}
        assert (await script.post("/session", json=body, headers=OWN)).status_code == 200
        assert (await script.get("/clients")).status_code == 200, "the new one is kept"
        await replicas.code()
    with sqlite3.connect(replicas.path) as connection:
        found = connection.execute(
            "SELECT subject, kind, count(*) FROM sessions GROUP BY 1, 2 ORDER BY 1, 2"
        ).fetchall()
    assert found == [("operator", "browser", 1), ("operator", "code", 3), ("script", "browser", 3)]
    assert (await other.get("/clients")).status_code == 200


async def test_a_guess_writes_nothing(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone may guess: it must not take turns from the one writer."""
    browser = await replicas.caller()
    monkeypatch.setattr(SqlDatabase, "write", None)
    assert (await browser.post("/session", json={"code": "x"}, headers=OWN)).status_code == 401
    guess = {**OWN, "Cookie": f"{COOKIE}=x"}
    assert (await browser.delete("/session", headers=guess)).status_code == 204
