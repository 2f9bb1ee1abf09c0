"""A token with the claim `clients` against every endpoint: it sees, counts and touches only its own clients.

It attacks: reading another site by list, sum, id, cursor, filter, event or error text; changing it by id, pattern,
selector, set, job or schedule; leaving the reach by labels. The endpoints come from the OpenAPI document, so a new one
is either refused or has to be added here.
"""

import dataclasses
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from msgspec.structs import replace

from control_plane.api.auth import create_token
from control_plane.api.events.frames import FRAMES
from control_plane.api.tokens.reach import BOUND
from control_plane.domain.access import ANONYMOUS, Principal
from control_plane.domain.changes import Change, ClientForgotten, JobStateChanged, UploadCreated
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import State
from control_plane.services.clients.reach import reach_of
from control_plane.services.events.filters import ChangeFilter
from control_plane.services.events.streams import EventStreams
from control_plane.services.ports.database import Records
from tests.docs.cli_fields import openapi
from tests.support.fake_services import HOST, NOW, SECRET
from tests.support.two_sites import BERLIN, OF_BOTH, Fleet, fleet_of

OTHER: Final = "munich"
OPERATOR: Final = Principal("berlin")
"""The same person without a reach: what it sees of a fleet of Berlin alone is the measure."""

JOB: Final[dict[str, Any]] = {"targets": {"selector": "site"}, "files": {"paths": ["/data/*.csv"]}}
BODIES: Final[dict[str, Any]] = {
    "addClientsToJob": {"clients": ["berlin-1"]},
    "approveJob": {"as_of": "2030-01-01T00:00:00Z"},
    "backfillSchedule": {"from": "2025-11-01T07:00:00Z", "to": "2025-11-01T09:00:00Z"},
    "changeLabels": {"ring": "beta"},
    "extendJob": {"deadline": "2h"},
    "rejectJob": {"where": {"clients": ["berlin-1"]}},
    "replaceSchedule": {"every": "2h", "job": JOB},
    "retryJob": {"where": {"clients": ["berlin-1"]}},
    "setLabels": {"site": "munich", "ring": "beta"},
    "tuneJob": {"priority": 3},
}
CONDITIONAL: Final = {"extendJob", "retryJob", "replaceSchedule", "tuneJob"}
MEMBERS: Final = {
    "client_id": ("berlin-1", "munich-1"),
    "job_id": ("berlin-job", "munich-job"),
    "name": ("ring", "ring"),
    "schedule_id": ("berlin-schedule", "munich-schedule"),
    "upload_id": ("berlin-upload-2", "munich-upload-2"),
}
"""Each parameter of a path that names something of one site: of Berlin, and of Munich."""


@functools.cache
def operations() -> list[tuple[str, str, str]]:
    """Every (operationId, method, path) of the OpenAPI document."""
    return [
        (operation["operationId"], method.upper(), path)
        for path, item in openapi()["paths"].items()
        for method, operation in item.items()
    ]


def named(path: str, site: int) -> str:
    """The path with the members of Berlin (0) or of Munich (1)."""
    for name, values in MEMBERS.items():
        path = path.replace(f"{{{name}}}", values[site])
    assert "{" not in path, path
    return path


async def call(fleet: Fleet, operation: str, method: str, path: str) -> httpx.Response:
    """One call with a valid body and version."""
    headers = {"If-Match": '"1"'} if operation in CONDITIONAL else {}
    query = {"pattern": "/data/*"} if operation == "listFiles" else {}
    return await fleet.http.request(method, path, json=BODIES.get(operation), headers=headers, params=query)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Berlin and Munich, for a caller that has Berlin only."""
    async with fleet_of(tmp_path / "both", "berlin", OTHER, caller=BERLIN) as fleet:
        yield fleet


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Berlin alone, for a caller without a reach."""
    async with fleet_of(tmp_path / "alone", "berlin", caller=OPERATOR) as fleet:
        yield fleet


# --- every endpoint ---------------------------------------------------------------------------------------------------


