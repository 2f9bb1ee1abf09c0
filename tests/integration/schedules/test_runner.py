"""The runner on a real database: regular ticks, overlap, catch-up, the queue, failures."""

import asyncio

import pytest
from msgspec.structs import replace

from control_plane.domain.changes import ScheduleTicked
from control_plane.domain.jobs.model import JobOutcome, JobState
from control_plane.domain.jobs.spec import Targets
from control_plane.domain.schedules.model import CatchUp, RunKind, RunStatus
from control_plane.domain.schedules.ticks import Cadence
from control_plane.services.ports.database import Database
from control_plane.services.schedules import runner
from tests.support.schedules import HOUR, JOB, START, Site, a_schedule, accounted

FIRED, QUEUED, MISSED = RunStatus.FIRED, RunStatus.QUEUED, RunStatus.MISSED


@pytest.fixture
def site(sql_database: Database) -> Site:
    return Site(sql_database)


async def pass_hours(site: Site, hours: float) -> None:
    site.clock.forward(hours * HOUR)
    await site.settle()


async def test_a_tick_makes_a_run_and_a_job(site: Site) -> None:
    await site.add(a_schedule())
    await site.settle()
    assert await site.runs() == []
    await pass_hours(site, 1)
    (run,) = await site.runs()
    assert (run.kind, run.nominal_at, run.status, run.reason.code) == (RunKind.TICK, START + HOUR, FIRED, "on_time")
    assert run.job_id == "sales.20261125T110000Z"
    job = await site.job(run.job_id)
    assert (job.schedule_id, job.kind, job.nominal_at, job.clients) == ("sales", "tick", START + HOUR, 2)
    assert site.made == 1


async def test_a_tick_is_in_the_change_log(site: Site) -> None:
    await site.add(a_schedule())
    await pass_hours(site, 1)
    found = await site.database.read(lambda records: records.changes.after(0, 100))
    assert [one.change for one in found if isinstance(one.change, ScheduleTicked)] == [
        ScheduleTicked(
            at=START + HOUR,
            schedule_id="sales",
            kind="tick",
            nominal_at=START + HOUR,
            status="fired",
            job_id="sales.20261125T110000Z",
        )
    ]
    tick = {"schedule_id": "sales", "kind": "tick", "nominal_at": START + HOUR, "status": "fired"}
    assert ("schedule.tick", {**tick, "job_id": "sales.20261125T110000Z"}) in site.lines


