"""Clients that join and leave jobs that run.

Rule: only the test moves the clock; the sums of a job are compared with its rows at each commit.
"""

from typing import Any

import pytest

from control_plane.domain.groups import Group
from control_plane.domain.jobs.model import JobOutcome, JobState
from control_plane.domain.jobs.spec import (
    AbortRule,
    Rate,
    Rollout,
    Targets,
)
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.jobs import runner
from control_plane.services.jobs.due import SWEEP_EVERY
from schemas.values import Action
from tests.support.fakes import OPERATOR
from tests.support.job_rig import Device, Started


async def test_clients_join_a_continuous_job_and_leave_it(started: Started) -> None:
    rig = await started(Device("a", labels={"site": "berlin"}), Device("b"))
    await rig.create(targets=Targets(selector="site=berlin", mode="continuous"))
    assert await rig.states() == {"a": "succeeded"}
    rig.devices["b"].labels = {"site": "berlin"}
    rig.devices["c"] = Device("c", silent=True, labels={"site": "berlin"})
    await rig.connect("b", "c")
    assert await rig.states() == {"a": "succeeded", "b": "succeeded", "c": "listing"}
    rig.devices["c"].labels = {}
    await rig.connect("c")
    assert (await rig.execution("c")).state == "removed"
    rig.devices["c"].labels = {"site": "berlin"}
    rig.devices["c"].silent = False
    await rig.connect("c")
    assert (await rig.states())["c"] == "succeeded"
    job = await rig.job()
    assert (job.state, job.clients) == (JobState.RUNNING, 3)
    rig.on.clear()
    await rig.passes(job.deadline - rig.clock.now() + 1, step=100_000)
    job = await rig.job()
    assert (job.state, job.outcome) == (JobState.COMPLETED, JobOutcome.ALL)


async def test_a_client_that_is_deleted_leaves_its_jobs(started: Started) -> None:
    rig = await started(Device("a", silent=True), Device("b"))
    await rig.create()
    await rig.engine.client_service.forget(OPERATOR, "a")
    await rig.settle()
    assert await rig.states() == {"a": "removed", "b": "succeeded"}
    assert (await rig.job()).outcome is JobOutcome.ALL


async def test_no_client_joins_a_job_that_is_being_ended(started: Started) -> None:
    berlin = {"site": "berlin"}
    rig = await started(
        Device("fails", ends={"/data/a.log": ["*"]}, labels=berlin),
        Device("sends", deaf=frozenset({Action.DOWNLOAD_FILE}), labels=berlin),
        Device("left", silent=True, labels=berlin),
    )
    rig.devices["fails"].silent = True
    abort = (AbortRule(on="failed", percent=50, min_ended=1),)
    await rig.create(targets=Targets(selector="site=berlin", mode="continuous"), abort=abort)
    rig.devices["left"].labels = {}
    rig.devices["fails"].silent = False
    await rig.connect("left")
    await rig.passes(120)
    ending = {"fails": "failed", "sends": "uploading", "left": "removed"}
    assert ((await rig.job()).state, await rig.states()) == (JobState.CANCELLING, ending)
    rig.devices["new"] = Device("new", labels=berlin)
    rig.devices["left"].labels = berlin
    await rig.connect("new", "left")
    assert ((await rig.job()).state, await rig.states()) == (JobState.CANCELLING, ending)


async def test_a_client_that_no_longer_matches_is_not_begun_by_the_look_that_removes_it(started: Started) -> None:
    rig = await started(Device("a"), Device("b"))

    async def set_group(*clients: str) -> None:
        group = Group(name="beta", clients=clients, created_at=0.0, updated_at=0.0)
        await rig.database.write(lambda records: records.groups.save(group))

    await set_group("a", "b")
    # The second may begin in the very second in which the targets are resolved again.
    rollout = Rollout(rate=Rate(1, SWEEP_EVERY))
    await rig.create(targets=Targets(clients=("group:beta",), mode="continuous"), rollout=rollout)
    (sent,) = [name for name, state in (await rig.states()).items() if state == "succeeded"]
    (other,) = {"a", "b"} - {sent}
    await set_group(sent)
    await rig.passes(SWEEP_EVERY, step=SWEEP_EVERY)
    assert await rig.states() == {sent: "succeeded", other: "removed"}
    assert not rig.devices[other].asked


async def test_a_client_joins_though_the_database_fails_at_that_moment(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, fails = runner._turn_members, [DatabaseUnavailable("locked")]

    def turn_members(*given: Any) -> None:  # noqa: ANN401
        if fails:
            raise fails.pop()
        keep(*given)

    monkeypatch.setattr(runner, "_turn_members", turn_members)
    rig = await started(Device("a"), connect=False)
    await rig.create(targets=Targets(selector="", mode="continuous"))
    await rig.connect("a")
    assert (fails, await rig.states()) == ([], {"a": "succeeded"})
