"""Dispatches keep the rate, the cap and the quota, over restarts and on two replicas; none is later than a pause."""

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.gate.rates import IDLE_CREDIT, cost_of
from control_plane.domain.jobs.model import ExecutionState, Job, JobState
from control_plane.domain.jobs.spec import Rate, Rollout, Window
from control_plane.domain.reasons import ReasonCode
from control_plane.services.ports.database import Database, Records
from tests.support.databases import migrated, sql_database
from tests.support.examples import examples
from tests.support.gates import START, a_job, a_keeper, a_request, an_execution, set_state
from tests.support.inline_database import InlineDatabase
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[tuple[InlineDatabase, InlineDatabase]]:
    """Two connections to one database."""
    url = f"sqlite:///{tmp_path / 'backhaul.db'}"
    both = InlineDatabase.open(url), InlineDatabase.open(url)
    yield both
    for database in both:
        await database.close()


async def dispatched(database: InlineDatabase, job_id: str, now: float, number: int = 1) -> str | None:
    """Ask for one dispatch; None when it may, else the code of the refusal. A fresh keeper is a fresh process."""

    def work(records: Records) -> str | None:
        job = records.jobs.get(job_id)
        assert job is not None
        wait = a_keeper().may_dispatch(records, job, an_execution(number, job_id), None, now)
        return None if wait is None else wait.reason.code

    return await database.write(work)


_names = iter(range(10**6))


async def new_job(database: InlineDatabase, job: Job) -> str:
    """Store the job under a name of its own."""
    job = replace(job, job_id=f"{job.job_id}-{next(_names)}")
    await database.write(lambda records: records.jobs.add(job))
    return job.job_id


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 5.0)), min_size=1, max_size=60),
    st.sampled_from([Rate(1, 1_200.0), Rate(50, 60.0), Rate(3, 1.0), Rate(1, 7.0)]),
)
async def test_the_rate_is_exact_over_restarts_and_two_replicas(
    replicas: tuple[InlineDatabase, InlineDatabase], asks: list[tuple[bool, float]], rate: Rate
) -> None:
    job_id = await new_job(replicas[0], a_job(rollout=Rollout(rate=rate)))
    now, begun = START, []
    for which, gap in asks:
        now += gap
        if await dispatched(replicas[which], job_id, now) is None:
            begun.append(now)
    cost = cost_of(rate.count, rate.seconds)
    for first, at in enumerate(begun):
        assert all((n * cost) <= later - at + IDLE_CREDIT + 1e-3 for n, later in enumerate(begun[first:]))


async def test_dispatches_of_an_hour_keep_the_rate_within_a_tenth_and_none_is_later_than_the_pause(
    replicas: tuple[InlineDatabase, InlineDatabase],
) -> None:
    job_id = await new_job(replicas[0], a_job(rollout=Rollout(rate=Rate(50, 60.0))))
    draw = random.Random(7)
    now, begun, paused_at = START, [], START + 1_800
    while now < START + 2_400:
        now += draw.uniform(0.1, 1.2)
        if now >= paused_at and not await replicas[0].read(lambda records: records.jobs.get(job_id).paused):  # type: ignore[union-attr]
            await replicas[0].write(lambda records: set_state(records, job_id, JobState.PAUSED))
        code = await dispatched(draw.choice(replicas), job_id, now)
        if code is None:
            begun.append(now)
        assert (code == ReasonCode.JOB_PAUSED) == (now >= paused_at)
    assert max(begun) < paused_at
    for minute in range(29):
        count = sum(START + 60 * minute <= at < START + 60 * minute + 60 for at in begun)
        assert 45 <= count <= 55


