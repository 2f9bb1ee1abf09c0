"""What becomes of a tick, the queue, and the pause after failures."""

import pytest
from msgspec.structs import replace

from control_plane.domain.jobs.model import ExecutionState, Job, JobOutcome, JobState
from control_plane.domain.jobs.spec import FileQuery, JobSpec, Targets
from control_plane.domain.reasons import Reason
from control_plane.domain.schedules import decisions
from control_plane.domain.schedules.coverage import cell_after, may_heal
from control_plane.domain.schedules.decisions import GRACE, World, judge
from control_plane.domain.schedules.model import (
    CatchUp,
    CatchUpRuns,
    CellState,
    RunKind,
    RunStatus,
    Schedule,
    ScheduleRun,
    ScheduleSpec,
)
from control_plane.domain.schedules.ticks import Cadence

NOW = 1_000_000.0
JOB = JobSpec(targets=Targets(clients=("restaurant-1",)), files=FileQuery(paths=("/data/*.csv",)))
SPEC = ScheduleSpec(cadence=Cadence(every=3600.0), job=JOB)


def a_schedule(**changes: object) -> Schedule:
    schedule = Schedule(schedule_id="sales", spec=SPEC, created_at=0.0, cursor=0.0, due_at=0.0)
    spec = {name: changes.pop(name) for name in list(changes) if name in ScheduleSpec.__struct_fields__}
    return replace(schedule, spec=replace(SPEC, **spec), **changes)


def a_run(**changes: object) -> ScheduleRun:
    run = ScheduleRun(
        schedule_id="sales",
        kind=RunKind.TICK,
        nominal_at=NOW,
        status=RunStatus.FIRED,
        reason=Reason("on_time", "the tick was due"),
        at=NOW,
        job_id="sales.1",
    )
    return replace(run, **changes)


def a_job(**changes: object) -> Job:
    job = Job(job_id="sales.1", spec=JOB, created_at=NOW, deadline=NOW + 60, clients=3, state=JobState.COMPLETED)
    return replace(job, **changes)


def status(schedule: Schedule, late: float = 0.0, **world: bool) -> RunStatus:
    return judge(schedule, NOW, replace(World(NOW + late, is_last=True), **world)).status


@pytest.mark.parametrize(
    ("overlap", "waits", "expected"),
    [
        ("skip", False, RunStatus.SKIPPED_OVERLAP),
        ("queue_one", False, RunStatus.QUEUED),
        ("queue_one", True, RunStatus.SKIPPED_OVERLAP),
        ("cancel_running", False, RunStatus.FIRED),
        ("allow", False, RunStatus.FIRED),
    ],
)
def test_a_tick_beside_a_running_job(overlap: str, *, waits: bool, expected: RunStatus) -> None:
    schedule = a_schedule(overlap=overlap)
    assert status(schedule) is RunStatus.FIRED
    assert status(schedule, running=True, waits=waits) is expected
    verdict = judge(schedule, NOW, World(NOW, is_last=True, running=True, waits=waits))
    assert verdict.cancels == (overlap == "cancel_running")
    assert verdict.reason.text


@pytest.mark.parametrize(
    ("runs", "late", "is_last", "expected"),
    [
        ("all", GRACE, True, RunStatus.FIRED),
        ("none", GRACE, True, RunStatus.FIRED),
        ("all", GRACE + 1, True, RunStatus.QUEUED),
        ("all", 10.0, False, RunStatus.QUEUED),
        ("latest", GRACE + 1, True, RunStatus.QUEUED),
        ("latest", GRACE + 1, False, RunStatus.MISSED),
        ("none", GRACE + 1, True, RunStatus.MISSED),
        ("none", 10.0, False, RunStatus.MISSED),
        ("all", 7201.0, True, RunStatus.MISSED),
        ("all", 7200.0, False, RunStatus.QUEUED),
    ],
)
def test_a_late_tick_is_made_up_for_as_the_schedule_says(
    runs: CatchUpRuns, late: float, *, is_last: bool, expected: RunStatus
) -> None:
    schedule = a_schedule(catch_up=CatchUp(within=7200.0, runs=runs))
    assert status(schedule, late, is_last=is_last) is expected


def test_a_tick_that_is_delayed_by_jitter_is_not_late() -> None:
    schedule = a_schedule(catch_up=CatchUp(runs="none"), delay=3000.0)
    assert status(schedule, 3000.0 + GRACE) is RunStatus.FIRED
    assert status(schedule, 3001.0 + GRACE) is RunStatus.MISSED


def test_the_share_of_the_jitter_is_the_same_for_every_tick_and_below_it() -> None:
    shares = {decisions.share_of_jitter(f"s-{n}", 600.0) for n in range(200)}
    assert all(0 <= share < 600 and share == int(share) for share in shares)
    assert len(shares) > 100
    assert decisions.share_of_jitter("s-1", 600.0) == decisions.share_of_jitter("s-1", 600.0)
    assert decisions.share_of_jitter("s-1", 0.0) == 0.0


