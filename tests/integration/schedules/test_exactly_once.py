"""Ticks that have a run = ticks that were due: through changes of the clocks, steps, restarts, kills, two replicas."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.domain.schedules.decisions import paused, resumed
from control_plane.domain.schedules.model import CatchUp, CatchUpRuns, RunStatus, Schedule
from control_plane.domain.schedules.ticks import Cadence, ticks
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.database import Database, Records
from tests.support.examples import examples
from tests.support.schedules import HOUR, START, SetClock, Site, a_schedule, accounted, together

T = TypeVar("T")

shared: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(80))
CHANGES: Final = (
    ("Europe/Berlin", "2026-03-29T00:00+00:00"),
    ("Europe/Berlin", "2026-10-25T00:00+00:00"),
    ("America/New_York", "2026-03-08T06:00+00:00"),
    ("America/New_York", "2026-11-01T05:00+00:00"),
    ("America/Santiago", "2026-09-06T03:00+00:00"),
    ("America/Santiago", "2026-04-05T02:00+00:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:00+00:00"),
    ("Australia/Lord_Howe", "2026-04-04T14:00+00:00"),
    ("UTC", "2026-03-29T00:00+00:00"),
)
CRONS: Final = ("30 2 * * *", "0,30 0-4 * * *", "*/15 * * * *", "0 * * * *", "0 0 * * *", "45 1,2,3 * * *")
_fresh: Final = itertools.count(1)


class Killed(Exception):
    """The process ends here."""


class KillingDatabase:
    """A database whose `n`-th write is the last thing that a process does: before its commit, or after it."""

    def __init__(self, database: Database, n: int, *, committed: bool) -> None:
        self._database = database
        self._left = n
        self._committed = committed
        self.read = database.read

    async def write(self, work: Callable[[Records], T]) -> T:
        self._left -= 1
        if self._left == 0 and not self._committed:

            def killed(records: Records) -> T:
                work(records)
                raise Killed

            return await self._database.write(killed)
        result = await self._database.write(work)
        if self._left == 0:
            raise Killed
        return result

    async def check(self) -> None:
        """It can be used until it ends."""

    async def close(self) -> None:
        """The test closes it."""


async def check_account(site: Site, schedule: Schedule, latest: float) -> None:
    """Every tick up to `latest` has exactly one run; each run that made a job has its own, and no job is left over."""
    name = schedule.schedule_id
    runs = await site.runs(name)
    due = list(
        itertools.takewhile(lambda at: at + schedule.delay <= latest, ticks(schedule.spec.cadence, schedule.cursor))
    )
    assert accounted(runs) == due
    assert all(count == 1 for count in Counter(run.key for run in runs).values())
    made = [run.job_id for run in runs if run.job_id is not None]
    assert len(made) == len(set(made))
    jobs = [job for job in (await site.jobs()).values() if job.schedule_id == name]
    assert sorted(job.job_id for job in jobs) == sorted(made)
    assert {(job.kind, job.nominal_at) for job in jobs} == {
        (str(run.kind), run.nominal_at) for run in runs if run.job_id is not None
    }
    assert all(run.reason.text for run in runs)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(1.0, 10 * HOUR)),
        st.tuples(st.just("clock"), st.floats(-6 * HOUR, 6 * HOUR)),
        st.tuples(st.just("restart"), st.just(0.0)),
        st.tuples(st.just("kill"), st.integers(1, 3).map(float)),
        st.tuples(st.just("kill after its commit"), st.integers(1, 3).map(float)),
        st.tuples(st.just("two replicas"), st.floats(1.0, 3 * HOUR)),
        st.tuples(st.just("pause"), st.just(0.0)),
        st.tuples(st.just("resume"), st.just(0.0)),
        st.tuples(st.just("end jobs"), st.just(0.0)),
    ),
    min_size=2,
    max_size=12,
)


@shared
@given(
    change=st.sampled_from(CHANGES),
    cron=st.sampled_from(CRONS),
    before=st.floats(0, 30 * HOUR),
    jitter=st.sampled_from([0.0, 600.0]),
    overlap=st.sampled_from(["skip", "queue_one", "cancel_running", "allow"]),
    runs=st.sampled_from(["all", "latest", "none"]),
    history=steps,
)
async def test_every_tick_that_was_due_has_one_run(
    sql_database: Database,
    change: tuple[str, str],
    cron: str,
    before: float,
    jitter: float,
    overlap: str,
    runs: CatchUpRuns,
    history: list[tuple[str, float]],
) -> None:
    zone, at = change
    clock = SetClock(datetime.fromisoformat(at).timestamp() - before)
    name = f"s{next(_fresh)}"
    schedule = a_schedule(
        name,
        clock.now(),
        cadence=Cadence(cron=cron, zone=zone),
        jitter=jitter,
        overlap=overlap,
        catch_up=CatchUp(runs=runs),
    )
    site = Site(sql_database, clock)
    await site.add(schedule)
    latest = clock.now()
    for act, amount in history:
        match act:
            case "pass":
                clock.forward(amount)
            case "clock":
                clock.wall += amount
            case "restart":
                site = Site(sql_database, clock)
            case "kill" | "kill after its commit":
                clock.forward(HOUR)
                victim = Site(KillingDatabase(sql_database, int(amount), committed=act != "kill"), clock)
                try:
                    await victim.settle()
                except Killed:
                    site = Site(sql_database, clock)
            case "two replicas":
                clock.forward(amount)
                await together(site, Site(sql_database, clock))
            case "pause" | "resume":
                await change_schedule(site, name, act)
            case _:
                for run in await site.runs(name):
                    if run.job_id and (await site.job(run.job_id)).open:
                        await site.end_job(run.job_id)
        latest = max(latest, clock.now())
        if act not in {"restart", "pause", "resume"}:
            await site.settle()
            await check_account(site, schedule, latest)
    await site.settle()
    await check_account(site, schedule, latest)
    await site.database.write(lambda records: records.schedules.delete(name))


async def change_schedule(site: Site, name: str, act: str) -> None:
    now = site.clock.now()

    def work(records: Records) -> None:
        before = records.schedules.get(name)
        assert before is not None
        after = paused(before, "a test", now) if act == "pause" else resumed(before, now)
        records.schedules.save(before, after)

    await site.database.write(work)


@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
async def test_killed_at_any_commit_nothing_is_skipped_and_nothing_twice(
    sql_database: Database, *, committed: bool
) -> None:
    """Five ticks were due; the process is killed at its first write, then at its second, and so on."""
    for n in range(1, 12):
        name = f"sales-{n}"
        schedule = a_schedule(name, overlap="allow", catch_up=CatchUp(runs="all"))
        clock = SetClock()
        site = Site(sql_database, clock)
        await site.add(schedule)
        clock.forward(5 * HOUR + 400)
        for _ in range(3):
            victim = Site(KillingDatabase(sql_database, n, committed=committed), clock)
            try:
                await victim.settle()
            except Killed:
                continue
        for _ in range(6):
            await site.settle()
            for run in await site.runs(name):
                if run.running:
                    await site.end_job(run.job_id)
        await check_account(site, schedule, clock.now())
        assert await site.statuses(name) == [RunStatus.FIRED] * 5
        await site.database.write(lambda records, name=name: records.schedules.delete(name))  # type: ignore[misc]


async def test_two_replicas_make_each_run_once(sql_database: Database) -> None:
    """They look at the same instants, at the same time: the primary key and the version decide."""
    clock = SetClock()
    schedules = [a_schedule(f"s{n}", overlap="allow", catch_up=CatchUp(runs="all")) for n in range(5)]
    first, second = Site(sql_database, clock), Site(sql_database, clock)
    await first.add(*schedules)
    for _ in range(6):
        clock.forward(HOUR)
        for _ in range(4):
            await together(first, second)
    await asyncio.gather(first.settle(), second.settle())
    for schedule in schedules:
        await check_account(first, schedule, clock.now())
        assert await first.statuses(schedule.schedule_id) == [RunStatus.FIRED] * 6


async def test_a_clock_that_steps_back_repeats_no_tick(sql_database: Database) -> None:
    site = Site(sql_database)
    await site.add(a_schedule(overlap="allow"))
    site.clock.forward(2 * HOUR)
    await site.settle()
    before = await site.runs()
    site.clock.wall -= 1.5 * HOUR
    await site.settle()
    site.clock.forward(1.5 * HOUR)
    await site.settle()
    assert await site.runs() == before
    site.clock.forward(HOUR)
    await site.settle()
    assert [run.nominal_at for run in await site.runs()] == [START + HOUR, START + 2 * HOUR, START + 3 * HOUR]


async def test_a_database_that_is_away_costs_no_tick(sql_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(sql_database)
    await site.add(a_schedule(overlap="allow"))
    site.clock.forward(HOUR)

    async def away(work: Callable[[Records], T]) -> T:
        raise DatabaseUnavailable(str(work))

    with monkeypatch.context() as outage:
        outage.setattr(sql_database, "write", away)
        with pytest.raises(DatabaseUnavailable):
            await site.runner.tick()
    await site.settle()
    assert await site.statuses() == [RunStatus.FIRED]