async def test_every_endpoint_that_does_not_apply_the_claim_refuses_such_a_token(both: Fleet) -> None:
    refused = set()
    for operation, method, path in operations():
        if operation in BOUND:
            continue
        filled = path.replace("{name}", "beta")
        for name in ("budget", "webhook_id", "number", "label", "value"):
            filled = filled.replace(f"{{{name}}}", "1")
        answer = await both.http.request(method, filled)
        assert answer.status_code == 403, (operation, answer.text)
        assert "site=berlin" in answer.json()["detail"], operation
        refused.add(operation)
    assert {"getMetrics", "createGroup", "createWebhook", "putBudget", "getHealthDetails", "exportAudit"} <= refused


async def test_no_answer_to_a_read_differs_from_that_of_a_fleet_without_the_others(both: Fleet, alone: Fleet) -> None:
    """Every list, sum, count, document and error of the reads, over its whole text."""
    compared = set()
    for operation, method, path in operations():
        if operation not in BOUND or method != "GET" or operation in {"streamEvents", "listFiles"}:
            continue
        completed = path.replace("{upload_id}/url", "berlin-upload-3/url")
        filled = named(completed.replace("{upload_id}/receipt", "berlin-upload-3/receipt"), 0)
        mine, measure = [await one.http.get(filled) for one in (both, alone)]
        assert mine.status_code == 200, (operation, mine.text)
        assert OTHER not in mine.text, (operation, mine.text)
        if operation not in {"listSchedules", "listJobs", "getSession"}:
            assert mine.text == measure.text, operation
        compared.add(operation)
    assert compared == {one for one, method, _ in operations() if method == "GET" and one in BOUND} - {
        "streamEvents",
        "listFiles",
    }


async def test_every_endpoint_answers_for_another_site_as_if_it_did_not_exist(both: Fleet, alone: Fleet) -> None:
    """The same problem as in a fleet where it does not exist, and no row changes."""
    before = await both.rows()
    tried = 0
    for operation, method, path in operations():
        if operation not in BOUND or "{" not in path:
            continue
        mine, measure = [await call(one, operation, method, named(path, 1)) for one in (both, alone)]
        assert (mine.status_code, mine.text) == (404, measure.text), operation
        tried += 1
    assert tried > 30
    assert await both.rows() == before


@pytest.mark.parametrize("kind", ["job", "schedule"])
async def test_what_has_other_clients_too_is_shown_without_them_and_cannot_be_changed(both: Fleet, kind: str) -> None:
    before = await both.rows()
    tried = 0
    for operation, method, path in operations():
        if operation not in BOUND or f"{{{kind}_id}}" not in path:
            continue
        answer = await call(both, operation, method, path.replace(f"{{{kind}_id}}", f"shared-{kind}"))
        assert answer.status_code == (200 if method == "GET" else 403), (operation, answer.text)
        assert OTHER not in answer.text, (operation, answer.text)
        tried += 1
    assert tried > 10
    assert await both.rows() == before


async def test_a_job_whose_other_clients_are_over_is_not_steered_either(both: Fleet) -> None:
    """Its end, and the failures that pause its schedule, are about them too."""
    await both.end("shared-job", "munich-1", "munich-2")
    before = await both.rows()
    for operation, method, path in operations():
        if operation in BOUND and "/jobs/{job_id}" in path and method != "GET":
            answer = await call(both, operation, method, path.replace("{job_id}", "shared-job"))
            assert (answer.status_code, OTHER in answer.text) == (403, False), (operation, answer.text)
    assert await both.rows() == before


async def test_an_approval_shows_nothing_of_a_client_that_left_the_reach(both: Fleet) -> None:
    await both.end("berlin-job", "berlin-2")
    both.caller = ANONYMOUS
    assert (await both.http.patch("/clients/berlin-2/labels", json={"site": "rome"})).status_code == 200
    both.caller = BERLIN
    asked = {"as_of": "2030-01-01T00:00:00Z"}
    answers = [
        await both.http.post("/jobs/berlin-job/approve", json={**asked, "clients": [one]})
        for one in ("berlin-2", "nothing-2")
    ]
    assert [one.status_code for one in answers] == [422, 422]
    assert answers[0].text.replace("berlin-2", "nothing-2") == answers[1].text
    assert (await both.http.post("/jobs/berlin-job/approve", json=asked)).json()["acted_on"] == 1