async def test_a_changed_rate_holds_from_the_next_dispatch_on(replicas: tuple[InlineDatabase, InlineDatabase]) -> None:
    slow = a_job(rollout=Rollout(rate=Rate(1, 1_200.0)))
    job_id = await new_job(replicas[0], slow)
    assert await dispatched(replicas[0], job_id, START) is None
    assert await dispatched(replicas[1], job_id, START + 60) == ReasonCode.DISPATCH_RATE

    def retune(records: Records) -> None:
        job = records.jobs.get(job_id)
        assert job is not None
        records.jobs.save(job, replace(job, spec=replace(job.spec, rollout=Rollout(rate=Rate(1, 10.0)))))

    await replicas[0].write(retune)
    assert await dispatched(replicas[1], job_id, START + 60) == ReasonCode.DISPATCH_RATE
    assert await dispatched(replicas[1], job_id, START + 71) is None


async def test_no_more_executions_run_than_the_cap_allows(replicas: tuple[InlineDatabase, InlineDatabase]) -> None:
    job_id = await new_job(replicas[0], a_job(rollout=Rollout(max_running=2)))

    def run(records: Records, number: int) -> str | None:
        job = records.jobs.get(job_id)
        assert job is not None
        execution = an_execution(number, job_id)
        records.jobs.executions.add([execution])
        wait = a_keeper().may_dispatch(records, job, execution, None, START)
        if wait is not None:
            return wait.reason.code
        records.jobs.executions.save([(execution, replace(execution, state=ExecutionState.LISTING))])
        return None

    codes = [await replicas[number % 2].write(partial(run, number=number)) for number in range(4)]
    assert codes == [None, None, ReasonCode.RUNNING_CAP, ReasonCode.RUNNING_CAP]


async def test_executions_that_one_transaction_begins_count_against_the_cap(
    replicas: tuple[InlineDatabase, InlineDatabase],
) -> None:
    job = a_job(rollout=Rollout(max_running=2))

    def work(records: Records) -> list[str | None]:
        waits = [a_keeper().may_dispatch(records, job, an_execution(), None, START, begun=begun) for begun in (0, 1, 2)]
        return [None if wait is None else wait.reason.code for wait in waits]

    assert await replicas[0].write(work) == [None, None, ReasonCode.RUNNING_CAP]


async def test_a_client_with_too_many_open_uploads_begins_no_more(
    replicas: tuple[InlineDatabase, InlineDatabase],
) -> None:
    def work(records: Records) -> list[str | None]:
        codes = []
        for keeper in (a_keeper(max_uploads=2), a_keeper(max_bytes=10), a_keeper()):
            wait = keeper.may_dispatch(records, a_job(), an_execution(), None, START)
            codes.append(None if wait is None else wait.reason.code)
        return codes

    for _ in range(2):
        await replicas[0].write(lambda records: records.uploads.add(a_request(created_at=START - 10)))
    assert await replicas[0].write(work) == [ReasonCode.CLIENT_QUOTA, ReasonCode.CLIENT_QUOTA, None]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": JobState.PAUSED}, ReasonCode.JOB_PAUSED),
        ({"state": JobState.CANCELLING, "ending": JobState.CANCELLED}, ReasonCode.JOB_ENDED),
        ({"state": JobState.EXPIRED}, ReasonCode.JOB_ENDED),
        ({"windows": (Window("0 3 29 2 *", 60.0),)}, ReasonCode.OUTSIDE_WINDOW),
        ({"stage_below": 0.4}, ReasonCode.STAGE_NOT_REACHED),
    ],
)
async def test_a_dispatch_is_refused_by_what_is_stored(
    replicas: tuple[InlineDatabase, InlineDatabase], changes: dict[str, Any], code: ReasonCode
) -> None:
    job_id = await new_job(replicas[0], a_job(**changes))
    assert await dispatched(replicas[1], job_id, START) == code


async def test_of_many_that_ask_at_the_same_moment_one_begins_in_the_time_of_one(sql_database: Database) -> None:
    job = a_job(rollout=Rollout(rate=Rate(1, 1_200.0), max_running=5))

    def ask(records: Records, number: int) -> bool:
        return a_keeper().may_dispatch(records, job, an_execution(number), None, START) is None

    await sql_database.write(lambda records: records.jobs.add(job))
    begun = await asyncio.gather(*(sql_database.write(partial(ask, number=number)) for number in range(20)))
    assert begun.count(True) == 1