async def test_more_schedules_than_one_look_takes_need_no_pause(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SCHEDULES", 1)
    await site.add(*(a_schedule(schedule_id=f"sales-{n}") for n in range(3)))
    await pass_hours(site, 1)
    assert [len(await site.runs(f"sales-{n}")) for n in range(3)] == [1, 1, 1]


async def test_jitter_delays_the_job_and_not_the_nominal_time(site: Site) -> None:
    schedule = a_schedule(jitter=600.0)
    assert 0 < schedule.delay < 600
    await site.add(schedule)
    await pass_hours(site, 1)
    assert await site.runs() == []
    site.clock.forward(schedule.delay)
    await site.settle()
    assert [run.nominal_at for run in await site.runs()] == [START + HOUR]


async def test_overlap_skip(site: Site) -> None:
    await site.add(a_schedule())
    await pass_hours(site, 1)
    await pass_hours(site, 1)
    assert await site.statuses() == [FIRED, RunStatus.SKIPPED_OVERLAP]
    await site.end_job((await site.runs())[0].job_id)
    await pass_hours(site, 1)
    assert (await site.statuses())[-1] is FIRED


async def test_overlap_queue_one(site: Site) -> None:
    await site.add(a_schedule(overlap="queue_one"))
    for _ in range(3):
        await pass_hours(site, 1)
    assert await site.statuses() == [FIRED, QUEUED, RunStatus.SKIPPED_OVERLAP]
    await site.end_job((await site.runs())[0].job_id)
    await site.settle()
    assert await site.statuses() == [FIRED, FIRED, RunStatus.SKIPPED_OVERLAP]


async def test_overlap_cancel_running(site: Site) -> None:
    await site.add(a_schedule(overlap="cancel_running"))
    await pass_hours(site, 1)
    await pass_hours(site, 1)
    first, second = await site.runs()
    assert ((await site.job(first.job_id)).ending, (await site.job(second.job_id)).ending) == (JobState.CANCELLED, None)


async def test_overlap_allow(site: Site) -> None:
    await site.add(a_schedule(overlap="allow"))
    for _ in range(3):
        await pass_hours(site, 1)
    assert await site.statuses() == [FIRED, FIRED, FIRED]


async def test_a_job_that_runs_when_the_control_plane_starts_again_is_known(site: Site) -> None:
    await site.add(a_schedule())
    await pass_hours(site, 1)
    again = Site(site.database, site.clock)
    await pass_hours(again, 1)
    assert await again.statuses() == [FIRED, RunStatus.SKIPPED_OVERLAP]


async def test_catch_up_all_makes_every_missed_tick_oldest_first_one_at_a_time(site: Site) -> None:
    await site.add(a_schedule(catch_up=CatchUp(runs="all")))
    await pass_hours(site, 3.5)
    assert await site.statuses() == [FIRED, QUEUED, QUEUED]
    for n in range(3):
        runs = await site.runs()
        assert [run.status for run in runs] == [FIRED] * (n + 1) + [QUEUED] * (2 - n)
        assert (runs[n].queued, runs[n].reason.code) == (True, "caught_up")
        await site.end_job(runs[n].job_id)
        await site.settle()
    assert accounted(await site.runs()) == [START + HOUR, START + 2 * HOUR, START + 3 * HOUR]


async def test_catch_up_latest_makes_the_last_one(site: Site) -> None:
    await site.add(a_schedule(catch_up=CatchUp(runs="latest")))
    await pass_hours(site, 3.5)
    assert await site.statuses() == [MISSED, MISSED, FIRED]
    assert [run.reason.code for run in await site.runs()] == ["superseded", "superseded", "caught_up"]


async def test_catch_up_none_makes_none(site: Site) -> None:
    await site.add(a_schedule(catch_up=CatchUp(runs="none")))
    await pass_hours(site, 3.5)
    assert await site.statuses() == [MISSED, MISSED, MISSED]


async def test_ticks_older_than_within_are_missed(site: Site) -> None:
    await site.add(a_schedule(catch_up=CatchUp(within=1.6 * HOUR, runs="all")))
    await pass_hours(site, 3.5)
    assert await site.statuses() == [MISSED, FIRED, QUEUED]
    assert (await site.runs())[0].reason.code == "too_old"


async def test_a_regular_tick_beside_the_queue_follows_overlap(site: Site) -> None:
    """With overlap allowed it goes on beside the job that is made up for; the queue still has one job at a time."""
    await site.add(a_schedule(overlap="allow", catch_up=CatchUp(runs="all")))
    await pass_hours(site, 3.5)
    await pass_hours(site, 0.5)
    assert await site.statuses() == [FIRED, QUEUED, QUEUED, FIRED]


async def test_ten_thousand_missed_ticks_wedge_nothing(site: Site) -> None:
    """Another schedule ticks meanwhile; every missed tick gets its run; afterwards it ticks on."""
    await site.add(
        a_schedule("minutes", cadence=Cadence(every=60.0), overlap="allow", catch_up=CatchUp(runs="none")),
        a_schedule("hours", catch_up=CatchUp(runs="latest")),
    )
    site.clock.forward(10_000 * 60.0)
    await site.runner.tick()
    await site.runner.tick()
    assert FIRED in await site.statuses("hours")
    await site.settle()
    runs = await site.runs("minutes")
    assert len(runs) == 10_000
    assert accounted(runs) == [START + 60.0 * n for n in range(1, 10_001)]
    site.clock.forward(60.0)
    await site.settle()
    assert (await site.statuses("minutes"))[-1] is FIRED


async def test_a_job_that_cannot_be_made_is_a_missed_tick_with_its_reason(site: Site) -> None:
    """The half of it that was inserted is rolled back, and the next tick is judged by itself."""
    await site.add(a_schedule(job=replace(JOB, targets=Targets(clients=("unknown",)))))
    await pass_hours(site, 1)
    (run,) = await site.runs()
    assert (run.status, run.reason.code, run.job_id) == (MISSED, "job_refused", None)
    assert "client 'unknown' is not known" in run.reason.text
    assert await site.jobs() == {}
    assert [line for line in site.lines if line[0] != "schedule.tick"] == [
        ("schedule.refused", {"schedule_id": "sales", "error": run.reason.text})
    ]
    await pass_hours(site, 1)
    assert await site.statuses() == [MISSED, MISSED]


async def test_a_queued_tick_that_cannot_be_made_does_not_stop_the_queue(site: Site) -> None:
    await site.add(a_schedule(job=replace(JOB, targets=Targets(clients=("unknown",))), catch_up=CatchUp(runs="all")))
    await pass_hours(site, 3.5)
    assert await site.statuses() == [MISSED, MISSED, MISSED]


async def test_failures_in_a_row_pause_the_schedule_with_a_note(site: Site) -> None:
    await site.add(a_schedule(pause_after_failures=2))
    for _ in range(2):
        await pass_hours(site, 1)
        await site.end_job((await site.runs())[-1].job_id, JobOutcome.NONE)
        await site.settle()
    schedule = await site.schedule()
    assert schedule.paused
    assert schedule.note.startswith("paused after 2 failed runs in a row, the last of them job sales.2026")
    await pass_hours(site, 1)
    assert await site.statuses() == [FIRED, FIRED, RunStatus.PAUSED]
    assert [run.outcome for run in await site.runs()] == ["none", "none", None]


async def test_a_cadence_without_a_further_tick_is_not_looked_at(site: Site) -> None:
    await site.add(replace(a_schedule(cadence=Cadence()), due_at=START))
    await site.settle()
    assert (await site.schedule()).due_at == 1e15


async def test_nothing_ticks_while_the_clock_may_be_wrong(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick is neither made nor accounted for: a clock in the future would use up ticks that are yet to come."""
    monkeypatch.setattr(runner, "EVERY", 0.001)
    await site.add(a_schedule())
    site.clock.forward(5 * HOUR)
    looks, sure = 0, False
    looked, made = asyncio.Event(), asyncio.Event()

    def time_is_sure() -> bool:
        nonlocal looks
        looks += 1
        if looks == 5:
            looked.set()
        return sure

    monkeypatch.setattr(site.runner, "_time_is_sure", time_is_sure)
    monkeypatch.setattr(site.runner, "_on_made", made.set)
    before = await site.schedule()
    loop = asyncio.create_task(site.runner.run())
    await looked.wait()
    assert await site.schedule() == before
    sure = True
    await made.wait()
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert (await site.schedule()).cursor == START + 5 * HOUR


async def test_runs_older_than_the_history_are_deleted(site: Site) -> None:
    await site.add(a_schedule(catch_up=CatchUp(runs="none")))
    await pass_hours(site, 100 * 24 + 0.5)
    site.clock.forward(91 * 86_400.0)
    await site.runner.prune()
    assert await site.runs() == []
    # What is deleted is not made again.
    site.clock.forward(-91 * 86_400.0)
    await site.settle()
    assert await site.runs() == []
