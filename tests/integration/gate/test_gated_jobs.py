"""Whole jobs under the gate: the rate of their dispatches, a pause in the middle, a budget over all devices."""

from control_plane.domain.jobs.model import JobState
from control_plane.domain.jobs.spec import Rate, Rollout, Window
from control_plane.domain.reasons import ReasonCode
from control_plane.services.gate.keeper import put_budget
from control_plane.services.ports.database import Records
from control_plane.services.ports.gate import Budget
from control_plane.services.ports.jobs import ExecutionFilter
from schemas.parts import MIB
from tests.support.gates import set_state
from tests.support.job_rig import SIZE, Device, JobRig


async def test_the_dispatches_of_a_job_keep_its_rate_and_none_is_later_than_its_pause() -> None:
    async with JobRig([Device(f"c{number}") for number in range(60)]) as rig:
        await rig.connect()
        created_at = rig.clock.time
        await rig.create(rollout=Rollout(rate=Rate(20, 60.0)))
        for second in range(120):
            await rig.settle(1.0)
            if second % 30 == 0:
                await rig.beat()
        paused_at = rig.clock.time
        await rig.database.write(lambda records: set_state(records, "job", JobState.PAUSED))
        await rig.passes(60.0, step=10.0)

        def begun(records: Records) -> list[float]:
            found = records.jobs.executions.matching(ExecutionFilter("job"))
            return sorted(one.began_at for one in found if one.began_at is not None)

        times = await rig.database.read(begun)
        assert max(times) <= paused_at
        for minute in (created_at, created_at + 60):
            assert 18 <= sum(minute <= at < minute + 60 for at in times) <= 22


async def test_a_job_begins_when_its_window_opens_and_its_clients_show_why_they_wait() -> None:
    async with JobRig([Device("a")]) as rig:
        await rig.connect()
        # The clock of the test stands at 00:16:40 UTC.
        await rig.create(windows=(Window("30 0 * * *", 3_600.0),))
        job = await rig.job()
        assert job.reason is not None
        assert job.reason.code == ReasonCode.OUTSIDE_WINDOW
        await rig.passes(799.0)
        assert await rig.states() == {"a": "queued"}
        await rig.passes(2.0, step=1.0)
        assert await rig.states() == {"a": "succeeded"}


async def test_a_budget_spreads_the_uploads_of_a_job_over_time_and_all_of_them_end() -> None:
    devices = [Device(f"c{number}", labels={"site": "berlin"}) for number in range(6)]
    async with JobRig(devices) as rig:
        await rig.connect()
        budget = Budget("site", "berlin", MIB, rig.clock.time)
        await rig.database.write(lambda records: put_budget(records, budget, rig.clock.time))
        began_at = rig.clock.time
        await rig.create()
        ended: list[float] = []
        while rig.clock.time < began_at + 180 and len(ended) < len(devices):
            done = list((await rig.states()).values()).count("succeeded")
            ended += [rig.clock.time - began_at] * (done - len(ended))
            await rig.settle(1.0)
            if rig.clock.time % 30 == 0:
                await rig.beat()
        # Each device claims all parts of its file once it is granted the first two: the grants are ten seconds apart.
        assert SIZE == 12 * MIB
        assert [round(at / 10) for at in ended] == [0, 1, 2, 3, 4, 5]
