"""Jobs over REST: each call, with its conditions and refusals, over a real database.

Rule: what a caller sees is compared with what is stored.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from control_plane.api.jobs import examples
from control_plane.api.jobs.bodies import JobBody
from control_plane.domain.changes import JobChanged
from control_plane.domain.jobs.model import (
    ApprovalState,
    ExecutionKey,
    ExecutionState,
    FileOutcome,
    JobState,
)
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.services.clients.targeting import set_hash
from control_plane.services.jobs.forecast import forecast_of
from control_plane.services.ports.database import Records
from control_plane.services.ports.jobs import ExecutionFilter
from schemas.values import BudgetUse, DeviceBudget
from tests.support.fake_services import NOW, a_client
from tests.support.job_rest import SMALLEST, JobSite, job_site, tills
from tests.support.jobs import a_file, a_job, an_execution

HOUR = 3600.0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[JobSite]:
    """REST with three clients."""
    async with job_site(tmp_path) as site:
        await site.store(*tills(3))
        yield site


def listed(job_id: str, client_id: str, **changes: object) -> Any:  # noqa: ANN401 - an Execution
    """An execution that waits for approval."""
    return an_execution(
        job_id,
        client_id,
        **{"state": ExecutionState.AWAITING_APPROVAL, "listed_at": NOW - 10, "files": 2, "bytes": 100, **changes},
    )


# --- create ----------------------------------------------------------------------------------------------------------


async def test_a_new_job_has_an_execution_for_each_client(site: JobSite) -> None:
    """201, its place, its version; and the runner is woken."""
    answer = await site.http.post("/jobs", json={**SMALLEST, "job_id": "j1", "targets": {"clients": ["till-*"]}})
    assert (answer.status_code, answer.headers["Location"], answer.headers["ETag"]) == (201, "/jobs/j1", '"1"')
    assert (answer.json()["clients"], answer.json()["executions"]["queued"]) == (3, 3)
    assert site.pokes
    assert (await site.http.get("/jobs/j1")).json() == answer.json()


async def test_the_same_id_with_the_same_body_is_the_same_job(site: JobSite) -> None:
    """Also after it was paused, and in another spelling; with another body it is refused."""
    await site.create(job_id="j1", deadline="24h")
    await site.http.post("/jobs/j1/pause")
    again = await site.http.post("/jobs", json={**SMALLEST, "deadline": 86_400, "job_id": "j1"})
    other = await site.http.post("/jobs", json={**SMALLEST, "deadline": "25h", "job_id": "j1"})
    assert (again.status_code, again.json()["state"], again.json()["clients"]) == (200, "paused", 1)
    assert (other.status_code, other.json()["type"]) == (409, "/help/reasons/job-exists")


async def test_a_job_over_a_set_that_was_shown_is_refused_once_the_set_changed(site: JobSite) -> None:
    """409 with both counts and the difference, as for every bulk act; nothing is made."""
    body = {**SMALLEST, "job_id": "j1", "targets": {"clients": ["till-*"]}}
    shown = (await site.http.post("/jobs?dry_run=true", json=body)).json()
    expected = {"count": shown["clients"], "set": shown["set"]}
    await site.store(a_client("till-9", capabilities=("select_files",)))
    refused = await site.http.post("/jobs", params=expected, json=body)
    document = refused.json()
    assert (refused.status_code, document["type"]) == (409, "/help/reasons/set-changed")
    assert (document["expected"], document["found"], document["added"]) == (3, 4, ["till-9"])
    assert (await site.http.get("/jobs/j1")).status_code == 404
    assert (await site.http.post("/jobs", params={"count": 3}, json=body)).status_code == 422
    expected = {"count": 4, "set": set_hash(["till-1", "till-2", "till-3", "till-9"])}
    assert (await site.http.post("/jobs", params=expected, json=body)).status_code == 201


async def test_a_dry_run_answers_what_it_would_do_and_makes_nothing(site: JobSite) -> None:
    """Clients, the first of them, warnings."""
    await site.store(a_client("till-9", expected=True, install_id="", capabilities=(), online=False))
    body = {**SMALLEST, "targets": {"clients": ["till-*"]}, "job_id": "j1", "key": "{label.floor}/{client_id}/{name}"}
    answer = await site.http.post("/jobs", params={"dry_run": "true"}, json=body)
    document = answer.json()
    assert (answer.status_code, document["dry_run"], document["clients"]) == (200, True, 4)
    assert document["first"] == ["till-1", "till-2", "till-3", "till-9"]
    assert document["set"] == set_hash(document["first"])
    assert any("has no label 'floor'" in one for one in document["warnings"])
    assert (await site.http.get("/jobs/j1")).status_code == 404


async def test_a_dry_run_forecasts_from_the_past_of_the_same_files_who_would_pass_a_cap(site: JobSite) -> None:
    """Of the last jobs with these paths; without a past, of the others; never more than `max_bytes`."""
    await site.create(job_id="before", targets={"clients": ["till-*"]})
    nothing = await site.http.post("/jobs?dry_run=true", json=SMALLEST)
    assert nothing.json()["forecast"] is None
    month = DeviceBudget(month=BudgetUse(1_000, 900, datetime.fromtimestamp(NOW + 86_400, UTC)))
    day = DeviceBudget(day=BudgetUse(1_000, 0, datetime.fromtimestamp(NOW + 3_600, UTC)))
    for name, budget in (("till-1", month), ("till-2", day), ("till-3", month)):
        await site.store(a_client(name, capabilities=("select_files",), budget=budget, budget_at=NOW))

    def past(records: Records) -> None:
        keys = [ExecutionKey("before", name) for name in ("till-1", "till-2")]
        pairs = [
            (one, replace(one, bytes=150, proven=1, proven_bytes=150))
            for one in records.jobs.executions.some(keys).values()
        ]
        records.jobs.executions.save(pairs)

    await site.database.write(past)
    body = {**SMALLEST, "targets": {"clients": ["till-*"]}}
    found = (await site.http.post("/jobs?dry_run=true", json=body)).json()["forecast"]
    assert {name: found[name] for name in ("limited", "by_history", "by_limit", "unknown", "bytes")} == {
        "limited": 3,
        "by_history": 3,
        "by_limit": 0,
        "unknown": 0,
        "bytes": 450,
    }
    today = datetime.fromtimestamp(NOW, UTC).date().isoformat()
    assert found["crossings"] == [{"date": today, "period": "month", "clients": 2, "first": ["till-1", "till-3"]}]
    body["files"] = {**SMALLEST["files"], "max_bytes": 100}
    found = (await site.http.post("/jobs?dry_run=true", json=body)).json()["forecast"]
    assert found["crossings"] == []
    spec = JobBody.model_validate(body).spec(NOW)
    never = await site.database.read(lambda records: forecast_of(records, spec, ["till-1"], NOW, ticks=[]))
    assert never is not None
    assert (never.limited, never.bytes, never.crossings) == (1, 0, ())


@pytest.mark.parametrize(
    ("members", "status", "detail"),
    [
        ({"targets": {"clients": ["till-1", "nowhere"]}}, 404, "client 'nowhere'"),
        ({"targets": {"selector": "site=nowhere"}}, 422, "targets: no client matches"),
        ({"targets": {"selector": "site in berlin"}}, 422, "the selector is wrong at position"),
        ({"targets": {"clients": ["group:none"]}}, 422, "there is no group 'none'"),
        ({"files": {"paths": ["/etc/passwd"]}}, 422, "files.paths: '/etc/passwd' is outside the roots of every client"),
        ({"files": {"paths": ["/*/passwd", "/e*/x"]}}, 201, None),
        (
            {"files": {"paths": ["/a"], "exclude": ["x" * 4000] * 13}},
            422,
            "files: paths and exclude have more than 48 KiB",
        ),
        ({"key": "{schedule}/{client_id}/{path}"}, 422, "key: {schedule} has a value in a job of a schedule only"),
        ({"deadline": "2025-10-31T10:00:00Z"}, 422, "deadline: has passed already"),
        ({"deadline": "2026-10-31T10:00:00Z"}, 422, "deadline: is more than 30 days away"),
        ({"windows": [{"cron": "0 0 31 2 *", "for": "1h"}]}, 422, "windows.0.cron: is '0 0 31 2 *'"),
        ({"zone": "Mars/Base"}, 422, "zone: is 'Mars/Base'"),
        ({"key": "{job}/{path}"}, 422, "key: must hold {client_id}"),
        ({"rollout": {"per_minut": 1}}, 422, "rollout.per_minut: extra inputs"),
        ({"after": "move:/a\nb"}, 422, "after: must be keep, delete or move:/FOLDER"),
        ({"after": "move:done"}, 422, "after: must be keep, delete or move:/FOLDER"),
    ],
)
async def test_a_job_that_cannot_be_is_refused_in_one_sentence(
    site: JobSite, members: dict[str, Any], status: int, detail: str | None
) -> None:
    """It names the member, and nothing is made."""
    answer = await site.http.post("/jobs", json={**SMALLEST, "job_id": "j1", **members})
    assert answer.status_code == status, answer.text
    if detail is not None:
        assert answer.json()["detail"].startswith(detail)
        assert (await site.http.get("/jobs/j1")).status_code == 404


async def test_the_error_of_a_selector_has_its_position(site: JobSite) -> None:
    """For a form that shows where it is wrong."""
    answer = await site.http.post("/jobs", json={**SMALLEST, "targets": {"selector": "site=berlin,,x"}})
    assert (answer.status_code, answer.json()["position"]) == (422, 12)


async def test_what_is_shown_as_the_specification_is_a_request_for_the_same_job(site: JobSite) -> None:
    """Exported from one control plane, created on another."""
    body = {**examples.NEW_JOB, "targets": {"clients": ["till-1"]}, "files": {"paths": ["/data/*"]}}
    first = (await site.http.post("/jobs", json=body)).json()
    second = await site.http.post("/jobs", json={**first["spec"], "job_id": "copy"})
    assert second.status_code == 201, second.text
    assert second.json()["spec"] == first["spec"]


async def test_a_body_of_thousands_of_clients_is_taken(site: JobSite) -> None:
    """Up to 4 MiB."""
    await site.store(*(a_client(f"shop-{n:05}", capabilities=("select_files",)) for n in range(5_000)))
    names = [f"shop-{n:05}" for n in range(5_000)]
    answer = await site.http.post("/jobs", json={**SMALLEST, "targets": {"clients": names}})
    assert (answer.status_code, answer.json()["clients"]) == (201, 5_000)


# --- look ------------------------------------------------------------------------------------------------------------


async def test_jobs_are_listed_by_pages_with_a_link(site: JobSite) -> None:
    """Newest first; the link is the cursor."""
    for n in range(3):
        await site.store(a_job(f"j{n}", created_at=NOW + n))
    first = await site.http.get("/jobs", params={"limit": 2, "state": "running"})
    assert [one["job_id"] for one in first.json()["jobs"]] == ["j2", "j1"]
    link = first.headers["Link"]
    assert link.endswith('>; rel="next"')
    second = await site.http.get(link[1:].partition(">")[0])
    assert [one["job_id"] for one in second.json()["jobs"]] == ["j0"]
    assert "Link" not in second.headers
    assert (await site.http.get("/jobs", params={"state": "completed"})).json()["jobs"] == []


async def test_an_execution_shows_the_nearest_reason(site: JobSite) -> None:
    """Its client is offline; its job is paused; else its own."""
    await site.store(
        a_client("off", online=False),
        a_job("j1", deadline=NOW + HOUR),
        an_execution("j1", "off", due_at=1e15),
        an_execution("j1", "till-1", state=ExecutionState.UPLOADING, reason=Reason("uploading", "is sent")),
        an_execution("j1", "gone"),
    )
    shown = (await site.http.get("/jobs/j1/executions")).json()
    assert {one["client_id"]: one["reason"]["code"] for one in shown["executions"]} == {
        "off": "client_offline",
        "till-1": "uploading",
        "gone": "client_unknown",
    }
    await site.http.post("/jobs/j1/pause")
    paused = (await site.http.get("/jobs/j1/executions", params={"client": "off"})).json()["executions"]
    assert [one["reason"]["code"] for one in paused] == ["paused"]


async def test_executions_show_the_count_and_the_set_of_all_that_match(site: JobSite) -> None:
    """On the first page of a filter only: without one the page does not read every execution."""
    await site.store(a_job("j1"), *(an_execution("j1", f"till-{n}") for n in (1, 2, 3)))
    queued: dict[str, str | int] = {"limit": 2, "state": "queued"}
    first = (await site.http.get("/jobs/j1/executions", params=queued)).json()
    assert (first["count"], first["set"]) == (3, set_hash(["till-1", "till-2", "till-3"]))
    second = (await site.http.get("/jobs/j1/executions", params={**queued, "cursor": first["cursor"]})).json()
    assert (second["count"], second["set"], len(second["executions"])) == (None, None, 1)
    every = (await site.http.get("/jobs/j1/executions")).json()
    assert (every["count"], every["set"], len(every["executions"])) == (None, None, 3)


async def test_files_are_filtered(site: JobSite) -> None:
    """By client, by outcome, by being undecided."""
    execution = an_execution("j1", "till-1")
    await site.store(
        a_job("j1"), execution, a_file(execution, 1, outcome=FileOutcome.PROVEN, key="k"), a_file(execution, 2)
    )

    async def numbers(**query: str) -> list[int]:
        return [one["number"] for one in (await site.http.get("/jobs/j1/files", params=query)).json()["files"]]

    assert await numbers() == [1, 2]
    assert await numbers(outcome="proven") == [1]
    assert await numbers(undecided="true") == [2]
    assert await numbers(client="till-2") == []


@pytest.mark.parametrize("path", ["", "/executions", "/files", "/manifest", "/results"])
async def test_a_job_that_does_not_exist_is_not_found(site: JobSite, path: str) -> None:
    """For each of its lists."""
    answer = await site.http.get(f"/jobs/nope{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/help/reasons/unknown-job")


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/jobs/j1", {"priority": 5}),
        ("POST", "/jobs/j1/extend", {"deadline": "48h"}),
        ("POST", "/jobs/j1/retry", {"where": {"clients": ["till-1"]}}),
    ],
)
async def test_a_change_that_others_may_have_made_needs_the_version(
    site: JobSite, method: str, path: str, body: dict[str, Any]
) -> None:
    """428 without it, 412 with an old one, and nothing changes."""
    await site.create(job_id="j1")
    before = await site.job("j1")
    without = await site.http.request(method, path, json=body)
    old = await site.http.request(method, path, json=body, headers={"If-Match": '"7"'})
    wrong = await site.http.request(method, path, json=body, headers={"If-Match": "1"})
    assert (without.status_code, old.status_code, old.json()["version"], wrong.status_code) == (428, 412, 1, 422)
    assert await site.job("j1") == before
    assert (await site.http.request(method, path, json=body, headers={"If-Match": '"1"'})).status_code == 200


async def test_a_retuned_job_has_another_version(site: JobSite) -> None:
    """What is left out stays; null removes a limit."""
    await site.create(job_id="j1", rollout={"per_minute": 5, "max_running": 9}, priority=3)
    body = {"rollout": {"per_minute": None}, "windows": [{"cron": "0 1 * * *", "for": "3h"}], "deadline": "48h"}
    answer = await site.http.patch("/jobs/j1", json=body, headers={"If-Match": '"1"'})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    spec = answer.json()["spec"]
    assert (spec["rollout"]["per_minute"], spec["rollout"]["max_running"], spec["priority"]) == (None, 9, 3)
    assert spec["windows"][0]["for"] == 3 * HOUR
    assert (await site.job("j1")).deadline == NOW + 48 * HOUR
    empty = await site.http.patch("/jobs/j1", json={}, headers={"If-Match": '"2"'})
    assert (empty.status_code, empty.headers["ETag"]) == (200, '"2"')


async def test_executions_do_not_change_the_version(site: JobSite) -> None:
    """An operator may act on what was shown though executions go on."""
    await site.create(job_id="j1")
    before = await site.execution("j1", "till-1")
    after = replace(before, state=ExecutionState.LISTING)
    await site.database.write(lambda records: records.jobs.executions.save([(before, after)]))
    assert (await site.http.get("/jobs/j1")).headers["ETag"] == '"1"'


async def test_a_job_that_is_over_is_not_retuned_though_no_deadline_was_given(site: JobSite) -> None:
    """409 with its state, not a complaint about its old deadline."""
    await site.store(a_job("j1", state=JobState.COMPLETED, deadline=NOW - 1, ended_at=NOW - 1))
    answer = await site.http.patch("/jobs/j1", json={"priority": 5}, headers={"If-Match": '"1"'})
    assert (answer.status_code, answer.json()["state"]) == (409, "completed")


async def test_an_execution_that_is_due_is_looked_at_now(site: JobSite) -> None:
    """An instant in the past would tell nothing."""
    await site.store(a_job("j1", deadline=NOW + HOUR), an_execution("j1", "till-1", due_at=0.0))
    shown = (await site.http.get("/jobs/j1/executions")).json()["executions"]
    assert [one["reason"]["next_wake_at"] for one in shown] == ["2025-11-01T10:00:00.000Z"]


# --- verbs -----------------------------------------------------------------------------------------------------------


async def test_a_verb_that_is_repeated_changes_nothing(site: JobSite) -> None:
    """200 again, the same version."""
    await site.create(job_id="j1")
    for verb, state, version in (("pause", "paused", 2), ("resume", "running", 3), ("cancel", "cancelling", 4)):
        for _ in range(2):
            answer = await site.http.post(f"/jobs/j1/{verb}")
            assert (answer.status_code, answer.json()["job"]["state"]) == (200, state)
            assert answer.headers["ETag"] == f'"{version}"'


async def test_a_verb_that_the_state_forbids_is_a_conflict_with_its_reason(site: JobSite) -> None:
    """State, reason code, and when it is looked at next."""
    reason = Reason(ReasonCode.DEADLINE_PASSED, "too late")
    await site.store(a_job("j1", state=JobState.CANCELLING, ending=JobState.EXPIRED, reason=reason, next_wake_at=NOW))
    answer = await site.http.post("/jobs/j1/pause")
    document = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert (document["state"], document["reason"]["code"]) == ("cancelling", "deadline_passed")
    assert document["reason"]["next_wake_at"] == "2025-11-01T10:00:00.000Z"


async def test_a_deadline_is_extended_from_now(site: JobSite) -> None:
    """Not beyond 30 days, and not into the past."""
    await site.create(job_id="j1")
    for deadline, status in (("2025-10-01T00:00:00Z", 422), ("2025-12-24T00:00:00Z", 422), ("12h", 200)):
        answer = await site.http.post("/jobs/j1/extend", json={"deadline": deadline}, headers={"If-Match": '"1"'})
        assert answer.status_code == status, answer.text
    assert (await site.job("j1")).deadline == NOW + 12 * HOUR


async def test_a_job_that_was_repeated_after_a_month_is_extended_from_now(site: JobSite) -> None:
    """Its first run has used up the 30 days after the creation."""
    await site.store(a_job("j1", created_at=NOW - 60 * 24 * HOUR, deadline=NOW + HOUR, run=2))
    answer = await site.http.post("/jobs/j1/extend", json={"deadline": "48h"}, headers={"If-Match": '"1"'})
    assert answer.status_code == 200, answer.text
    assert (await site.job("j1")).deadline == NOW + 48 * HOUR


async def test_clients_are_added_once(site: JobSite) -> None:
    """Those that belong to the job stay as they are; a continuous job takes none."""
    await site.create(job_id="j1")
    answer = await site.http.post("/jobs/j1/add-clients", json={"clients": ["till-*"]})
    assert (answer.json()["acted_on"], answer.json()["job"]["clients"]) == (2, 3)
    again = await site.http.post("/jobs/j1/add-clients", json={"selector": "site=berlin"})
    assert (again.status_code, again.json()["acted_on"]) == (200, 0)
    await site.create(job_id="j2", targets={"clients": ["till-1"], "mode": "continuous"})
    assert (await site.http.post("/jobs/j2/add-clients", json={"clients": ["till-2"]})).status_code == 409


# --- approval --------------------------------------------------------------------------------------------------------


async def test_the_manifest_shows_what_would_be_sent(site: JobSite) -> None:
    """Totals, the largest first, and every client."""
    await site.store(
        a_job("j1", approval=ApprovalState.PENDING, clients=3),
        listed("j1", "till-1"),
        second := listed("j1", "till-2", bytes=900),
        an_execution("j1", "till-3"),
        a_file(second, 1, size=5),
        a_file(second, 2, size=895),
        a_file(second, 3, size=10_000, outcome=FileOutcome.LEFT_OUT),
    )
    shown = (await site.http.get("/jobs/j1/manifest")).json()
    assert (shown["approval"], shown["waiting"], shown["as_of"]) == ("pending", 2, "2025-11-01T10:00:00.000Z")
    assert [one["client_id"] for one in shown["largest"]] == ["till-2", "till-1"]
    assert [one["client_id"] for one in shown["clients"]] == ["till-1", "till-2", "till-3"]
    assert [one["size"] for one in shown["largest_files"]] == [895, 5]


async def test_what_was_listed_is_approved_but_for_some(site: JobSite) -> None:
    """What was listed later waits; the job's approval is granted once nothing waits."""
    await site.store(
        a_job("j1", approval=ApprovalState.PENDING),
        *(listed("j1", f"till-{n}") for n in (1, 2)),
        listed("j1", "till-3", listed_at=NOW + 1),
    )
    as_of = "2025-11-01T10:00:00.000Z"
    first = await site.http.post("/jobs/j1/approve", json={"as_of": as_of, "except": ["till-2"]})
    assert (first.status_code, first.json()["acted_on"], first.json()["job"]["approval"]) == (200, 1, "pending")
    assert (await site.execution("j1", "till-1")).state is ExecutionState.UPLOADING
    assert (await site.execution("j1", "till-2")).state is ExecutionState.AWAITING_APPROVAL
    late = {"as_of": "2025-11-01T10:00:05.000Z", "later": "approve"}
    second = (await site.http.post("/jobs/j1/approve", json=late)).json()
    assert (second["acted_on"], second["job"]["approval"]) == (2, "granted")
    assert (await site.job("j1")).approve_later


