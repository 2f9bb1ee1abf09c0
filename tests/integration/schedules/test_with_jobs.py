"""Schedules with the shipped jobs, and devices that answer: from the tick to proven, missing and healed cells.

Rule: only the test moves the clock.
"""

import asyncio
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from control_plane.domain.jobs.four_eyes import OFF
from control_plane.domain.jobs.model import JobState
from control_plane.domain.jobs.spec import FileQuery, JobSpec, Targets, Timeouts
from control_plane.domain.schedules.model import CatchUp, CellState, RunStatus, Schedule, ScheduleSpec
from control_plane.domain.schedules.ticks import Cadence
from control_plane.services.clients.registry import PAUSE
from control_plane.services.ports.database import Page, Records
from control_plane.services.ports.jobs import JobFilter
from control_plane.services.ports.messenger import Delivered
from control_plane.services.ports.schedules import CellFilter, RunFilter
from control_plane.services.schedules.jobs import machine
from control_plane.services.schedules.runner import ScheduleRunner
from control_plane.services.schedules.service import new_schedule
from schemas.codec import encode
from schemas.messages import AgentInfo, Presence
from schemas.topics import Channel
from tests.support.job_rig import Device, InlineDatabase, JobRig, Killed

HOUR = 3600.0
JOB = JobSpec(
    targets=Targets(clients=("*",)),
    files=FileQuery(paths=("/data/*.log",), min_files=1),
    key="{schedule}/{tick:%Y%m%dT%H}/{client_id}/{path}",
    deadline=0.5 * HOUR,
)


def a_schedule(now: float, **changes: object) -> Schedule:
    spec = ScheduleSpec(cadence=Cadence(every=HOUR), job=JOB, overlap="allow", catch_up=CatchUp(runs="all"))
    return new_schedule("sales", replace(spec, **changes), now, "ann")


def runner_of(rig: JobRig) -> ScheduleRunner:
    jobs = rig.engine.jobs
    assert jobs is not None
    return ScheduleRunner(
        rig.database,
        rig.clock,
        lambda _name, _facts: None,
        jobs=machine(OFF),
        time_is_sure=lambda: True,
        on_made=jobs.poke,
    )


async def work(rig: JobRig, runner: ScheduleRunner) -> None:
    """Let schedules, jobs and devices do what is due."""
    for _ in range(3):
        while await runner.tick():
            pass
        await rig.settle()
        await runner.cover()
    await rig.settle()


async def work_for_ever(rig: JobRig) -> None:
    """Until the database ends it."""
    while True:
        await work(rig, runner_of(rig))
        await rig.passes(60)


async def stay_connected(rig: JobRig, client_id: str, seconds: float) -> None:
    """Let time pass while a client sends its beats: a command that it does not answer is sent again."""
    epoch = int(rig.clock.time + 30) * 1_000
    for sequence in range(1, int(seconds // 30) + 1):
        rig.clock.time += 30
        presence = Presence(
            client_id,
            status="online",
            epoch=epoch,
            sequence=sequence,
            install_id=f"install-{client_id}",
            agent=AgentInfo(),
            capabilities=rig.devices[client_id].capabilities,
        )
        rig.engine.inbox.receive(Delivered(rig.topics.of(client_id, Channel.PRESENCE), encode(presence)))
        await asyncio.sleep(PAUSE * 1.4)
        await rig.settle()


def cells(records: Records) -> Mapping[tuple[float, str], CellState]:
    assert records.coverage.counts("sales", 0.0, 1e14) == records.coverage.recounted("sales")
    pages, _ = records.coverage.list(CellFilter("sales", 0.0, 1e14), Page(1_000))
    return {(cell.nominal_at, name): cell.state for name, found in pages for cell in found}


async def test_a_client_that_was_away_is_missing_and_heals_when_it_connects() -> None:
    async with JobRig([Device("a"), Device("b")]) as rig:
        rig.check_at_every_commit()
        await rig.connect()
        rig.leave("b")
        await rig.passes(120, step=120)
        runner = runner_of(rig)
        schedule = a_schedule(rig.clock.now())
        await rig.database.write(lambda records: records.schedules.add(schedule))
        tick = (schedule.cursor // HOUR + 1) * HOUR
        await rig.passes(tick - rig.clock.now(), step=HOUR)
        await work(rig, runner)
        assert await rig.database.read(cells) == {(tick, "a"): CellState.PROVEN, (tick, "b"): CellState.PENDING}
        await rig.passes(0.5 * HOUR + 60, step=HOUR)
        await work(rig, runner)
        assert await rig.database.read(cells) == {(tick, "a"): CellState.PROVEN, (tick, "b"): CellState.MISSING}
        (run,) = (await rig.database.read(lambda records: records.schedules.runs(RunFilter("sales"), Page())))[0]
        assert (run.status, run.outcome) == (RunStatus.FIRED, "partial")
        await rig.connect("b")
        await work(rig, runner)
        assert await rig.database.read(cells) == {(tick, "a"): CellState.PROVEN, (tick, "b"): CellState.HEALED}
        # The key of the object names the tick that was missing, not the hour of the healing.
        days = {key.split("/")[2] for key in rig.objects.objects}
        assert len(rig.objects.objects) == 2
        assert len(days) == 1


async def test_cancel_running_ends_the_job_of_the_tick_before() -> None:
    async with JobRig([Device("a", silent=True)]) as rig:
        await rig.connect()
        runner = runner_of(rig)
        patient = replace(JOB, deadline=10 * HOUR, timeouts=Timeouts(listing=10 * HOUR))
        schedule = a_schedule(rig.clock.now(), overlap="cancel_running", job=patient)
        await rig.database.write(lambda records: records.schedules.add(schedule))
        for _ in range(2):
            await rig.passes(HOUR - rig.clock.now() % HOUR, step=HOUR)
            await work(rig, runner)
        jobs, _ = await rig.database.read(lambda records: records.jobs.list(JobFilter(), Page()))
        assert [job.state for job in jobs] == [JobState.RUNNING, JobState.CANCELLED]


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", range(1, 9))
async def test_killed_at_any_commit_of_a_tick_the_next_process_goes_on(dies_at: int) -> None:
    """From the tick to the proven cell: nothing is skipped, and nothing is made twice."""
    sql = InlineDatabase()
    async with JobRig([Device("a")], database=sql) as rig:
        await rig.connect()
        schedule = a_schedule(rig.clock.now())
        await rig.database.write(lambda records: records.schedules.add(schedule))
        await rig.passes(HOUR, step=HOUR)
        sql.dies_at = sql.commits + dies_at
        with pytest.raises(Killed):
            await work_for_ever(rig)
        clock, objects = rig.clock, rig.objects
    sql.dies_at = None
    async with JobRig([Device("a")], database=sql, clock=clock, objects=objects) as again:
        await again.connect()
        runner = runner_of(again)
        await work(again, runner)
        await stay_connected(again, "a", 450)
        await work(again, runner)
        runs, _ = await again.database.read(lambda records: records.schedules.runs(RunFilter("sales"), Page()))
        assert [(run.status, run.outcome) for run in runs] == [(RunStatus.FIRED, "all")]
        jobs, _ = await again.database.read(lambda records: records.jobs.list(JobFilter(), Page()))
        assert [job.job_id for job in jobs] == [runs[0].job_id]
        assert list((await again.database.read(cells)).values()) == [CellState.PROVEN]
        assert len(again.objects.objects) == 1
