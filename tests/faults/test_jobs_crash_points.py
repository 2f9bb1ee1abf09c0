"""A control plane that is killed at any commit, in virtual time: what it was doing goes on, nothing is lost or doubled.

Rule: a sweep goes over every commit of the work, right before it and right after it, and ends when none is left.
`test_jobs_killed.py` does the same with real processes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

from control_plane.domain.access import Principal
from control_plane.domain.jobs.spec import FileQuery, JobSpec, Rate, Rollout, Stage, Targets
from control_plane.domain.schedules.model import ScheduleSpec
from control_plane.domain.schedules.ticks import Cadence
from control_plane.services.policy import Policy
from control_plane.services.uploads.service import TriggerRequest
from tests.simulation.jobs.database import Fate
from tests.simulation.jobs.devices import Behaviour, ModelDevice, model_files
from tests.simulation.jobs.operator import Operator, schedules_of
from tests.simulation.jobs.plane import KillAt, Lost
from tests.simulation.jobs.site import Site

pytestmark = pytest.mark.timeout(120)

OPERATOR = Principal("operator")
CONNECTED = 20.0
"""Seconds after which every device has connected and every presence is stored."""

MOST: Final = 200
FILES: Final = FileQuery(paths=("/data/*",))


def a_site(number: int, fate: Fate, *, devices: int) -> Site:
    # What a dead process had to publish is published again after the step timeout.
    site = Site(1, fates=KillAt(number, fate), policy=Policy(step_timeout=40.0))
    site.world.pace = 1.0
    behaviours = [Behaviour.HONEST] * devices
    site.add(
        [
            ModelDevice(site.world, site.broker, site.bucket, f"till-{one}", model_files(one, 2, 5000), behaviour)
            for one, behaviour in enumerate(behaviours, 1)
        ]
    )
    return site


async def started(site: Site) -> None:
    for plane in site.planes:
        plane.start()
    for device in site.devices.values():
        device.switch_on()
    await asyncio.sleep(CONNECTED)


def sweep(
    devices: int,
    fate: Fate,
    work: Callable[[Site], Coroutine[Any, Any, None]],
    check: Callable[[Site], object],
    *,
    every: int = 1,
) -> int:
    """Kill at each commit of `work`, or at each `every`-th; returns the number of commits."""
    for number in range(1, MOST, every):
        site = a_site(number, fate, devices=devices)
        try:
            site.play(work(site))
            check(site)
        except AssertionError as error:
            text = f"killed {fate} commit {number}: {error}"
            raise AssertionError(text) from error
        if not site.planes[0].deaths:
            return number - 1
    pytest.fail("the sweep does not end")


async def trigger(site: Site, request: TriggerRequest) -> None:
    """Trigger an upload until it is accepted."""
    while True:
        try:
            await site.planes[0].call(lambda engine: engine.upload_service.trigger(OPERATOR, request))
        except Lost:
            await asyncio.sleep(5.0)
        else:
            return


@pytest.mark.parametrize("fate", Fate)
def test_uploads_complete_once_whichever_commit_kills_the_control_plane(fate: Fate) -> None:
    async def work(site: Site) -> None:
        await started(site)
        for client_id in site.devices:
            await trigger(site, TriggerRequest(client_id, "/data/1.bin", idempotency_key=client_id))
        await asyncio.sleep(600.0)
        site.watch()

    def check(site: Site) -> None:
        assert site.database.rows("SELECT state, attempt FROM uploads") == [("completed", 1)] * 2
        assert len(site.bucket.born) == 2

    assert sweep(2, fate, work, check) > 8


async def ended(site: Site, patience: float) -> None:
    """Wait until every job is over."""
    until = site.world.now() + patience
    while any(job.state in {"running", "paused", "cancelling"} for job in site.checks.jobs.values()):
        assert site.world.now() < until, site.checks.rows
        await asyncio.sleep(1.0)
        site.watch()


ROLLOUT: Final = JobSpec(
    targets=Targets(("*",)),
    files=FILES,
    rollout=Rollout(
        rate=Rate(2, 10.0),
        max_running=2,
        stages=(Stage(34.0, min=1, advance_at=50.0, advance_after=5.0), Stage(100.0)),
    ),
)


async def roll_out(site: Site) -> None:
    """One job in stages, created until it is accepted."""
    await started(site)
    await Operator(site).create("sales", ROLLOUT)
    await ended(site, 600.0)


def check_rollout(site: Site) -> None:
    """Every file of every device was sent, once."""
    sent = len(site.devices) * 2
    assert {row.state for row in site.checks.rows.values()} == {"succeeded"}, site.checks.rows
    assert len(site.checks.rows) == len(site.devices)
    assert {row.attempt for row in site.checks.rows.values()} == {1}
    assert site.database.rows("SELECT state, outcome FROM jobs") == [("completed", "all")]
    assert site.database.rows("SELECT count(*) FROM uploads") == [(sent,)]
    assert len(site.bucket.born) == len(site.bucket.objects) == sent


@pytest.mark.slow
@pytest.mark.parametrize("fate", Fate)
def test_a_rollout_ends_whole_whichever_commit_kills_the_control_plane(fate: Fate) -> None:
    assert sweep(3, fate, roll_out, check_rollout) > 20


def test_a_small_rollout_ends_whole_whichever_commit_kills_the_control_plane() -> None:
    assert sweep(2, Fate.AFTER, roll_out, check_rollout, every=2) > 10


PERIOD: Final = 300.0
TICKS: Final = 3


async def tick(site: Site) -> None:
    """A schedule that ticks every five minutes, for a quarter of an hour."""
    await started(site)
    spec = ScheduleSpec(
        cadence=Cadence(every=PERIOD),
        job=JobSpec(targets=Targets(("*",)), files=FILES, key="{job}/{client_id}/{path}", deadline=200.0),
    )
    while True:
        try:
            await site.planes[0].call(lambda engine: schedules_of(engine).create(OPERATOR, "daily", spec))
        except Lost:
            await asyncio.sleep(5.0)
        else:
            break
    await asyncio.sleep((TICKS + 0.5) * PERIOD)
    await ended(site, 600.0)
    await asyncio.sleep(30.0)
    site.watch()


def check_ticks(site: Site) -> None:
    """8: every tick that was due has one run, and every run that fired has one job, which is whole."""
    ((created, cursor),) = site.database.rows("SELECT created_at, cursor FROM schedules")
    first = (created // PERIOD + 1) * PERIOD
    due = [first + n * PERIOD for n in range(int((cursor - first) / PERIOD) + 1)]
    assert len(due) >= TICKS
    assert site.world.wall() - cursor < PERIOD + 60.0
    runs = site.database.rows("SELECT nominal_at, kind, status, job_id FROM schedule_runs ORDER BY nominal_at")
    assert [nominal for nominal, *_ in runs] == due
    assert {(kind, status) for _, kind, status, _ in runs} == {("tick", "fired")}
    jobs = site.database.rows("SELECT nominal_at, job_id, state, outcome FROM jobs ORDER BY nominal_at")
    assert [(nominal, job_id) for nominal, job_id, *_ in jobs] == [(nominal, job_id) for nominal, _, _, job_id in runs]
    assert {(state, outcome) for *_, state, outcome in jobs} == {("completed", "all")}
    sent = len(due) * len(site.devices) * 2
    assert site.database.rows("SELECT count(*) FROM uploads") == [(sent,)]
    assert len(site.bucket.born) == sent
    cells = site.database.rows("SELECT nominal_at, client_id, state FROM schedule_cells ORDER BY nominal_at, client_id")
    assert cells == [(nominal, client, "proven") for nominal in due for client in sorted(site.devices)]


@pytest.mark.slow
@pytest.mark.parametrize("fate", Fate)
def test_every_tick_has_one_run_and_one_job_whichever_commit_kills_the_control_plane(fate: Fate) -> None:
    assert sweep(1, fate, tick, check_ticks) > 15


def test_ticks_go_on_after_a_kill_at_some_commits() -> None:
    assert sweep(1, Fate.AFTER, tick, check_ticks, every=5) > 10