async def test_an_approval_of_what_was_listed_again_is_a_conflict(site: JobSite) -> None:
    """Of a named client only: what was shown of it is not what would be sent."""
    await site.store(a_job("j1", approval=ApprovalState.PENDING), listed("j1", "till-1", listed_at=NOW + 1))
    body = {"as_of": "2025-11-01T10:00:00.000Z", "clients": ["till-1"]}
    answer = await site.http.post("/jobs/j1/approve", json=body)
    assert answer.status_code == 409
    assert "till-1: listed again" in answer.json()["detail"]
    stranger = await site.http.post("/jobs/j1/approve", json={**body, "clients": ["till-3"]})
    assert stranger.status_code == 422


async def test_an_approval_with_the_set_that_was_shown_is_refused_once_other_clients_wait(site: JobSite) -> None:
    """Both counts are answered, and nothing was approved."""
    await site.store(a_job("j1", approval=ApprovalState.PENDING), listed("j1", "till-1"))
    waiting = {"state": "awaiting_approval"}
    shown = (await site.http.get("/jobs/j1/executions", params=waiting)).json()
    body = {"as_of": "2025-11-01T10:00:05.000Z", "count": shown["count"], "set": shown["set"]}
    await site.store(listed("j1", "till-2"))
    answer = await site.http.post("/jobs/j1/approve", json=body)
    refused = answer.json()
    assert (answer.status_code, refused["type"]) == (409, "/help/reasons/set-changed")
    assert (refused["expected"], refused["found"], refused["added"]) == (1, 2, ["till-2"])
    assert (await site.execution("j1", "till-1")).state is ExecutionState.AWAITING_APPROVAL
    shown = (await site.http.get("/jobs/j1/executions", params=waiting)).json()
    body |= {"count": shown["count"], "set": shown["set"]}
    assert (await site.http.post("/jobs/j1/approve", json=body)).json()["acted_on"] == 2
    alone = {name: value for name, value in body.items() if name != "set"}
    assert (await site.http.post("/jobs/j1/approve", json=alone)).status_code == 422


