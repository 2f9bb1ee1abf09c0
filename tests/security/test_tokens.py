"""Tokens that are stolen or too mighty: revocation on every replica, browsers and streams that hang on a token.

Rule: two replicas, each an application of its own, share one database; only the clock is a fake.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import jwt
import pytest
from fastapi import FastAPI

from control_plane.adapters.database import SqlDatabase
from control_plane.api.auth import REASON, create_token
from control_plane.api.events import stream
from control_plane.domain.access import ALL, Principal, Scope
from control_plane.observability import Metrics
from control_plane.services.audit.ports import AuditFilter
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.database import Page
from control_plane.services.sessions import tokens as token_module
from control_plane.services.sessions.service import SessionService
from control_plane.services.sessions.tokens import FRESH, TokenService
from control_plane.settings import Settings
from tests.support.fake_services import HOST, SECRET, SILENT, FakeServices, api_over, http_to
from tests.support.fakes import FakeClock
from tests.support.patience import came_true

OWN: Final = {"Origin": HOST}
READER: Final = Principal("reader", frozenset({Scope.CLIENTS_READ}), "site=berlin", "reader-1")


class Replicas:
    """Applications over one database, and callers of them."""

    def __init__(self, database: SqlDatabase, stack: AsyncExitStack) -> None:
        self.clock = FakeClock()
        self.clock.time = time.time()
        self.database = database
        self._stack = stack

    async def replica(self) -> FastAPI:
        tokens = TokenService(self.database, self.clock, 86_400)
        sessions = SessionService(self.database, self.clock, SECRET)
        services = FakeServices()
        services.now = self.clock.now  # type: ignore[method-assign]
        return api_over(
            services, Settings.load({"JWT_SECRET": SECRET}), Metrics(SILENT), sessions=sessions, tokens=tokens
        )

    async def caller(self, api: FastAPI, who: Principal | None = None) -> httpx.AsyncClient:
        """A program with a token for `who`, or a browser without one."""
        headers = {} if who is None else {"Authorization": f"Bearer {create_token(SECRET, who, 600)}"}
        return await self._stack.enter_async_context(http_to(api, headers))


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    database = SqlDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}")
    async with AsyncExitStack() as stack:
        yield Replicas(database, stack)
    await database.close()


async def test_a_revoked_token_is_refused_at_once_here_and_within_a_second_elsewhere(replicas: Replicas) -> None:
    here, there = await replicas.replica(), await replicas.replica()
    admin = await replicas.caller(here, Principal("admin"))
    first, second = await replicas.caller(here, READER), await replicas.caller(there, READER)
    assert [(await one.get("/clients")).status_code for one in (first, second)] == [200, 200]

    answer = await admin.post("/tokens/reader-1/revoke")
    assert (answer.status_code, answer.json()["revoked_by"]) == (200, "admin")

    refused = await first.get("/clients")
    assert (refused.status_code, refused.json()["detail"]) == (401, "the token is revoked")
    replicas.clock.time += FRESH
    assert (await second.get("/clients")).status_code == 401
    assert (await (await replicas.caller(there, Principal("admin"))).get("/clients")).status_code == 200


async def test_a_token_that_was_never_used_can_be_revoked(replicas: Replicas) -> None:
    api = await replicas.replica()
    admin, reader = await replicas.caller(api, Principal("admin")), await replicas.caller(api, READER)
    assert (await admin.get("/tokens/reader-1")).status_code == 404
    assert (await admin.post("/tokens/reader-1/revoke")).json()["subject"] is None
    assert (await reader.get("/clients")).status_code == 401


@pytest.mark.parametrize("token_id", ["a/b+c==", "a/revoke", "urn:uuid:1", "~" * 128])
async def test_every_token_that_is_accepted_can_be_shown_and_revoked(replicas: Replicas, token_id: str) -> None:
    """A provider writes ids as it likes: base64 has slashes."""
    api = await replicas.replica()
    admin = await replicas.caller(api, Principal("admin"))
    reader = await replicas.caller(api, Principal("reader", token_id=token_id))
    assert (await reader.get("/clients")).status_code == 200
    place = f"/tokens/{quote(token_id, safe='')}"
    assert (await admin.get(place)).json()["subject"] == "reader"
    assert (await admin.post(f"{place}/revoke")).json()["token_id"] == token_id
    assert (await reader.get("/clients")).status_code == 401


@pytest.mark.parametrize("token_id", ["a b", "ä", "", "x" * 129, "a\n"])
async def test_a_token_whose_id_no_path_can_name_is_refused(replicas: Replicas, token_id: str) -> None:
    claims = {"sub": "a", "aud": "backhaul", "iat": time.time(), "exp": time.time() + 60, "jti": token_id}
    caller = await replicas.caller(await replicas.replica())
    bearer = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"}
    answer = await caller.get("/clients", headers=bearer)
    assert (answer.status_code, "jti" in answer.json()["detail"]) == (401, True)


async def test_a_revocation_lasts_as_long_as_the_token_could_be_accepted(replicas: Replicas) -> None:
    api = await replicas.replica()
    admin, reader = await replicas.caller(api, Principal("admin")), await replicas.caller(api, READER)
    assert (await reader.get("/clients")).status_code == 200
    await admin.post("/tokens/reader-1/revoke")
    service: TokenService = api.state.tokens
    replicas.clock.time += 600 + 45
    assert await service.is_revoked("reader-1"), "clocks may differ"
    await admin.get("/clients")
    await service.write_noted()
    assert await service.is_revoked("reader-1")


async def test_the_list_shows_what_each_token_may_do_and_when_it_was_used(replicas: Replicas) -> None:
    api = await replicas.replica()
    admin, reader = await replicas.caller(api, Principal("admin", token_id="own")), await replicas.caller(api, READER)
    await reader.get("/clients")
    replicas.clock.time += 60
    await reader.get("/clients")
    found: dict[str, Any] = {one["token_id"]: one for one in (await admin.get("/tokens")).json()["tokens"]}
    assert {name: one["current"] for name, one in found.items()} == {"own": True, "reader-1": False}
    one = found["reader-1"]
    assert (one["subject"], one["scopes"], one["clients"]) == ("reader", ["clients:read"], "site=berlin")
    assert (one["address"], one["revoked_at"]) == ("127.0.0.1", None)
    assert one["used_at"] == found["own"]["used_at"]
    assert set(found["own"]["scopes"]) == ALL


async def test_a_use_does_not_undo_a_revocation(replicas: Replicas) -> None:
    """As by a replica that noted the use before it knew of the revocation, and writes it after."""
    here, there = await replicas.replica(), await replicas.replica()
    reader, admin = await replicas.caller(there, READER), await replicas.caller(here, Principal("admin"))
    await reader.get("/clients")
    await admin.post("/tokens/reader-1/revoke")
    await there.state.tokens.write_noted()
    replicas.clock.time += FRESH
    assert (await reader.get("/clients")).status_code == 401
    assert (await admin.get("/tokens/reader-1")).json()["revoked_by"] == "admin"


@pytest.mark.parametrize(
    "who",
    [Principal("a", ALL - {Scope.DEVICES_ADMIN}), Principal("b", ALL, "site=berlin")],
    ids=["no scope", "some clients"],
)
async def test_only_a_token_for_all_clients_with_the_scope_sees_and_revokes_tokens(
    replicas: Replicas, who: Principal
) -> None:
    caller = await replicas.caller(await replicas.replica(), who)
    for method, path in (("GET", "/tokens"), ("GET", "/tokens/x"), ("POST", "/tokens/x/revoke")):
        answer = await caller.request(method, path)
        assert (answer.status_code, answer.json()["type"]) == (403, "/help/reasons/forbidden")


@pytest.mark.parametrize("by", ["token", "code"])
async def test_a_browser_has_the_rights_of_its_token_and_ends_with_it(replicas: Replicas, by: str) -> None:
    api = await replicas.replica()
    reader, browser = await replicas.caller(api, READER), await replicas.caller(api)
    given = create_token(SECRET, READER, 600) if by == "token" else (await reader.post("/session/codes")).json()["code"]
    signed_in = await browser.post("/session", json={by: given}, headers=OWN)
    session = (await browser.get("/session")).json()
    assert signed_in.status_code == 200
    assert (session["caller"], session["scopes"], session["clients"]) == ("reader", ["clients:read"], "site=berlin")
    assert (await browser.get("/clients")).status_code == 200
    assert (await browser.get("/uploads")).status_code == 403
    assert (await browser.post("/trigger-download/restaurant-1", headers=OWN)).status_code == 403

    await (await replicas.caller(api, Principal("admin"))).post("/tokens/reader-1/revoke")
    assert (await browser.get("/clients")).status_code == 401
    again = await (await replicas.caller(api)).post(
        "/session", json={"token": create_token(SECRET, READER, 600)}, headers=OWN
    )
    assert again.status_code == 401


async def test_the_record_of_a_sign_in_or_out_has_where_it_came_from(replicas: Replicas) -> None:
    api = await replicas.replica()
    program = await replicas.caller(api, READER)
    code = (await program.post("/session/codes", json={})).json()["code"]
    browser, why = await replicas.caller(api), {**OWN, REASON: "a look"}
    for body in ({"code": code}, {"token": create_token(SECRET, READER, 60)}):
        assert (await browser.post("/session", json=body, headers=why)).status_code == 200
    assert (await browser.delete("/session", headers=why)).status_code == 204
    records, _ = await replicas.database.read(lambda records: records.audit.list(AuditFilter(), Page()))
    found = [(one.document["act"], one.document["address"], one.document["reason"]) for one in records]
    here = found[0][1]
    assert here is not None
    # The second sign-in ends the session of the first.
    acts = ["session.end", "session.end", "session.begin", "session.begin"]
    assert sorted(found[:4]) == sorted((act, here, "a look") for act in acts)


async def test_the_list_shows_where_a_code_of_a_token_signed_a_browser_in(replicas: Replicas) -> None:
    api = await replicas.replica()
    code = (await (await replicas.caller(api, READER)).post("/session/codes", json={})).json()["code"]
    assert (await (await replicas.caller(api)).post("/session", json={"code": code}, headers=OWN)).status_code == 200
    admin = await replicas.caller(api, Principal("admin"))
    assert (await admin.get("/tokens/reader-1")).json()["address"] == "127.0.0.1"


async def test_a_code_of_a_token_that_was_revoked_signs_no_browser_in(replicas: Replicas) -> None:
    api = await replicas.replica()
    code = (await (await replicas.caller(api, READER)).post("/session/codes", json={})).json()["code"]
    await (await replicas.caller(api, Principal("admin"))).post("/tokens/reader-1/revoke")
    browser = await replicas.caller(api)
    answer = await browser.post("/session", json={"code": code}, headers=OWN)
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    found, _ = await replicas.database.read(lambda records: records.audit.list(AuditFilter(), Page()))
    assert [one.document["act"] for one in found] == ["token.revoke", "session.code"], "no sign-in is recorded"


async def test_a_stream_ends_when_its_token_is_revoked(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SESSION_CHECK", 0.01)
    api = await replicas.replica()
    reader = await replicas.caller(api, READER)
    ended = asyncio.create_task(reader.get("/events"))
    assert await asyncio.to_thread(came_true, lambda: api.state.streams._open, 60)
    await (await replicas.caller(api, Principal("admin"))).post("/tokens/reader-1/revoke")
    async with asyncio.timeout(60):
        assert (await ended).status_code == 200


async def test_the_last_known_revocations_count_while_the_database_is_away(replicas: Replicas) -> None:
    api = await replicas.replica()
    admin, reader = await replicas.caller(api, Principal("admin")), await replicas.caller(api, READER)
    await admin.post("/tokens/reader-1/revoke")
    await replicas.database.close()
    replicas.clock.time += FRESH * 2
    assert (await reader.get("/clients")).status_code == 401
    assert (await admin.get("/clients")).status_code == 200


async def test_a_replica_that_never_read_the_revocations_accepts_no_token(replicas: Replicas) -> None:
    await replicas.database.close()
    answer = await (await replicas.caller(await replicas.replica(), READER)).get("/clients")
    assert answer.status_code == 503


async def test_uses_that_cannot_be_written_stay_noted(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await replicas.replica()
    reader = await replicas.caller(api, READER)
    await reader.get("/clients")
    service: TokenService = api.state.tokens
    with monkeypatch.context() as patch:

        async def away(_work: object) -> None:
            text = "away"
            raise DatabaseUnavailable(text)

        patch.setattr(replicas.database, "write", away)
        with pytest.raises(DatabaseUnavailable):
            await service.write_noted()
    await service.write_noted()
    assert (await service.token(Principal("admin"), "reader-1")).subject == "reader"


async def test_uses_that_are_noted_are_written_at_the_end_of_the_process(replicas: Replicas) -> None:
    api = await replicas.replica()
    running = asyncio.create_task(api.state.tokens.run())
    assert (await (await replicas.caller(api, READER)).get("/clients")).status_code == 200
    running.cancel()
    await asyncio.wait([running])
    found = await replicas.database.read(lambda records: records.tokens.get("reader-1"))
    assert found is not None
    assert found.used_at == replicas.clock.now()


async def test_the_uses_that_are_noted_are_bounded(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_module, "MOST_NOTED", 2)
    api = await replicas.replica()
    for number in range(3):
        caller = await replicas.caller(api, Principal("x", token_id=f"id-{number}"))
        assert (await caller.get("/clients")).status_code == 200
    admin = await replicas.caller(api, Principal("admin", token_id="id-0"))
    assert len((await admin.get("/tokens")).json()["tokens"]) == 2
