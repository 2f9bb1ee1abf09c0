"""A control plane that ends at any commit of a job, and is started again on the same database.

Rule: the process ends right after a commit, so nothing that follows it is done. Every job ends as without the crash,
and every file is sent once.
"""

import re
from typing import Final

import pytest

from control_plane.domain.jobs.model import FileOutcome, JobState
from control_plane.domain.jobs.spec import Retry
from tests.support.fakes import FakeClock, FakeObjects
from tests.support.job_rig import Device, InlineDatabase, JobRig, Killed

PATHS: Final = ("/data/a.log", "/data/b.log", "/data/c.log")


def fleet() -> list[Device]:
    """Devices of several pages, one that walks for a while, one of which a file fails once."""
    return [
        Device("a", PATHS, page=2),
        Device("b", walks=1),
        Device("c", ends={"/data/a.log": ["file_not_found"]}),
        Device("d", ends={"/data/a.log": ["*"]}),
    ]


async def played(dies_at: int | None) -> tuple[int, dict[str, str], list[str]]:
    """One rollout, whose process ends after commit `dies_at`: commits, states of executions, keys of objects."""
    sql, clock, objects, devices = InlineDatabase(), FakeClock(), FakeObjects(), fleet()
    async with JobRig(devices, database=sql, clock=clock, objects=objects) as rig:
        await rig.connect()
        begun = sql.commits
        sql.dies_at = None if dies_at is None else begun + dies_at
        try:
            await rig.create(retry=Retry(failed=1))
            await rig.passes(120)
        except Killed:
            pass
    sql.dies_at = None
    async with JobRig(devices, database=sql, clock=clock, objects=objects) as rig:
        rig.check_at_every_commit()
        rig.epoch = 1_000
        if await rig.database.read(lambda records: records.jobs.get("job")) is None:
            # The process ended before the job was accepted: its caller repeats the request.
            await rig.create(retry=Retry(failed=1))
        await rig.connect()
        await rig.passes(900)
        assert (await rig.job()).state is JobState.COMPLETED
        states = dict(await rig.states())
        for device in devices:
            outcomes = [file.outcome for file in await rig.files(device.client_id)]
            assert None not in outcomes
            assert outcomes.count(FileOutcome.PROVEN) == (0 if device.client_id == "d" else len(device.paths))
        keys = sorted(objects.objects)
    await sql.close()
    return sql.commits - begun, states, keys


EXPECTED: Final = {"a": "succeeded", "b": "succeeded", "c": "succeeded", "d": "failed"}


async def test_a_job_ends_as_it_should() -> None:
    commits, states, keys = await played(None)
    assert states == EXPECTED
    # The upload that failed has the plain key of c's file.
    assert keys[:4] == [*(f"uploads/job/a{path}" for path in PATHS), "uploads/job/b/data/a.log"]
    assert [key.partition("-")[2] for key in keys[4:]] == ["a.log"]
    assert commits > 10


@pytest.mark.parametrize("first", range(1, 7))
async def test_a_job_ends_in_the_same_way_though_the_process_ends_at_any_commit(first: int) -> None:
    _, expected, keys = await played(None)
    for commit in range(first, 30, 6):
        _, states, found = await played(commit)
        assert (commit, states) == (commit, expected)
        assert (commit, _unmarked(found)) == (commit, _unmarked(keys))


def _unmarked(keys: list[str]) -> list[str]:
    """The keys without the mark of an upload, which is another one in each run."""
    return [re.sub(r"[0-9a-f]{8}-", "", key) for key in keys]