async def test_a_retuned_job_is_in_the_change_log(site: JobSite) -> None:
    """A page that shows the job reads it again."""
    job = await site.create(job_id="j1")
    await site.http.patch("/jobs/j1", json={"priority": 5}, headers={"If-Match": f'"{job["version"]}"'})
    found = await site.database.read(lambda records: records.changes.after(0, 100))
    assert [(one.change.job_id, one.change.version) for one in found if isinstance(one.change, JobChanged)] == [
        ("j1", job["version"] + 1)
    ]


async def test_what_is_refused_ends_as_rejected_by_the_operator(site: JobSite) -> None:
    """The others wait on."""
    await site.store(a_job("j1", approval=ApprovalState.PENDING), listed("j1", "till-1"), listed("j1", "till-2"))
    answer = await site.http.post("/jobs/j1/reject", json={"where": {"clients": ["till-1"]}})
    assert (answer.status_code, answer.json()["acted_on"]) == (200, 1)
    shown = (await site.http.get("/jobs/j1/executions", params={"state": "rejected"})).json()["executions"]
    assert [(one["client_id"], one["reason"]["code"]) for one in shown] == [("till-1", "by_operator")]


# --- bulk acts -------------------------------------------------------------------------------------------------------


async def failed_job(site: JobSite) -> dict[str, Any]:
    """A job that is over, with two failed executions; what the list of those shows."""
    over = {"due_at": None, "ended_at": NOW, "attempt": 1}
    await site.store(
        a_job("j1", state=JobState.COMPLETED, ended_at=NOW, deadline=NOW + HOUR, clients=3),
        *(an_execution("j1", f"till-{n}", state=ExecutionState.FAILED, **over) for n in (1, 2)),
        an_execution("j1", "till-3", state=ExecutionState.SUCCEEDED, **over),
    )
    shown: dict[str, Any] = (await site.http.get("/jobs/j1/executions", params={"state": "failed"})).json()
    return {"state": ["failed"], "count": shown["count"], "set": shown["set"]}


