"""A thousand devices in virtual time: exact roll-ups, results and coverage, an abort at the right count, a rate kept.

Rule: what is expected follows from how the fleet was made, not from what the control plane shows.
"""

import asyncio
from collections import Counter
from functools import partial
from typing import Final

import pytest

from control_plane.domain.jobs.spec import AbortRule, FileQuery, JobSpec, Rate, Retry, Rollout, Targets
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.schedules.model import CellState, ScheduleSpec
from control_plane.domain.schedules.ticks import Cadence
from control_plane.services.ports.database import Page
from schemas.values import ErrorCode
from tests.simulation.jobs.devices import Behaviour, ModelDevice, model_files
from tests.simulation.jobs.operator import ANYONE, Operator, schedules_of
from tests.simulation.jobs.site import Site
from tests.simulation.world import EPOCH

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CONNECTED: Final = 30.0
EVERYTHING: Final = FileQuery(paths=("/data/*",))
DEADLINE: Final = 600.0
LOOKS: Final = 30.0
"""Seconds after which the coverage has followed."""


def a_fleet(seed: int, size: int, *, offline: int = 0, failing: int = 0, once: int = 0) -> Site:
    """`size` devices of three files: of them some leave before the job, some fail for good, some at the first try."""
    site = Site(seed)
    site.world.pace = 1.0
    site.checks.stride = 50 if size > 200 else 1
    kinds = [Behaviour.FAILS] * failing + [Behaviour.FAILS_ONCE] * once
    kinds += [Behaviour.HONEST] * (size - len(kinds))
    devices = [
        ModelDevice(site.world, site.broker, site.bucket, f"till-{number:04}", model_files(number, 3, 5000), kind)
        for number, kind in enumerate(kinds)
    ]
    site.add(devices)
    for one in devices[size - offline :]:
        site.world.later(CONNECTED - 10.0, partial(one.switch_off, politely=True))
    return site


async def begin(site: Site) -> Operator:
    for plane in site.planes:
        plane.start()
    for device in site.devices.values():
        device.switch_on()
    await asyncio.sleep(CONNECTED)
    return Operator(site)


async def ended(site: Site, job_id: str, patience: float) -> str:
    """The end of a job, within `patience` virtual seconds."""
    until = site.world.now() + patience
    query = "SELECT state FROM jobs WHERE job_id = ?"
    while (state := site.database.rows(query, job_id)[0][0]) in {"running", "paused", "cancelling"}:
        assert site.world.now() < until, state
        await asyncio.sleep(5.0)
        site.watch()
    site.checks.look()
    site.watch()
    return str(state)


async def covered(site: Site, state: CellState | None = None) -> tuple[Counter[CellState], Counter[str]]:
    """The report of the one tick: its counts, and the reason codes of its cells in `state` (None: of all)."""
    reasons = Counter[str]()
    cursor: str | None = None
    while True:
        page = Page(300, cursor)
        report = await site.planes[0].call(
            lambda engine, page=page: schedules_of(engine).coverage(ANYONE, "sales", page, state=state)  # type: ignore[misc]
        )
        (tick,) = report.ticks
        clients, cursor = report.clients
        reasons += Counter(cell.reason_code for _, cells in clients for cell in cells)
        if cursor is None:
            return Counter(tick.counts), reasons


def roll_up_of(site: Site, job_id: str) -> Counter[str]:
    """The executions of a job by state, as its counts have them."""
    rows = site.database.rows("SELECT state, n FROM job_counts WHERE job_id = ?", job_id)
    return sum((Counter({state: n}) for state, n in rows), Counter[str]())


