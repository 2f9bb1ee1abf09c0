"""What holds for every call: how many a caller may make, and that an effect has a reason where one is wanted."""

from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from control_plane.adapters.database import SqlDatabase
from control_plane.api.auth import REASON, create_token
from control_plane.api.tokens import rates
from control_plane.api.tokens.rates import BURST, CallRates
from control_plane.observability import Metrics
from control_plane.services.sessions.service import SessionService
from control_plane.settings import Settings
from tests.support.fake_services import HOST, SECRET, SILENT, FakeServices, api_over, http_to, make_api
from tests.support.fakes import FakeClock

TRIGGER: Final = "/trigger-download/restaurant-1"


def bearer(subject: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_token(SECRET, subject, 600)}"}


async def test_a_caller_with_too_many_calls_is_refused_with_a_pause_and_others_are_not() -> None:
    services = FakeServices()
    async with http_to(make_api(services, JWT_SECRET=SECRET, RATE_LIMIT="60")) as http:
        answers = [await http.get("/clients", headers=bearer("busy")) for _ in range(12)]
        other = await http.get("/clients", headers=bearer("quiet"))
        health = await http.get("/health", headers=bearer("busy"))
    # The clock of these services stands still.
    assert [one.status_code for one in answers] == [200] * 10 + [429] * 2
    assert answers[-1].json()["type"] == "/help/reasons/rate-limited"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (other.status_code, health.status_code) == (200, 200)
    assert len(services.calls) == 11


async def test_who_signs_browsers_in_is_counted_too(tmp_path: Path) -> None:
    """Each sign-in writes to the database, and the gate does not know yet who makes it."""
    token, services = create_token(SECRET, "busy", 600), FakeServices()
    database = SqlDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}")
    settings = Settings.load({"JWT_SECRET": SECRET, "RATE_LIMIT": "60"})
    sessions = SessionService(database, services, SECRET)
    async with http_to(api_over(services, settings, Metrics(SILENT), sessions=sessions)) as http:
        answers = []
        for _ in range(12):
            answers.append(await http.post("/session", json={"token": token}, headers={"Origin": HOST}))
            http.cookies.clear()
    await database.close()
    assert [one.status_code for one in answers] == [200] * 10 + [429] * 2, answers[0].text
    assert answers[-1].json()["type"] == "/help/reasons/rate-limited"
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_a_caller_may_make_calls_again_after_the_pause() -> None:
    clock = FakeClock()
    limit = CallRates(clock, 60)
    made = 0
    while not (pause := limit.wait("a")):
        made += 1
    assert made == int(BURST)
    assert pause == pytest.approx(1.0)
    clock.time += pause
    assert limit.wait("a") == 0
    assert limit.wait("a") > 0
    clock.time += 3_600
    assert [limit.wait("a") > 0 for _ in range(11)] == [False] * 10 + [True]


@pytest.mark.parametrize("per_minute", [1, 2, 7])
def test_one_call_fits_however_low_the_limit_is(per_minute: int) -> None:
    limit = CallRates(FakeClock(), per_minute)
    assert limit.wait("a") == 0


def test_no_limit_and_many_callers_cost_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_CALLERS", 3)
    clock = FakeClock()
    limit = CallRates(clock, 60)
    for number in range(10):
        assert limit.wait(f"caller-{number}") == 0
        clock.time += 2
    assert len(limit._due) <= 3
    unlimited = CallRates(clock, 0)
    assert {unlimited.wait("a") for _ in range(1_000)} == {0.0}
    assert unlimited._due == {}


async def test_an_effect_needs_a_reason_where_the_server_wants_one() -> None:
    services = FakeServices()
    async with http_to(make_api(services, REQUIRE_REASON="true")) as http:
        refused = await http.post(TRIGGER)
        assert (refused.status_code, refused.json()["type"]) == (422, "/help/reasons/reason-missing")
        assert REASON in refused.json()["detail"]
        assert services.calls == []
        assert (await http.post(TRIGGER, headers={REASON: " "})).status_code == 422
        assert (await http.get("/clients")).status_code == 200
        assert (await http.post("/session", json={"token": "x"})).status_code == 200
        assert (await http.post(TRIGGER, headers={REASON: quote("für den Bericht")})).status_code == 200
    assert [one.reason for one in services.principals] == ["für den Bericht"]


@pytest.mark.parametrize("text", ["x" * 501, "a%0Ab", "a%00b", "%1b[2J"])
async def test_a_reason_that_cannot_be_shown_is_refused(text: str) -> None:
    services = FakeServices()
    async with http_to(make_api(services)) as http:
        answer = await http.post(TRIGGER, headers={REASON: text})
    assert (answer.status_code, services.calls) == (422, [])