async def test_a_bulk_act_acts_on_the_set_that_was_shown(site: JobSite) -> None:
    """A job that is over begins again, and only what was chosen is repeated."""
    where = await failed_job(site)
    answer = await site.http.post("/jobs/j1/retry", json={"where": where}, headers={"If-Match": '"1"'})
    document = answer.json()
    assert (answer.status_code, document["acted_on"]) == (200, 2), answer.text
    assert (document["job"]["state"], document["job"]["run"], document["job"]["executions"]["queued"]) == (
        "running",
        2,
        2,
    )
    assert (await site.execution("j1", "till-1")).attempt == 2


async def test_a_bulk_act_on_another_set_is_refused_with_the_difference(site: JobSite) -> None:
    """Both counts, and some of the ids that came and went."""
    where = await failed_job(site)
    found = await site.database.read(
        lambda records: {one.client_id: one for one in records.jobs.executions.matching(ExecutionFilter("j1"))}
    )
    changes = [
        (found["till-1"], replace(found["till-1"], state=ExecutionState.QUEUED, due_at=NOW)),
        (found["till-3"], replace(found["till-3"], state=ExecutionState.FAILED)),
    ]
    await site.database.write(lambda records: records.jobs.executions.save(changes))
    answer = await site.http.post("/jobs/j1/retry", json={"where": where}, headers={"If-Match": '"1"'})
    document = answer.json()
    assert (answer.status_code, document["type"]) == (409, "/help/reasons/set-changed")
    assert (document["expected"], document["found"]) == (2, 2)
    assert (document["added"], document["removed"]) == (["till-3"], ["till-1"])
    assert (await site.job("j1")).state is JobState.COMPLETED


async def test_a_filter_without_the_set_that_it_showed_is_refused(site: JobSite) -> None:
    """Otherwise it would act on what nobody saw."""
    await failed_job(site)
    answer = await site.http.post("/jobs/j1/retry", json={"where": {"state": ["failed"]}}, headers={"If-Match": '"1"'})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("where: a filter needs the count and the set")


async def test_a_retry_after_the_deadline_needs_a_new_one(site: JobSite) -> None:
    """It is that of the next run."""
    await site.store(
        a_job("j1", state=JobState.EXPIRED, ended_at=NOW - 1, deadline=NOW - 1, created_at=NOW - 40 * 24 * HOUR),
        an_execution("j1", "till-1", state=ExecutionState.TIMED_OUT, due_at=None, ended_at=NOW - 1),
    )
    where, headers = {"where": {"clients": ["till-1"]}}, {"If-Match": '"1"'}
    assert (await site.http.post("/jobs/j1/retry", json=where, headers=headers)).status_code == 422
    answer = await site.http.post("/jobs/j1/retry", json={**where, "deadline": "2h"}, headers=headers)
    assert (answer.status_code, answer.json()["acted_on"]) == (200, 1), answer.text
    assert (await site.job("j1")).deadline == NOW + 2 * HOUR