def test_a_tick_over_a_thousand_devices_has_exactly_the_right_roll_up_results_and_coverage() -> None:
    site = a_fleet(1, 1000, offline=100, failing=50, once=50)
    job = JobSpec(targets=Targets(("*",)), files=EVERYTHING, retry=Retry(failed=1), deadline=DEADLINE)
    # The history begins at eight o'clock.
    spec = ScheduleSpec(cadence=Cadence(cron="1 8 * * *"), job=job)

    async def work() -> None:
        operator = await begin(site)
        await site.planes[0].call(lambda engine: schedules_of(engine).create(ANYONE, "sales", spec))
        ((due,),) = site.database.rows("SELECT due_at FROM schedules")
        await asyncio.sleep(due - site.world.wall() + LOOKS)
        ((job_id,),) = site.database.rows("SELECT job_id FROM schedule_runs")

        # All is over but those that are away: nothing of them is known yet.
        while roll_up_of(site, job_id) != {"succeeded": 850, "failed": 50, "queued": 100}:
            assert site.world.wall() < due + DEADLINE, roll_up_of(site, job_id)
            await asyncio.sleep(5.0)
        await asyncio.sleep(LOOKS)
        counts, _ = await covered(site)
        assert counts == {CellState.PROVEN: 850, CellState.MISSING: 50, CellState.PENDING: 100}
        _, reasons = await covered(site, CellState.MISSING)
        assert reasons == {ErrorCode.SOURCE_UNREADABLE: 50}

        assert await ended(site, job_id, 2 * DEADLINE) == "expired"
        await asyncio.sleep(LOOKS)
        view = await operator.ask(lambda jobs: jobs.job(ANYONE, job_id))
        assert view.job.outcome == "partial"
        assert roll_up_of(site, job_id) == {"succeeded": 850, "failed": 50, "timed_out": 100}
        counts, reasons = await covered(site)
        assert counts == {CellState.PROVEN: 850, CellState.MISSING: 150}
        assert reasons == {ReasonCode.SENT: 850, ErrorCode.SOURCE_UNREADABLE: 50, ReasonCode.DEADLINE_PASSED: 100}
        outcomes = site.database.rows("SELECT outcome, count(*), sum(size) FROM job_files GROUP BY outcome")
        assert sorted(outcomes) == [("failed", 150, 150 * 5000), ("proven", 2550, 2550 * 5000)]
        attempts = site.database.rows("SELECT attempt, state, count(*) FROM executions GROUP BY attempt, state")
        assert sorted(attempts) == [
            (1, "succeeded", 800),
            (1, "timed_out", 100),
            (2, "failed", 50),
            (2, "succeeded", 50),
        ]
        # One object for each file of a device that is there and can read it, and nothing else.
        assert len(site.bucket.objects) == len(site.bucket.born) == 2550

        for device in site.devices.values():
            device.switch_on()
        until = site.world.now() + DEADLINE
        while (counts := (await covered(site))[0]) != {
            CellState.PROVEN: 850,
            CellState.MISSING: 50,
            CellState.HEALED: 100,
        }:
            assert site.world.now() < until, counts
            await asyncio.sleep(5.0)
        _, reasons = await covered(site, CellState.HEALED)
        assert reasons == {ReasonCode.SENT: 100}
        site.checks.look()
        site.watch()

    site.play(work())
    # What came late has one object each as well, and was asked for by one job that heals.
    assert len(site.bucket.objects) == len(site.bucket.born) == 2550 + 300
    healed = site.database.rows("SELECT client_id FROM executions JOIN jobs USING (job_id) WHERE kind = 'heal'")
    assert sorted(healed) == [(f"till-{number:04}",) for number in range(900, 1000)]


def test_a_job_is_aborted_at_the_count_that_its_rule_names() -> None:
    site = a_fleet(2, 200, failing=60)
    rollout = Rollout(max_running=5)
    spec = JobSpec(
        targets=Targets(("*",)), files=EVERYTHING, rollout=rollout, abort=(AbortRule("failed", 20.0, min_ended=25),)
    )
    seen: list[tuple[Counter[str], str]] = []

    def look() -> None:
        job = site.checks.jobs.get("sales")
        seen.append((Counter(row.state for row in site.checks.rows.values()), "" if job is None else job.state))

    async def work() -> None:
        operator = await begin(site)
        await operator.create("sales", spec)
        site.database.on_commit.append(look)
        assert await ended(site, "sales", 2 * DEADLINE) == "aborted"

    site.play(work())

    def met(states: Counter[str]) -> bool:
        ended = states["failed"] + states["succeeded"]
        return ended >= 25 and 100 * states["failed"] >= 20 * ended

    running = [states for states, state in seen if state == "running"]
    first = next(index for index, (states, _) in enumerate(seen) if met(states))
    # What ended in one commit is judged together; the job is aborted in that commit or in one of the next.
    late = [states for states, state in seen[first:] if state == "running"]
    assert all(states["failed"] + states["succeeded"] - _ends(seen[first][0]) <= 5 for states in late)
    assert not met(running[0])
    last = Counter(row.state for row in site.checks.rows.values())
    assert last["cancelled"] > 100
    # Those that ran at that moment may end well or badly: five at most.
    assert _ends(last) - _ends(seen[first][0]) <= 5


def _ends(states: Counter[str]) -> int:
    return states["failed"] + states["succeeded"]


def test_dispatches_keep_the_rate_and_none_is_later_than_a_pause() -> None:
    site = a_fleet(3, 400)
    rate = Rate(60, 60.0)
    spec = JobSpec(targets=Targets(("*",)), files=EVERYTHING, rollout=Rollout(rate=rate), deadline=3600.0)
    at: dict[str, float] = {}

    async def work() -> None:
        operator = await begin(site)
        await operator.create("sales", spec)
        at["created"] = site.world.now()
        await asyncio.sleep(180.0)
        await operator.verb("pause", lambda jobs: jobs.pause(ANYONE, "sales"))
        at["paused"] = site.world.now()
        await asyncio.sleep(120.0)
        await operator.verb("resume", lambda jobs: jobs.resume(ANYONE, "sales"))
        at["resumed"] = site.world.now()
        assert await ended(site, "sales", 1200.0) == "completed"

    site.play(work())
    begins = sorted(began - EPOCH for (began,) in site.database.rows("SELECT began_at FROM executions"))
    assert len(begins) == 400
    assert not [one for one in begins if at["paused"] < one < at["resumed"]]
    before = [one for one in begins if one <= at["paused"]]
    paced = len(before) / (at["paused"] - at["created"])
    assert abs(paced - 1.0) < 0.1, paced
    after = [one for one in begins if one >= at["resumed"]]
    paced = len(after) / (after[-1] - at["resumed"])
    assert abs(paced - 1.0) < 0.1, paced
