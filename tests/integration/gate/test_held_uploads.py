"""Uploads that the gate holds, over the whole engine: waits are told, renewed and released, and no upload is lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from control_plane.domain.jobs.model import JobState
from control_plane.domain.jobs.spec import Window
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.uploads.events import DeadlineMoved
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.gate.keeper import put_budget, release_job
from control_plane.services.gate.sender import RENEW
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Records
from control_plane.services.ports.gate import Budget
from schemas.messages import ActiveUpload, GrantParts, Presence
from schemas.parts import MIB
from tests.support.fakes import CLIENT, OPERATOR, Rig
from tests.support.gates import a_job, set_state
from tests.support.inline_database import InlineDatabase
from tests.support.uploads import wanted

HOUR = 3_600.0
STEP = 300.0
CAPABLE = ("wait", "rate")


class GatedRig(Rig):
    """The engine with the gate, over SQLite."""

    sql: InlineDatabase
    beat = 0

    async def birth(self, client_id: str = CLIENT, *, epoch: int = 1, **more: Any) -> None:  # noqa: ANN401
        """A client of a site connects."""
        fields = {"labels": {"site": "berlin"}, "capabilities": CAPABLE, **more}
        await super().birth(client_id, epoch=epoch, **fields)

    async def asked(self, job_id: str | None = "job-1", *, size: int = 12 * MIB, **more: Any) -> Upload:  # noqa: ANN401
        """An upload whose client asks for its first parts; of a job, unless `job_id` is None."""
        await self.birth(**more)
        view = await self.trigger()
        key = view.upload.key
        if job_id is not None:

            def adopt(records: Records) -> None:
                upload = records.uploads.get(key)
                assert upload is not None
                records.uploads.save(upload, replace(upload, job_id=job_id))

            await self.database.write(adopt)
        self.messenger.sent.clear()
        await self.respond(self.offer(key.upload_id, file_size=size, wanted_parts=wanted(size)), sequence=1)
        return await self.upload(key.upload_id)

    async def pass_time(self, seconds: float, *, step: float = 60.0) -> None:
        """Time passes while the client sends its beats and says nothing else."""
        end = self.clock.time + seconds
        while self.clock.time < end:
            self.clock.time += step
            self.beat += 1
            beat = Presence(CLIENT, epoch=1, status="online", install_id=f"install-{CLIENT}", sequence=self.beat)
            row = await self.database.read(lambda records: records.clients.get(CLIENT))
            assert row is not None
            self.engine.beats.note(replace(row, sequence=beat.sequence, seen_at=self.clock.time))
            await self.settle()

    def grants(self) -> list[GrantParts]:
        """The grants and waits that were published since the last call."""
        found = [command.payload for _, command in self.messenger.sent if isinstance(command.payload, GrantParts)]
        self.messenger.sent.clear()
        return found

    async def set_state(self, state: JobState) -> None:
        """An operator pauses or resumes the job."""

        def work(records: Records) -> None:
            set_state(records, "job-1", state)
            if state is JobState.RUNNING:
                release_job(records, "job-1", self.clock.now())

        await self.database.write(work)


@asynccontextmanager
async def gated(tmp_path: Path, policy: Policy | None = None, **job: Any) -> AsyncIterator[GatedRig]:  # noqa: ANN401
    """A running engine with one job."""
    database = InlineDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}")
    async with GatedRig(policy or Policy(deadline=30 * 86_400.0), database=database, fleet=True) as rig:
        rig.sql = database
        await database.write(lambda records: records.jobs.add(a_job(**job)))
        yield rig
    await database.close()


async def test_a_paused_job_is_told_to_its_client_and_nothing_is_granted(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        upload = await rig.asked()
        (told,) = rig.grants()
        assert (told.urls, told.acknowledges) == ((), 1)
        assert told.wait is not None
        assert (told.wait.reason, told.wait.for_seconds) == ("an operator paused the job", HOUR)
        assert (await rig.reason(upload.upload_id)).code == ReasonCode.JOB_PAUSED
        view = await rig.engine.upload_service.upload(OPERATOR, upload.upload_id)
        assert view.next_wake_at == rig.clock.time + RENEW


async def test_a_wait_is_renewed_before_it_ends_and_a_job_paused_for_25_hours_loses_no_upload(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        upload = await rig.asked()
        deadline = upload.deadline
        told_at = rig.clock.time
        rig.grants()
        for _ in range(25):
            await rig.pass_time(HOUR, step=75.0)
            told = rig.grants()
            assert len(told) == 2
            assert all(one.wait is not None and not one.urls for one in told)
        held = await rig.upload(upload.upload_id)
        assert (held.state, held.strikes, held.attempt, held.deadline) == (State.IN_PROGRESS, 0, 1, deadline)
        assert rig.clock.time - told_at == 25 * HOUR
        await rig.set_state(JobState.RUNNING)
        await rig.settle()
        (grant,) = rig.grants()
        assert [part.part_number for part in grant.urls] == [1, 2, 3]
        opened = await rig.upload(upload.upload_id)
        assert (opened.held, opened.reason, opened.touched_at) == (False, None, rig.clock.time)


async def test_a_client_that_is_silent_after_the_release_gets_the_whole_step_timer(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        upload = await rig.asked()
        await rig.pass_time(2 * HOUR)
        await rig.set_state(JobState.RUNNING)
        await rig.settle()
        rig.grants()
        await rig.pass_time(STEP - 60)
        assert rig.grants() == []
        await rig.pass_time(120)
        assert len(rig.grants()) == 1
        await rig.pass_time(2 * STEP + 120)
        assert (await rig.upload(upload.upload_id)).error == "no_progress"


async def test_the_deadline_of_a_held_upload_runs_on_and_can_be_moved(tmp_path: Path) -> None:
    async with gated(tmp_path, Policy(deadline=HOUR), state=JobState.PAUSED) as rig:
        upload = await rig.asked()
        rig.clock.time = upload.deadline + 1
        await rig.engine.uploads.submit(upload.key, DeadlineMoved(now=rig.clock.time, deadline=rig.clock.time + HOUR))
        assert await rig.engine.maintenance.expire() == 0
        rig.clock.time += HOUR
        assert await rig.engine.maintenance.expire() == 1
        assert (await rig.upload(upload.upload_id)).state is State.EXPIRED


async def test_an_agent_that_takes_no_wait_gets_an_empty_grant_before_each_step_timer(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        upload = await rig.asked(capabilities=())
        assert [(one.wait, one.urls) for one in rig.grants()] == [(None, ())]
        await rig.pass_time(HOUR)
        empty = rig.grants()
        assert len(empty) >= HOUR / STEP
        assert all(one.wait is None and one.urls == () for one in empty)
        assert (await rig.upload(upload.upload_id)).strikes == 0


async def test_a_held_client_that_asks_again_is_told_again(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        upload = await rig.asked()
        rig.grants()
        await rig.respond(rig.offer(upload.upload_id), sequence=1)
        await rig.respond(rig.offer(upload.upload_id), sequence=2)
        assert [(one.acknowledges, one.wait is not None) for one in rig.grants()] == [(1, True), (2, True)]


async def test_a_held_upload_is_cancelled_at_once(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        upload = await rig.asked()
        rig.messenger.actions()
        await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
        await rig.settle()
        assert "cancel_upload" in rig.messenger.actions()


async def test_a_client_that_was_offline_while_the_gate_opened_gets_its_grant_when_it_connects(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        await rig.asked()
        await rig.settle(5 * HOUR)
        rig.grants()
        await rig.set_state(JobState.RUNNING)
        await rig.settle()
        assert rig.grants() == []
        await rig.birth(epoch=2)
        assert [len(one.urls) for one in rig.grants()] == [3]


async def test_a_hello_of_a_paused_upload_is_answered_with_the_wait(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        upload = await rig.asked()
        rig.grants()
        await rig.hello(ActiveUpload(upload_id=upload.upload_id, attempt=1, sequence=1))
        assert [(one.urls, one.wait is not None) for one in rig.grants()] == [((), True)]


async def test_a_window_opens_by_itself(tmp_path: Path) -> None:
    # The clock of the test stands at 00:16:40 UTC.
    async with gated(tmp_path, windows=(Window("0 3 * * *", HOUR),)) as rig:
        await rig.asked()
        assert [one.wait and one.wait.for_seconds for one in rig.grants()] == [HOUR]
        await rig.pass_time(3 * HOUR - 1_000.0 - 60.0)
        assert all(one.urls == () for one in rig.grants())
        await rig.pass_time(60.0)
        assert [len(one.urls) for one in rig.grants()] == [3]


async def test_a_grant_of_a_job_has_at_most_64_mib(tmp_path: Path) -> None:
    async with gated(tmp_path) as rig:
        await rig.asked(size=200 * MIB)
        (grant,) = rig.grants()
        assert [part.part_number for part in grant.urls] == list(range(1, 13))
        assert grant.max_bytes_per_second is None


async def test_a_budget_bounds_an_upload_without_a_job_and_its_rate_is_told(tmp_path: Path) -> None:
    async with gated(tmp_path) as rig:
        budget = Budget("site", "berlin", MIB, rig.clock.time)
        await rig.database.write(lambda records: put_budget(records, budget, rig.clock.time))
        upload = await rig.asked(None, size=30 * MIB)
        (grant,) = rig.grants()
        assert ([part.part_number for part in grant.urls], grant.max_bytes_per_second) == ([1, 2], MIB)
        rest = wanted(30 * MIB, 3, 4, 5, 6)
        await rig.respond(
            rig.offer(upload.upload_id, file_size=30 * MIB, wanted_parts=rest, etags={1: "a", 2: "b"}), sequence=2
        )
        (told,) = rig.grants()
        assert told.wait is not None
        assert told.wait.for_seconds == pytest.approx(10.0)
        assert (await rig.reason(upload.upload_id)).code == ReasonCode.BUDGET_SPENT
        await rig.settle(10.0)
        (grant,) = rig.grants()
        assert [part.part_number for part in grant.urls] == [3, 4]


async def test_a_grant_that_no_gate_concerns_costs_no_transaction(tmp_path: Path) -> None:
    async def writes(job_id: str | None, labels: dict[str, str], *, budget: bool, size: int = 12 * MIB) -> int:
        folder = tmp_path / f"{job_id}-{budget}-{size}-{labels.get('site')}"
        folder.mkdir()
        async with gated(folder) as rig:
            if budget:
                other = Budget("site", "paris", MIB, 0.0)
                await rig.database.write(lambda records: put_budget(records, other, 0.0))
            before = rig.sql.writes
            await rig.asked(job_id, labels=labels, size=size)
            assert len(rig.grants()) == 1
            return rig.sql.writes - before

    free = await writes(None, {}, budget=False)
    assert await writes(None, {"site": "berlin"}, budget=True) == free
    assert await writes(None, {"site": "paris"}, budget=True) == free + 1
    # One more stores the job's id. Files of a running job that one grant holds need no other.
    assert await writes("job-1", {}, budget=False) == free + 1
    assert await writes("job-1", {}, budget=False, size=100 * MIB) == free + 2


async def test_a_held_grant_is_not_pulled_in_as_if_a_wrong_clock_had_written_it(tmp_path: Path) -> None:
    async with gated(tmp_path, state=JobState.PAUSED) as rig:
        await rig.asked()
        assert await rig.engine.maintenance.pull_in() == 0
