"""What is appended to the change log, when, and which log lines follow."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from control_plane.adapters.memory.records import MemoryChanges, MemoryUploads
from control_plane.domain.changes import (
    Change,
    ClientConnected,
    ClientDisconnected,
    ClientForgotten,
    ExecutionStateChanged,
    JobStateChanged,
    ScheduleTicked,
    UploadCreated,
    UploadStateChanged,
)
from control_plane.domain.uploads.events import CancelRequested
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.errors import DatabaseUnavailable, VersionConflict
from control_plane.services.events.log import ChangeLogger
from control_plane.services.maintenance import CHANGES_FOR
from control_plane.services.ports.database import Records
from control_plane.services.uploads.writer import Commit
from schemas.messages import DownloadFile, UploadConfig
from tests.support.databases import an_upload
from tests.support.fakes import CLIENT, OPERATOR, Rig

T = TypeVar("T")


UPLOADS = (UploadCreated, UploadStateChanged)
CLIENTS = (ClientConnected, ClientDisconnected, ClientForgotten)


async def changes(rig: Rig, kinds: tuple[type[Change], ...] = UPLOADS) -> list[Change]:
    """The changes of these kinds in the change log, oldest first."""
    found = await rig.database.read(lambda records: records.changes.after(0, 100))
    assert [one.number for one in found] == sorted({one.number for one in found})
    return [one.change for one in found if isinstance(one.change, kinds)]


async def test_every_state_of_an_upload_is_a_change_in_order() -> None:
    async with Rig() as rig:
        upload = await rig.finished()
        created, *rest = await changes(rig)
        assert created == UploadCreated(at=upload.created_at, client_id=CLIENT, upload_id=upload.upload_id)
        steps = [(one.was, one.state) for one in rest if isinstance(one, UploadStateChanged)]
        assert steps == [
            (State.QUEUED, State.DISPATCHED),
            (State.DISPATCHED, State.IN_PROGRESS),
            (State.IN_PROGRESS, State.COMPLETING),
            (State.COMPLETING, State.COMPLETED),
        ]


async def test_each_change_has_its_log_line_with_the_same_facts() -> None:
    async with Rig() as rig:
        upload = await rig.granted()
        await rig.engine.uploads.submit(upload.key, CancelRequested(now=rig.clock.now()))
        about = {"upload_id": upload.upload_id, "client_id": CLIENT}
        lines = [facts for event, facts in rig.events if event == "upload.state"]
        assert [facts for event, facts in rig.events if event == "upload.created"] == [about]
        assert lines[-1] == {**about, "attempt": 1, "was": "in_progress", "state": "cancelled", "error": None}
        assert len(lines) == len(await changes(rig)) - 1


async def test_a_batch_appends_its_changes_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Rig() as rig:
        await rig.birth()
        uploads = [(await rig.trigger(file_path=f"/data/{number}")).upload for number in range(3)]
        appended: list[int] = []
        append = MemoryChanges.append

        def counting(records: MemoryChanges, some: Sequence[Change]) -> None:
            appended.append(len(some))
            append(records, some)

        monkeypatch.setattr(MemoryChanges, "append", counting)
        cancels = (rig.engine.uploads.submit(one.key, CancelRequested(now=2_000.0)) for one in uploads)
        await asyncio.gather(*cancels)
        assert appended == [3]


async def test_an_upload_that_another_sender_commanded_is_created_once() -> None:
    async with Rig() as rig:
        await rig.birth()
        command = DownloadFile(file_path="/a", upload_config=UploadConfig(owner="cli-7", key="k"))
        await rig.hear(command)
        await rig.hear(command)
        assert [type(one) for one in await changes(rig)] == [UploadCreated]


async def test_a_client_connects_disconnects_and_is_forgotten() -> None:
    async with Rig() as rig:
        await rig.birth()
        await rig.birth(sequence=1)
        await rig.birth(sequence=2, status="offline")
        await rig.birth(sequence=3, status="offline")
        await rig.birth(epoch=2)
        await rig.engine.client_service.forget(OPERATOR, CLIENT)
        found = [type(one) for one in await changes(rig, CLIENTS)]
        assert found == [ClientConnected, ClientDisconnected, ClientConnected, ClientForgotten]


async def test_a_beat_appends_no_change() -> None:
    async with Rig() as rig:
        await rig.birth()
        await rig.birth(sequence=1)
        assert len(await changes(rig, CLIENTS)) == 1


async def test_the_changes_of_a_jobs_upload_name_the_job() -> None:
    async with Rig() as rig:
        upload = await rig.engine.adopt(an_upload(client_id=CLIENT, job_id="j", job_file=1, deadline=9_000.0))
        await rig.engine.uploads.submit(upload.key, CancelRequested(now=rig.clock.now()))
        found = [one.job_id for one in await changes(rig) if isinstance(one, UPLOADS)]
        assert found
        assert set(found) == {"j"}


def test_changes_of_jobs_and_schedules_have_log_lines() -> None:
    lines: list[tuple[str, object]] = []
    ChangeLogger(lambda event, facts: lines.append((event, dict(facts)))).committed(
        [
            JobStateChanged(at=1.0, job_id="j", was=None, state="running", outcome=None),
            ExecutionStateChanged(
                at=1.0, job_id="j", client_id="c", attempt=1, was="listing", state="failed", reason="no_match"
            ),
            ScheduleTicked(at=1.0, schedule_id="s", kind="tick", nominal_at=0.0, status="fired", job_id="j"),
            ClientForgotten(at=1.0, client_id="c"),
        ]
    )
    states = {"job_id": "j", "client_id": "c", "attempt": 1, "was": "listing", "state": "failed", "reason": "no_match"}
    assert lines == [
        ("job.state", {"job_id": "j", "was": None, "state": "running", "outcome": None}),
        ("execution.state", states),
        (
            "schedule.tick",
            {"schedule_id": "s", "kind": "tick", "nominal_at": 0.0, "status": "fired", "job_id": "j"},
        ),
        ("client.forgotten", {"client_id": "c"}),
    ]


def listen(rig: Rig) -> list[Commit]:
    """Every commit from now on."""
    commits: list[Commit] = []
    rig.engine.uploads.on_commit(commits.append)
    return commits


async def test_a_listener_gets_the_decisions_and_the_changes_of_a_commit() -> None:
    async with Rig() as rig:
        await rig.birth()
        commits = listen(rig)
        upload = (await rig.trigger()).upload
        ((created, decision),) = [(commit.changes[0], commit.decisions[0]) for commit in commits[:1]]
        assert isinstance(created, UploadCreated)
        assert (decision.key, [duty.kind for duty in decision.duties]) == (upload.key, ["say_download"])


async def test_a_transaction_that_fails_leaves_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Rig() as rig:
        await rig.birth()
        upload = (await rig.trigger()).upload
        before = await changes(rig)
        write = rig.database.write

        def rolled_back(work: Callable[[Records], T]) -> Callable[[Records], T]:
            def fail(records: Records) -> T:
                work(records)
                message = "disk full"
                raise DatabaseUnavailable(message)

            return fail

        commits = listen(rig)
        with monkeypatch.context() as patch:
            patch.setattr(rig.database, "write", lambda work: write(rolled_back(work)))
            with pytest.raises(DatabaseUnavailable):
                await rig.engine.uploads.submit(upload.key, CancelRequested(now=2_000.0))
        assert (await changes(rig), commits) == (before, [])


async def test_a_transaction_that_runs_twice_appends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Rig() as rig:
        await rig.birth()
        upload = (await rig.trigger()).upload
        before = await changes(rig)
        save, conflicts = MemoryUploads.save, [VersionConflict("another replica")]

        def conflicting(records: MemoryUploads, old: Upload, new: Upload) -> Upload:
            if conflicts:
                raise conflicts.pop()
            return save(records, old, new)

        monkeypatch.setattr(MemoryUploads, "save", conflicting)
        await rig.engine.uploads.submit(upload.key, CancelRequested(now=2_000.0))
        assert len(await changes(rig)) == len(before) + 1


async def test_old_changes_are_pruned_but_the_last_which_holds_the_number() -> None:
    async with Rig() as rig:
        await rig.birth()
        await rig.trigger()
        before = await changes(rig)
        assert len(before) > 1
        rig.clock.time += CHANGES_FOR - 1
        await rig.engine.maintenance.prune()
        assert await changes(rig) == before
        rig.clock.time += 2
        await rig.engine.maintenance.prune()
        assert await changes(rig) == before[-1:]
