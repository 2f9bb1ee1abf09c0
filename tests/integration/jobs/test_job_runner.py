"""Jobs end to end over a real database: requests, pages, uploads, ends.

Rule: only the test moves the clock; the sums of a job are compared with its rows at each commit.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from control_plane.domain.changes import UploadCreated, UploadStateChanged
from control_plane.domain.jobs.events import (
    DeadlineExtended,
    JobCancelRequested,
    JobEvent,
    PauseRequested,
    ResumeRequested,
)
from control_plane.domain.jobs.model import FileOutcome, Job, JobOutcome, JobState
from control_plane.domain.jobs.spec import (
    AbortRule,
    Approval,
    FileQuery,
    JobSpec,
    Retry,
    Rollout,
    Stage,
    Targets,
    Timeouts,
)
from control_plane.services.errors import BadInput, ClocksDiffer
from control_plane.services.jobs import acts, creation, due, runner
from control_plane.services.jobs.turn import JobTurn
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Records
from control_plane.services.ports.jobs import ExecutionFilter
from schemas.messages import Command, Response
from schemas.values import Action
from tests.support.fakes import OPERATOR
from tests.support.job_rig import SIZE, Device, JobRig, Started


async def verb(rig: JobRig, event: JobEvent) -> Job:
    """An operator's verb."""
    jobs = rig.engine.jobs
    assert jobs is not None

    def work(records: Records) -> Job:
        turn = JobTurn(records, jobs.tools, rig.clock.now())
        job = records.jobs.get("job")
        assert job is not None
        turn.take_job(job)
        after = turn.apply_to_job("job", event)
        turn.finish()
        return after

    job = await rig.database.write(work)
    await rig.settle()
    return job


async def test_a_job_lists_and_sends_the_files_of_every_client(started: Started) -> None:
    rig = await started(Device("a", ("/data/a.log", "/data/b.log")), Device("b"))
    await rig.create()
    assert await rig.states() == {"a": "succeeded", "b": "succeeded"}
    job = await rig.job()
    assert (job.state, job.outcome) == (JobState.COMPLETED, JobOutcome.ALL)
    assert [file.outcome for file in await rig.files("a")] == [FileOutcome.PROVEN] * 2
    assert sorted(rig.objects.objects) == [
        "uploads/job/a/data/a.log",
        "uploads/job/a/data/b.log",
        "uploads/job/b/data/a.log",
    ]


async def test_every_change_of_an_upload_names_its_job(started: Started) -> None:
    rig = await started(Device("a"))
    await rig.create()
    found = await rig.database.read(lambda records: records.changes.after(0, 100))
    uploads = [one.change for one in found if isinstance(one.change, UploadCreated | UploadStateChanged)]
    assert [change.job_id for change in uploads] == ["job"] * 4


async def test_a_job_of_more_clients_than_a_batch_has_an_execution_and_a_change_for_each(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "BATCH", 2)
    rig = await started(*(Device(name) for name in "abcde"), connect=False)
    spec = JobSpec(targets=Targets(clients=("*",)), files=FileQuery(paths=("/data/*",)))
    await rig.database.write(
        lambda records: creation.create_job(records, "job", spec, rig.clock.now(), "ann", client_ids="abcde")
    )
    assert list(await rig.states()) == list("abcde")
    found = await rig.database.read(lambda records: records.changes.after(0, 100))
    assert [getattr(one.change, "client_id", "") for one in found] == ["", *"abcde"]