# --- sums and lists ---------------------------------------------------------------------------------------------------


async def test_counts_and_sums_of_a_shared_job_are_those_of_its_own_clients(both: Fleet) -> None:
    shown = (await both.http.get(f"/jobs/{OF_BOTH[0]}")).json()
    assert (shown["clients"], sum(shown["executions"].values()), shown["totals"]["files"]) == (2, 2, 1)
    assert (shown["spec"]["targets"]["clients"], shown["spec"]["targets"]["selector"]) == ([], None)
    assert (shown["reason"]["code"], "clients failed" in shown["reason"]["text"]) == ("paused", False)
    manifest = (await both.http.get(f"/jobs/{OF_BOTH[0]}/manifest")).json()
    assert (manifest["waiting"], manifest["totals"]["bytes"]) == (1, 7)
    listed = (await both.http.get(f"/jobs/{OF_BOTH[0]}/executions", params={"state": "queued"})).json()
    assert listed["count"] == 1


async def test_how_many_wait_for_a_budget_is_not_shown(both: Fleet) -> None:
    """The budget is that of clients of other sites too."""
    text = "the budget of region=de (1000 bytes a second) is spent until 2025-11-01T10:00:09Z, 7 before it"

    def hold(records: Records) -> None:
        (upload,) = records.uploads.by_id("berlin-upload-1")
        held = {"state": State.IN_PROGRESS, "reason": Reason(ReasonCode.BUDGET_SPENT, text)}
        records.uploads.save(upload, replace(upload, **held))

    await both.database.write(hold)
    for caller, shown in ((ANONYMOUS, text), (BERLIN, "a budget that it shares")):
        both.caller = caller
        one = (await both.http.get("/uploads/berlin-upload-1")).json()
        listed = (await both.http.get("/uploads", params={"client_id": "berlin-1", "status": "in_progress"})).json()
        found = (await both.http.get("/uploads", params={"reason_code": "budget_spent"})).json()
        reasons = [row["reason"] for row in (one, *listed["uploads"], *found["uploads"])]
        assert [(reason["code"], reason["text"].startswith(shown)) for reason in reasons] == [
            ("budget_spent", True)
        ] * 3


async def test_coverage_of_a_shared_schedule_counts_its_own_clients(both: Fleet) -> None:
    query = {"from": "2025-11-01T08:00:00Z", "to": "2025-11-01T10:00:00Z"}
    shown = (await both.http.get(f"/schedules/{OF_BOTH[1]}/coverage", params=query)).json()
    assert [tick["pending"] for tick in shown["ticks"]] == [2], shown
    assert len(shown["clients"]) == 2


async def test_lists_have_only_what_concerns_its_own_clients(both: Fleet) -> None:
    jobs = (await both.http.get("/jobs")).json()["jobs"]
    assert {job["job_id"]: job["clients"] for job in jobs} == {"berlin-job": 2, OF_BOTH[0]: 2}
    first = (await both.http.get("/schedules", params={"limit": 1})).json()
    second = (await both.http.get("/schedules", params={"limit": 1, "cursor": first["cursor"]})).json()
    ids = [one["schedule_id"] for page in (first, second) for one in page["schedules"]]
    assert ids == ["berlin-schedule", OF_BOTH[1]]
    for query in ({"selector": "site=munich"}, {"selector": "site!=berlin"}, {"id": "munich*"}, {"id": "munich-1"}):
        found = (await both.http.get("/clients", params=query)).json()
        assert (found["clients"], found["count"]) == ([], 0)
    assert (await both.http.get("/clients", params={"id": "*"})).json()["count"] == 2
    for query in ({"client_id": "munich-1"}, {"error": "error_of_munich"}, {"job_id": "munich-job"}):
        assert (await both.http.get("/uploads", params=query)).json()["uploads"] == []


