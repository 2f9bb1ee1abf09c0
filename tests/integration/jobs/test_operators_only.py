"""Jobs and schedules, and a device that takes new work from an operator's signature alone: none is made for it.

Rule: only the test moves the clock; the device counts what it is asked.
"""

from msgspec.structs import replace

from control_plane.domain.clients import OPERATOR_RULE
from control_plane.domain.jobs.model import MAX_OPEN_FILES, FileOutcome, JobState
from control_plane.domain.schedules.model import CellState, ScheduleSpec
from control_plane.domain.schedules.ticks import Cadence
from control_plane.services.ports.database import Page
from control_plane.services.ports.jobs import JobFilter
from control_plane.services.schedules.service import new_schedule
from schemas.values import Action
from tests.integration.schedules.test_with_jobs import HOUR, JOB, cells, runner_of, work
from tests.support.job_rig import Device, JobRig, Started

STRICT = (OPERATOR_RULE,)


async def test_the_execution_of_such_a_client_fails_and_nothing_is_sent_to_it(started: Started) -> None:
    rig = await started(Device("a"), Device("b", policy=STRICT))
    await rig.create()
    refused = await rig.execution("b")
    assert (str(refused.state), str(refused.reason.code)) == ("failed", "needs_operator_signature")
    assert not rig.devices["b"].asked
    assert (await rig.execution("a")).state == "succeeded"
    assert (await rig.job()).state is JobState.COMPLETED


async def test_the_files_that_wait_when_a_client_becomes_such_fail_one_by_one(started: Started) -> None:
    """Its uploads that are begun go on; of the rest none is made."""
    waiting = 3
    paths = [f"/data/{n:02}.log" for n in range(MAX_OPEN_FILES + waiting)]
    rig = await started(Device("a", paths, deaf=frozenset({Action.DOWNLOAD_FILE})))
    await rig.create()
    device = rig.devices["a"]
    assert device.asked[Action.DOWNLOAD_FILE] == MAX_OPEN_FILES
    device.policy, device.deaf = STRICT, frozenset()
    await rig.connect()
    await rig.passes(2 * HOUR)
    files = {one.path: (one.outcome, one.reason and str(one.reason.code)) for one in await rig.files("a")}
    assert [files[path] for path in paths[:MAX_OPEN_FILES]] == [(FileOutcome.PROVEN, None)] * MAX_OPEN_FILES
    refused = (FileOutcome.FAILED, "needs_operator_signature")
    assert [files[path] for path in paths[MAX_OPEN_FILES:]] == [refused] * waiting
    execution = await rig.execution("a")
    assert (execution.proven, execution.files) == (MAX_OPEN_FILES, len(paths))


async def test_the_run_of_a_schedule_fails_for_such_a_client() -> None:
    async with JobRig([Device("a"), Device("b", policy=STRICT)]) as rig:
        rig.check_at_every_commit()
        await rig.connect()
        runner = runner_of(rig)
        spec = ScheduleSpec(cadence=Cadence(every=HOUR), job=replace(JOB, deadline=2 * HOUR))
        schedule = new_schedule("sales", spec, rig.clock.now(), "ann")
        await rig.database.write(lambda records: records.schedules.add(schedule))
        tick = (schedule.cursor // HOUR + 1) * HOUR
        await rig.passes(tick - rig.clock.now(), step=30)
        await work(rig, runner)
        (job,), _ = await rig.database.read(lambda records: records.jobs.list(JobFilter(), Page()))
        execution = await rig.execution("b", job.job_id)
        assert (str(execution.state), str(execution.reason.code)) == ("failed", "needs_operator_signature")
        assert not rig.devices["b"].asked
        found = await rig.database.read(cells)
    assert found[tick, "a"] is CellState.PROVEN
    assert found[tick, "b"] is not CellState.PROVEN