async def test_no_execution_begins_while_more_waits_for_this_process_than_it_keeps_up_with(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_BACKLOG", 0)
    rig = await started(Device("a"), Device("b"))
    await rig.create()
    await rig.settle(runner.HOLD)
    assert await rig.states() == {"a": "queued", "b": "queued"}
    monkeypatch.undo()
    await rig.settle(runner.HOLD)
    assert await rig.states() == {"a": "succeeded", "b": "succeeded"}


async def test_a_job_is_cancelled_while_none_of_its_executions_may_begin(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_BACKLOG", 0)
    rig = await started(Device("a"))
    await rig.create()
    await verb(rig, JobCancelRequested(now=rig.clock.now()))
    assert (await rig.job()).state is JobState.CANCELLED


async def test_a_client_that_is_offline_is_asked_when_it_connects(started: Started) -> None:
    rig = await started(Device("a"), Device("b"))
    rig.leave("b")
    await rig.passes(200)
    await rig.create()
    execution = await rig.execution("b")
    assert (execution.state, execution.reason.code) == ("queued", "client_offline")
    await rig.connect("b")
    assert await rig.states() == {"a": "succeeded", "b": "succeeded"}


async def test_pages_are_read_in_order_and_no_more_than_eight_uploads_are_open(started: Started) -> None:
    paths = tuple(f"/data/{n:03}.log" for n in range(23))
    rig = await started(Device("a", paths, page=5))
    most = 0

    def look(records: Records) -> None:
        nonlocal most
        most = max(most, records.uploads.count_open("a"))

    rig.sql.checks.append(look)
    await rig.create()
    files = await rig.files("a")
    assert [file.path for file in files] == list(paths)
    assert {file.outcome for file in files} == {FileOutcome.PROVEN}
    assert rig.devices["a"].asked[Action.SELECT_FILES] == 5
    assert most == 8


async def test_the_limits_judge_the_whole_selection(started: Started) -> None:
    paths = tuple(f"/data/{n:03}.log" for n in range(12))
    rig = await started(Device("a", paths, page=5), Device("b", paths, page=100))
    await rig.create(files=FileQuery(paths=("/data/*.log",), max_files=7))
    for client_id in ("a", "b"):
        execution = await rig.execution(client_id)
        assert (execution.files, execution.left_out, execution.matched_files) == (7, 5, 12)
    await rig.create("bytes", files=FileQuery(paths=("/data/*.log",), max_bytes=3 * SIZE + 1))
    assert [(await rig.execution(name, "bytes")).files for name in ("a", "b")] == [3, 3]


async def test_what_a_device_may_not_have_selected_is_not_sent(started: Started) -> None:
    rig = await started(Device("a", ("/data/debug.log", "/data/a.log")), Device("b"))
    await rig.create(files=FileQuery(paths=("/data/*.log",), exclude=("debug.log",)))
    assert [file.path for file in await rig.files("a")] == ["/data/a.log"]
    await rig.create("small", files=FileQuery(paths=("/data/*.log",), max_size=SIZE - 1))
    assert (await rig.execution("b", "small")).reason.code == "over_limit"


async def test_one_file_that_fails_leaves_its_siblings(started: Started) -> None:
    rig = await started(Device("a", ("/data/a.log", "/data/b.log"), ends={"/data/a.log": ["*"]}))
    await rig.create()
    execution = await rig.execution("a")
    assert (execution.state, execution.proven, execution.failed) == ("partial", 1, 1)
    assert execution.reason.code == "file_not_found"
    assert (await rig.job()).outcome is JobOutcome.PARTIAL


async def test_an_automatic_retry_sends_only_what_did_not_succeed(started: Started) -> None:
    device = Device("a", ("/data/a.log", "/data/b.log"), ends={"/data/a.log": ["file_not_found"]})
    rig = await started(device)
    await rig.create(retry=Retry(failed=2))
    assert (await rig.execution("a")).reason.code == "retrying"
    assert (await rig.job()).state is JobState.RUNNING
    # The list of ends is empty now: the second attempt is sent.
    await rig.passes(90)
    execution = await rig.execution("a")
    assert (execution.state, execution.attempt, execution.files, execution.proven) == ("succeeded", 2, 2, 2)
    assert device.asked[Action.DOWNLOAD_FILE] == 3


async def test_a_refusal_of_the_device_and_an_old_agent_end_an_execution(started: Started) -> None:
    rig = await started(
        Device("a", refuses="path_not_allowed"),
        Device("b", refuses="bad_request"),
        Device("c", capabilities=("list_files",)),
        Device("d", ends={"/data/a.log": ["path_not_allowed"]}),
    )
    await rig.create()
    found = {name: await rig.execution(name) for name in "abcd"}
    assert {name: (str(one.state), str(one.reason.code)) for name, one in found.items()} == {
        "a": ("rejected", "by_device"),
        "b": ("failed", "bad_request"),
        "c": ("failed", "unsupported"),
        "d": ("rejected", "by_device"),
    }
    assert (await rig.job()).outcome is JobOutcome.NONE


async def test_a_device_that_is_silent_delays_no_other_and_is_timed_out(started: Started) -> None:
    rig = await started(Device("a", silent=True), Device("b"), Device("c", walks=3))
    await rig.create(timeouts=Timeouts(listing=300.0))
    assert (await rig.states())["b"] == "succeeded"
    await rig.passes(90, step=10)
    assert (await rig.states())["c"] == "succeeded"
    await rig.passes(300, step=30)
    assert (await rig.execution("a")).reason.code == "listing_timeout"
    assert (await rig.job()).state is JobState.COMPLETED
    assert rig.devices["a"].asked[Action.SELECT_FILES] == 4


async def test_nothing_matches_is_no_failure_unless_files_are_required(started: Started) -> None:
    rig = await started(Device("a", ()))
    await rig.create()
    assert (await rig.execution("a")).reason.code == "no_match"
    assert ((await rig.job()).outcome, (await rig.states())["a"]) == (JobOutcome.ALL, "skipped")
    await rig.create("some", files=FileQuery(paths=("/data/*.log",), min_files=1))
    assert (await rig.states("some"))["a"] == "failed"


async def test_what_is_unchanged_since_it_was_proven_is_skipped(started: Started) -> None:
    rig = await started(Device("a", ("/data/a.log",)))
    values: dict[str, Any] = {
        "files": FileQuery(paths=("/data/*.log",), skip="unchanged"),
        "key": "{client_id}/{tick}/{path}",
    }
    await rig.create("one", **values)
    rig.devices["a"].paths = ("/data/a.log", "/data/b.log")
    rig.clock.time += 10
    await rig.create("two", **values)
    execution = await rig.execution("a", "two")
    assert (execution.state, execution.unchanged, execution.files) == ("succeeded", 1, 1)
    rig.clock.time += 10
    await rig.create("three", **values)
    assert (await rig.execution("a", "three")).reason.code == "unchanged"


async def test_a_key_that_is_taken_gets_a_mark_and_a_bad_key_fails_its_file(started: Started) -> None:
    rig = await started(Device("a", ("/data/a.log", "/data/..log/../x")))
    await rig.create("one", files=FileQuery(paths=("/data/*.log",)), key="{client_id}/{path}")
    first = await rig.files("a", "one")
    assert [file.outcome for file in first] == [FileOutcome.PROVEN, FileOutcome.FAILED]
    assert first[1].reason is not None
    assert first[1].reason.code == "bad_key"
    await rig.create("two", key="{client_id}/{path}")
    second = (await rig.files("a", "two"))[0]
    assert first[0].key == "uploads/a/data/a.log"
    assert second.upload_id is not None
    assert second.key == f"uploads/a/data/{second.upload_id[:8]}-a.log"
    assert len(rig.objects.objects) == 2


async def test_cancel_ends_a_job_though_some_executions_never_began(started: Started) -> None:
    rig = await started(Device("a", silent=True), Device("b"), Device("c"))
    rig.leave("c")
    await rig.passes(200)
    await rig.create()
    assert (await rig.states()) == {"a": "listing", "b": "succeeded", "c": "queued"}
    await verb(rig, JobCancelRequested(now=rig.clock.now()))
    job = await rig.job()
    assert (job.state, job.outcome) == (JobState.CANCELLED, JobOutcome.PARTIAL)
    assert (await rig.states()) == {"a": "cancelled", "b": "succeeded", "c": "cancelled"}


async def test_a_cancel_stops_open_uploads_and_begins_no_more(started: Started) -> None:
    paths = tuple(f"/data/{n}.log" for n in range(12))
    rig = await started(Device("a", paths, deaf=frozenset({Action.DOWNLOAD_FILE})))
    await rig.create()
    assert (await rig.states())["a"] == "uploading"
    await verb(rig, JobCancelRequested(now=rig.clock.now()))
    assert (await rig.job()).state is JobState.CANCELLED
    outcomes = [file.outcome for file in await rig.files("a")]
    assert outcomes == [FileOutcome.FAILED] * 8 + [FileOutcome.LEFT_OUT] * 4


async def test_a_job_stops_by_itself_at_its_deadline_and_an_extension_moves_its_uploads(started: Started) -> None:
    rig = await started(Device("a", deaf=frozenset({Action.DOWNLOAD_FILE})), Device("b"))
    rig.leave("b")
    await rig.passes(200)
    job = await rig.create(deadline=300.0)
    later = job.deadline + 300
    await verb(rig, DeadlineExtended(now=rig.clock.now(), deadline=later))
    upload_id = (await rig.files("a"))[0].upload_id
    assert upload_id is not None
    assert (await rig.upload(upload_id)).deadline == later
    await rig.passes(400)
    assert (await rig.job()).state is JobState.RUNNING
    await rig.passes(240)
    job = await rig.job()
    assert (job.state, job.outcome) == (JobState.EXPIRED, JobOutcome.NONE)
    assert set((await rig.states()).values()) == {"timed_out"}


async def test_a_job_whose_uploads_expire_a_moment_before_it_is_expired_too(started: Started) -> None:
    rig = await started(Device("a", deaf=frozenset({Action.DOWNLOAD_FILE})))
    abort = (AbortRule(on="failed", percent=1),)
    job = await rig.create(deadline=300.0, retry=Retry(failed=2), abort=abort)
    await rig.passes(299)
    rig.clock.time = job.deadline + 1
    assert await rig.engine.maintenance.expire() == 1
    await rig.settle()
    job, execution = await rig.job(), await rig.execution("a")
    assert (job.state, execution.state, execution.attempt) == (JobState.EXPIRED, "timed_out", 1)


async def test_nothing_expires_while_the_clock_is_known_to_be_wrong(started: Started) -> None:
    rig = await started(Device("a", silent=True))
    await rig.create(deadline=300.0)
    rig.objects.capabilities = replace(rig.objects.capabilities, clock_skew=-4_000.0)
    with pytest.raises(ClocksDiffer):
        await rig.engine.probe.probe()
    assert rig.engine.probe.clock_is_wrong
    await rig.passes(400)
    assert (await rig.job()).state is JobState.RUNNING
    rig.objects.capabilities = replace(rig.objects.capabilities, clock_skew=0.0)
    await rig.engine.probe.probe()
    await rig.passes(120)
    assert (await rig.job()).state is JobState.EXPIRED


async def test_a_paused_job_begins_nothing_and_a_resume_repeats_nothing_that_ended(started: Started) -> None:
    rig = await started(Device("a"), Device("b"))
    rig.leave("b")
    await rig.passes(200)
    await rig.create()
    await verb(rig, PauseRequested(now=rig.clock.now()))
    await rig.connect("b")
    await rig.passes(60)
    assert await rig.states() == {"a": "succeeded", "b": "queued"}
    asked = rig.devices["a"].asked.copy()
    await verb(rig, ResumeRequested(now=rig.clock.now()))
    assert await rig.states() == {"a": "succeeded", "b": "succeeded"}
    assert rig.devices["a"].asked == asked
    assert (await rig.job()).held_seconds == pytest.approx(60)


async def test_no_more_executions_run_than_the_cap_allows(started: Started) -> None:
    devices = [Device(f"c{n}", silent=n < 2) for n in range(6)]
    rig = await started(*devices)
    most = 0

    def look(records: Records) -> None:
        nonlocal most
        states = [str(state) for state in records.jobs.executions.clients("job").values()]
        most = max(most, sum(state in {"listing", "uploading"} for state in states))

    rig.sql.checks.append(look)
    await rig.create(rollout=Rollout(max_running=2), timeouts=Timeouts(listing=120.0))
    await rig.passes(400)
    assert most == 2
    states = await rig.states()
    assert sorted(states.values()) == ["succeeded"] * 4 + ["timed_out"] * 2


async def test_stages_go_on_when_enough_succeeded_and_pause_if_asked(started: Started) -> None:
    rig = await started(*(Device(f"c{n}") for n in range(10)))
    stages = (Stage(percent=20, min=2, then="pause"), Stage(percent=100))
    await rig.create(rollout=Rollout(stages=stages))
    assert sorted((await rig.states()).values()) == ["queued"] * 8 + ["succeeded"] * 2
    job = await rig.job()
    assert (job.state, job.stage) == (JobState.PAUSED, 1)
    await verb(rig, ResumeRequested(now=rig.clock.now()))
    assert set((await rig.states()).values()) == {"succeeded"}


async def test_a_job_aborts_when_too_many_fail(started: Started) -> None:
    rig = await started(*(Device(f"c{n}", ends={"/data/a.log": ["*"]}) for n in range(6)))
    abort = (AbortRule(on="failed", percent=50, min_ended=2),)
    await rig.create(rollout=Rollout(max_running=1), abort=abort)
    job = await rig.job()
    assert (job.state, job.outcome) == (JobState.ABORTED, JobOutcome.NONE)
    states = list((await rig.states()).values())
    assert states.count("cancelled") == 4


async def test_what_needs_approval_waits_and_only_what_was_approved_is_sent(started: Started) -> None:
    rig = await started(Device("a"), Device("b", changed=frozenset({"/data/a.log"})))
    await rig.create(approval=Approval(mode="always"))
    assert set((await rig.states()).values()) == {"awaiting_approval"}
    job = await rig.job()
    assert str(job.approval) == "pending"
    await approve(rig)
    assert await rig.states() == {"a": "succeeded", "b": "failed"}
    assert (await rig.execution("b")).reason.code == "changed_since_listing"


async def test_executions_wait_from_the_one_that_exceeds_the_bytes(started: Started) -> None:
    rig = await started(Device("a"), Device("b"), Device("c"))
    await rig.create(approval=Approval(mode="limits", bytes_over=2 * SIZE))
    assert sorted((await rig.states()).values()) == ["awaiting_approval", "succeeded", "succeeded"]
    assert (await rig.database.read(lambda records: records.jobs.totals("job"))).bytes == 3 * SIZE


async def approve(rig: JobRig) -> None:
    """An operator approves all that waits."""
    now, jobs = rig.clock.now(), rig.engine.jobs
    assert jobs is not None

    def work(records: Records) -> None:
        job = records.jobs.get("job")
        assert job is not None
        turn = JobTurn(records, jobs.tools, now)
        acts.approve(turn, job, ExecutionFilter(job.job_id), but=frozenset(), as_of=now, later=False)
        turn.finish()

    await rig.database.write(work)
    await rig.settle()


async def test_executions_beyond_the_files_of_a_job_wait(started: Started) -> None:
    two = ("/data/a.log", "/data/b.log")
    rig = await started(Device("a", two), Device("b", two), policy=Policy(max_job_files=3))
    await rig.create(deadline=900.0)
    states = await rig.states()
    assert sorted(states.values()) == ["listing", "succeeded"]
    (full,) = [name for name, state in states.items() if state == "listing"]
    assert (await rig.execution(full)).reason.code == "job_full"
    await rig.passes(1_000)
    assert (await rig.states())[full] == "timed_out"


async def test_a_stage_without_clients_of_its_own_is_passed_at_once(started: Started) -> None:
    rig = await started(*(Device(f"c{n}") for n in range(10)))
    stages = (Stage(percent=1), Stage(percent=2), Stage(percent=5), Stage(percent=100))
    await rig.create(rollout=Rollout(stages=stages))
    assert set((await rig.states()).values()) == {"succeeded"}


async def test_every_file_of_an_execution_that_is_over_has_an_outcome(started: Started) -> None:
    paths = tuple(f"/data/{n}.log" for n in range(3))
    names = ("refused", "deleted", "silent", "aborted")
    rig = await started(*(Device(name, paths, page=2 if name == "silent" else 500) for name in names))
    # It answers the request for its first page only.
    rig.devices["silent"].answers = answering_once(rig.devices["silent"])
    await rig.create(approval=Approval(mode="always"), timeouts=Timeouts(listing=60.0), deadline=600.0)
    await refuse(rig, "refused")
    await rig.engine.client_service.forget(OPERATOR, "deleted")
    rig.on.discard("deleted")
    await rig.passes(700)
    ends = {
        name: {(str(file.outcome), file.reason and file.reason.code) for file in await rig.files(name)}
        for name in names
    }
    assert ends == {
        "refused": {("rejected", "by_operator")},
        "deleted": {("left_out", "client_forgotten")},
        "silent": {("left_out", "listing_timeout")},
        "aborted": {("left_out", "deadline_passed")},
    }


async def test_a_job_that_cannot_go_on_holds_up_no_other(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = due.turn_job

    def turn_job(turn: JobTurn, job: Job, hold: float | None = None) -> bool:
        if job.job_id == "bad":
            message = "the database cannot hold a value"
            raise BadInput(message)
        return keep(turn, job, hold)

    monkeypatch.setattr("control_plane.services.jobs.runner.turn_job", turn_job)
    rig = await started(Device("a"))
    await rig.create("bad", priority=1)
    await rig.create()
    assert (await rig.job()).state is JobState.COMPLETED
    assert rig.counted("jobs.failed")


def answering_once(device: Device) -> Callable[[Command], list[Response]]:
    """Its answers to the first command; then it is silent."""
    left = [device.answers]
    return lambda command: left.pop()(command) if left else []


async def refuse(rig: JobRig, client_id: str) -> None:
    """An operator refuses what one client would send."""
    jobs = rig.engine.jobs
    assert jobs is not None

    def work(records: Records) -> None:
        turn = JobTurn(records, jobs.tools, rig.clock.now())
        job = records.jobs.get("job")
        assert job is not None
        acts.reject(turn, job, [client_id], "operator")
        turn.finish()

    await rig.database.write(work)
    await rig.settle()


async def test_a_request_that_meets_a_device_that_was_restarted_is_sent_again(started: Started) -> None:
    """The session that it names is over: that is no refusal, and no failure of the device."""
    rig = await started(Device("a", refuses="stale_epoch"))
    await rig.create()
    assert ((await rig.execution("a")).state, rig.counted("command.stale")) == ("listing", 1)
    rig.devices["a"].refuses = None
    await rig.passes(40)
    assert rig.devices["a"].asked["select_files"] == 2
    assert (await rig.execution("a")).state != "listing"