async def test_the_fleet_is_not_kept_for_a_caller_with_another_reach(both: Fleet) -> None:
    """The numbers are computed once a second for all who look: for each reach by itself."""
    both.caller = ANONYMOUS
    assert (await both.http.get("/fleet")).json()["clients"] == {"connected": 2, "offline": 2, "never_seen": 0}
    both.caller = BERLIN
    assert (await both.http.get("/fleet")).json()["clients"] == {"connected": 1, "offline": 1, "never_seen": 0}
    both.caller = Principal("nowhere", clients="site=rome")
    shown = (await both.http.get("/fleet")).json()
    assert (sum(shown["clients"].values()), sum(shown["open"].values())) == (0, 0)


async def test_a_client_that_was_forgotten_is_outside_of_every_reach(both: Fleet) -> None:
    both.caller = ANONYMOUS
    assert (await both.http.delete("/clients/berlin-1")).status_code == 204
    both.caller = Principal("rest", clients="site!=munich")
    assert (await both.http.get("/uploads")).json()["uploads"] == []
    assert (await both.http.get("/uploads/berlin-upload-2")).status_code == 404


# --- acts -------------------------------------------------------------------------------------------------------------


async def test_acts_on_many_clients_touch_only_its_own(both: Fleet) -> None:
    named_one = {"where": {"clients": ["berlin-1", "munich-1"]}}
    for method, path, more in (
        ("PATCH", "/clients/labels", {"labels": {"ring": "b"}}),
        ("POST", "/uploads/cancel", {}),
    ):
        answer = await both.http.request(method, path, json={**named_one, **more})
        assert (answer.status_code, "munich-1" in answer.text, "berlin-1" in answer.text) == (404, True, False)
    shown = (await both.http.get("/clients", params={"id": "*"})).json()
    where = {"id": "*", "count": shown["count"], "set": shown["set"]}
    answer = await both.http.patch("/clients/labels", json={"where": where, "labels": {"ring": "beta"}})
    assert answer.json() == {"clients": 2, "changed": 2}
    both.caller = ANONYMOUS
    assert "ring" not in (await both.http.get("/clients/munich-1")).json()["labels"]


async def test_a_set_that_others_were_shown_is_not_taken_apart_for_a_caller_with_a_reach(both: Fleet) -> None:
    """The ids of others can be guessed, and the hash of their set with them."""
    both.caller = ANONYMOUS
    shown = (await both.http.get("/clients", params={"id": "munich*"})).json()
    where = {"id": "*", "count": shown["count"], "set": shown["set"]}
    refused = await both.http.patch("/clients/labels", json={"where": where, "labels": {"ring": "b"}})
    assert (refused.status_code, refused.json()["removed"]) == (409, [])
    both.caller = BERLIN
    for path, body in (
        ("/clients/labels", {"where": where, "labels": {"ring": "b"}}),
        ("/uploads/cancel", {"where": where}),
    ):
        answer = await both.http.request("PATCH" if "labels" in body else "POST", path, json=body)
        assert (answer.status_code, answer.json()["added"], answer.json()["removed"]) == (409, [], []), answer.text
    query = {"count": shown["count"], "set": shown["set"]}
    answer = await both.http.post("/jobs", params=query, json=JOB)
    assert (answer.status_code, OTHER in answer.text) == (409, False), answer.text


async def test_no_client_enters_or_leaves_the_reach_by_its_labels(both: Fleet) -> None:
    before = await both.rows()
    for method, path, body in (
        ("PATCH", "/clients/berlin-1/labels", {"site": "munich"}),
        ("PUT", "/clients/berlin-1/labels", {"site": "rome"}),
        ("PATCH", "/clients/labels", {"where": {"clients": ["berlin-1"]}, "labels": {"site": "munich"}}),
        ("POST", "/clients", {"client_id": "munich-1", "labels": {"site": "berlin"}}),
        ("POST", "/clients", {"client_id": "munich-1"}),
        ("POST", "/clients", {"client_id": "new-1"}),
        ("POST", "/clients", {"client_id": "new-1", "labels": {"site": "munich"}}),
        ("POST", "/clients", [{"client_id": "new-1", "labels": {"site": "berlin"}}, {"client_id": "munich-1"}]),
    ):
        answer = await both.http.request(method, path, json=body)
        assert (answer.status_code, answer.json()["type"]) == (403, "/help/reasons/forbidden"), (body, answer.text)
    assert await both.rows() == before
    made = await both.http.post("/clients", json={"client_id": "new-1", "labels": {"site": "berlin"}})
    assert made.status_code == 201