def test_a_tick_during_a_pause_is_paused_also_when_it_is_judged_later() -> None:
    held = decisions.paused(a_schedule(), "stocktaking", NOW - 10)
    assert (held.paused, held.note) == (True, "stocktaking")
    verdict = judge(held, NOW, World(NOW, is_last=True))
    assert (verdict.status, verdict.reason.text) == (RunStatus.PAUSED, "stocktaking")
    resumed = decisions.resumed(held, NOW + 10)
    assert status(resumed, 5000.0) is RunStatus.PAUSED
    assert judge(resumed, NOW + 3600, World(NOW + 3600, is_last=True)).status is RunStatus.FIRED
    assert judge(resumed, NOW - 3600, World(NOW - 3600, is_last=True)).status is RunStatus.FIRED


def test_a_repeated_pause_or_resume_changes_nothing() -> None:
    held = decisions.paused(a_schedule(), "stocktaking", NOW)
    assert decisions.paused(held, "", NOW + 5) == held
    resumed = decisions.resumed(held, NOW + 9)
    assert decisions.resumed(resumed, NOW + 20) == resumed


def test_an_operator_skips_exactly_one_tick() -> None:
    schedule = a_schedule(skip_at=NOW)
    assert status(schedule) is RunStatus.SKIPPED_BY_OPERATOR
    assert judge(schedule, NOW + 3600, World(NOW + 3600, is_last=True)).status is RunStatus.FIRED


def test_the_queue_makes_one_run_at_a_time() -> None:
    regular, queued = a_run(), a_run(queued=True)
    assert decisions.queue_may_fire(a_schedule(), [])
    assert not decisions.queue_may_fire(a_schedule(), [regular])
    assert not decisions.queue_may_fire(a_schedule(), [queued])
    together = a_schedule(overlap="allow")
    assert decisions.queue_may_fire(together, [regular])
    assert not decisions.queue_may_fire(together, [regular, queued])
    assert not decisions.queue_may_fire(replace(together, paused=True), [])


def test_a_fired_run_is_backfilled_when_an_operator_asked_for_it() -> None:
    assert decisions.fired(a_run(kind=RunKind.BACKFILL), "j", NOW).status is RunStatus.BACKFILLED
    assert decisions.fired(a_run(), "j", NOW).status is RunStatus.FIRED


def test_failures_in_a_row_pause_the_schedule() -> None:
    schedule = a_schedule(pause_after_failures=3)
    bad, good = a_job(outcome=JobOutcome.NONE), a_job(outcome=JobOutcome.PARTIAL)
    for job in (bad, bad, good, bad, bad):
        schedule = decisions.after_end(schedule, RunKind.TICK, job, NOW)
    assert (schedule.paused, schedule.failures) == (False, 2)
    schedule = decisions.after_end(schedule, RunKind.TICK, bad, NOW)
    assert schedule.paused
    assert schedule.note == "paused after 3 failed runs in a row, the last of them job sales.1"
    assert decisions.resumed(schedule, NOW).failures == 0


def test_what_a_person_ended_or_started_is_no_failure_of_the_schedule() -> None:
    schedule = a_schedule(pause_after_failures=1)
    bad = a_job(outcome=JobOutcome.NONE)
    assert decisions.after_end(schedule, RunKind.TICK, replace(bad, state=JobState.CANCELLED), NOW) == schedule
    assert decisions.after_end(schedule, RunKind.MANUAL, bad, NOW) == schedule
    assert decisions.after_end(schedule, RunKind.TICK, replace(bad, clients=0), NOW) == schedule
    assert decisions.after_end(schedule, RunKind.TICK, None, NOW) == schedule
    assert decisions.after_end(schedule, RunKind.TICK, replace(bad, state=JobState.ABORTED), NOW).paused


@pytest.mark.parametrize(
    ("state", "reason", "first", "later"),
    [
        (ExecutionState.SUCCEEDED, "sent", CellState.PROVEN, CellState.HEALED),
        (ExecutionState.SKIPPED, "unchanged", CellState.UNCHANGED, CellState.HEALED),
        (ExecutionState.SKIPPED, "no_match", CellState.EMPTY, CellState.EMPTY),
        (ExecutionState.FAILED, "no_match", CellState.MISSING, CellState.MISSING),
        (ExecutionState.PARTIAL, "files_failed", CellState.MISSING, CellState.MISSING),
        (ExecutionState.TIMED_OUT, "deadline_passed", CellState.MISSING, CellState.MISSING),
        (ExecutionState.UPLOADING, "uploading", CellState.PENDING, CellState.MISSING),
    ],
)
def test_a_cell_follows_its_execution(state: ExecutionState, reason: str, first: CellState, later: CellState) -> None:
    assert cell_after(CellState.PENDING, state, reason) is first
    assert cell_after(CellState.MISSING, state, reason) is later


def test_what_a_person_or_the_device_refused_is_not_tried_again() -> None:
    assert may_heal(ExecutionState.TIMED_OUT)
    assert may_heal(ExecutionState.FAILED)
    assert not any(map(may_heal, (ExecutionState.CANCELLED, ExecutionState.REMOVED, ExecutionState.REJECTED)))