async def test_a_client_that_was_forgotten_is_not_made_again_with_what_it_left(both: Fleet) -> None:
    """Its uploads, its part of jobs and its history stay; who makes it again would have them."""
    both.caller = ANONYMOUS
    for client_id in ("munich-1", "munich-2"):
        assert (await both.http.delete(f"/clients/{client_id}")).status_code == 204
    both.caller = BERLIN
    for client_id in ("munich-1", "munich-2"):
        body = {"client_id": client_id, "labels": {"site": "berlin"}}
        answer = await both.http.post("/clients", json=body)
        assert (answer.status_code, answer.json()["type"]) == (403, "/help/reasons/forbidden"), answer.text
    assert (await both.http.get("/uploads/munich-upload-2")).status_code == 404
    both.caller = ANONYMOUS
    assert (await both.http.post("/clients", json={"client_id": "munich-1"})).status_code == 201


async def test_a_new_job_means_only_its_own_clients_and_those_that_join_later(both: Fleet) -> None:
    targets = {"clients": ["*"], "selector": "site", "mode": "continuous"}
    made = await both.http.post("/jobs", json={**JOB, "job_id": "every", "targets": targets})
    assert (made.status_code, made.json()["clients"]) == (201, 2), made.text
    stored = await both.database.read(lambda records: records.jobs.get("every"))
    assert stored is not None
    assert stored.spec.targets.reach == "site=berlin"
    for named_one in ("munich-1", "nothing-1"):
        answer = await both.http.post("/jobs", json={**JOB, "targets": {"clients": [named_one]}})
        assert (answer.status_code, answer.json()["type"]) == (404, "/help/reasons/unknown-client")
        answer = await both.http.post("/jobs/every/add-clients", json={"clients": [named_one]})
        assert answer.status_code in {404, 409}
    tried = await both.http.post("/jobs", params={"dry_run": "true"}, json={**JOB, "targets": {"clients": ["*"]}})
    assert (tried.json()["clients"], tried.json()["first"]) == (2, ["berlin-1", "berlin-2"])
    other = await both.http.post("/jobs", json={**JOB, "job_id": "munich-job"})
    assert other.status_code == 409


async def test_a_group_is_not_known_to_a_token_with_a_reach(both: Fleet) -> None:
    both.caller = ANONYMOUS
    assert (await both.http.put("/groups/beta", json={"clients": ["berlin-1", "munich-1"]})).status_code == 201
    both.caller = BERLIN
    answers = [
        await both.http.post("/jobs", json={**JOB, "targets": {"clients": [f"group:{name}"]}})
        for name in ("beta", "gone")
    ]
    assert [one.status_code for one in answers] == [422, 422]
    assert answers[0].json()["detail"].replace("beta", "gone") == answers[1].json()["detail"]


async def test_a_new_schedule_keeps_the_reach_for_all_its_jobs(both: Fleet) -> None:
    body = {"schedule_id": "hourly", "every": "1h", "job": {**JOB, "targets": {"clients": ["*"]}}}
    made = await both.http.post("/schedules", json=body)
    assert made.status_code == 201, made.text
    run = await both.http.post("/schedules/hourly/run-now")
    assert run.status_code == 201, run.text
    shown = (await both.http.get(f"/jobs/{run.json()['job_id']}/executions")).json()
    assert [one["client_id"] for one in shown["executions"]] == ["berlin-1", "berlin-2"]


async def test_a_schedule_keeps_its_reach_when_a_caller_without_one_replaces_it(both: Fleet) -> None:
    """`*` meant the clients of Berlin when it was written, and its answers do not show that."""
    body = {"schedule_id": "hourly", "every": "1h", "job": {**JOB, "targets": {"clients": ["*"]}}}
    assert (await both.http.post("/schedules", json=body)).status_code == 201
    both.caller = ANONYMOUS
    shown = (await both.http.get("/schedules/hourly")).json()
    changed = {"every": "2h", "job": shown["job"]}
    answer = await both.http.put("/schedules/hourly", json=changed, headers={"If-Match": str(shown["version"])})
    assert (answer.status_code, answer.json()["every"]) == (200, "2h"), answer.text
    run = await both.http.post("/schedules/hourly/run-now")
    job = (await both.http.get(f"/jobs/{run.json()['job_id']}/executions")).json()
    assert [one["client_id"] for one in job["executions"]] == ["berlin-1", "berlin-2"]
    both.caller = BERLIN
    assert (await both.http.post("/schedules/hourly/pause")).status_code == 200


async def test_a_job_whose_open_client_left_the_reach_is_not_steered_any_more(both: Fleet) -> None:
    assert (await both.http.post("/jobs/berlin-job/pause")).status_code == 200
    both.caller = ANONYMOUS
    assert (await both.http.patch("/clients/berlin-1/labels", json={"site": "rome"})).status_code == 200
    both.caller = BERLIN
    assert (await both.http.post("/jobs/berlin-job/resume")).status_code == 403
    assert (await both.http.get("/jobs/berlin-job")).json()["clients"] == 1


# --- events -----------------------------------------------------------------------------------------------------------


async def test_a_stream_has_only_changes_and_progress_of_its_own_clients(both: Fleet) -> None:
    streams = EventStreams(both.database, both.engine.clock, lambda *_: None, FRAMES)
    names = frozenset({"berlin-upload-1", "munich-upload-1"})
    own = dataclasses.replace(ChangeFilter(uploads=names), reach=reach_of(BERLIN))
    every = dataclasses.replace(ChangeFilter(), reach=reach_of(BERLIN))
    changes: list[Change] = [
        ClientForgotten(at=NOW, client_id="munich-9"),
        JobStateChanged(at=NOW, job_id="munich-job", was=None, state="running", outcome=None),
        UploadCreated(at=NOW, client_id="munich-1", upload_id="munich-upload-1"),
        UploadCreated(at=NOW, client_id="berlin-1", upload_id="berlin-upload-1"),
    ]
    await both.database.write(lambda records: records.changes.append(changes))
    for where in (own, every):
        stream = await streams.open(where, 0)
        seen = await stream.next() or b""
        seen += await stream.next() or b""
        await streams.feed_progress()
        if where is own:
            seen += await stream.next() or b""
            assert b"upload.progress" in seen
        assert b"berlin-upload-1" in seen
        assert OTHER.encode() not in seen
        stream.end()


async def test_the_route_of_events_gives_a_stream_its_callers_reach(both: Fleet) -> None:
    opened: list[ChangeFilter] = []
    streams: EventStreams = both.api.state.streams
    real = streams.open

    async def spy(where: ChangeFilter, last: int | None = None) -> Any:  # noqa: ANN401 - a stream
        opened.append(where)
        stream = await real(where, last)
        stream.end()
        return stream

    streams.open = spy  # type: ignore[method-assign]
    assert (await both.http.get("/events", params={"selector": "site"})).status_code == 200
    (where,) = opened
    assert where.reach == reach_of(BERLIN)


# --- tokens and sessions ----------------------------------------------------------------------------------------------


async def test_a_session_of_a_browser_has_the_reach_of_its_token(tmp_path: Path) -> None:
    """The claim is read from the token, and a sign-in does not lose it."""
    async with fleet_of(tmp_path / "signed", "berlin", OTHER, jwt_secret=SECRET) as fleet:
        token = create_token(SECRET, BERLIN, 600)
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await fleet.http.get("/clients/munich-1", headers=bearer)).status_code == 404
        assert (await fleet.http.get("/groups", headers=bearer)).status_code == 403
        signed = await fleet.http.post("/session", json={"token": token}, headers={"Origin": HOST})
        assert (signed.status_code, signed.json()["clients"]) == (200, "site=berlin"), signed.text
        for path, status in (("/clients/berlin-1", 200), ("/clients/munich-1", 404), ("/groups", 403)):
            assert (await fleet.http.get(path)).status_code == status, path
