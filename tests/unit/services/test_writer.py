"""The one writer: events that cannot be committed, and their effect on others."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from control_plane.adapters.memory.records import MemoryUploads
from control_plane.domain.uploads.events import CancelRequested
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.errors import VersionConflict
from control_plane.services.ports.database import Records
from tests.support.fakes import OPERATOR, Rig

T = TypeVar("T")


def poison(monkeypatch: pytest.MonkeyPatch, upload_id: str) -> None:
    """From now on this upload cannot be written."""
    save = MemoryUploads.save

    def refuse(records: MemoryUploads, before: Upload, after: Upload) -> Upload:
        if after.upload_id == upload_id:
            message = "a planted fault"
            raise ValueError(message)
        return save(records, before, after)

    monkeypatch.setattr(MemoryUploads, "save", refuse)


async def test_an_event_that_cannot_be_committed_does_not_fail_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are in one batch; and the writer continues."""
    async with Rig() as rig:
        await rig.birth()
        bad, good = (await rig.trigger()).upload, (await rig.trigger(file_path="/data/other")).upload
        poison(monkeypatch, bad.upload_id)
        cancels = (rig.engine.uploads.submit(one.key, CancelRequested(now=2_000.0)) for one in (bad, good))
        refused, cancelled = await asyncio.wait_for(asyncio.gather(*cancels, return_exceptions=True), 60)
        assert isinstance(refused, ValueError)
        assert isinstance(cancelled, Upload)
        assert cancelled.state is State.CANCELLED
        assert rig.counted("commit.failed") == 2
        assert (await rig.trigger(file_path="/data/third")).upload.state is State.QUEUED


async def test_an_event_that_changes_nothing_is_counted() -> None:
    """A repeat, and a message of an older attempt."""
    async with Rig() as rig:
        upload = await rig.granted()
        await rig.respond(rig.offer(upload.upload_id), sequence=1)
        assert rig.counted("event.repeated") == 1
        await rig.respond(rig.offer(upload.upload_id, wanted_parts=()), "error", sequence=2, error="upload_gone")
        await rig.respond(rig.offer(upload.upload_id), sequence=3)
        assert rig.counted("event.repeated") == 2


async def test_a_rolled_back_change_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another replica was faster: all is read and applied again, and logged once."""
    async with Rig() as rig:
        await rig.birth()
        upload = (await rig.trigger()).upload
        save, conflicts = MemoryUploads.save, [VersionConflict("another replica")]

        def conflicting(records: MemoryUploads, before: Upload, after: Upload) -> Upload:
            if conflicts:
                raise conflicts.pop()
            return save(records, before, after)

        monkeypatch.setattr(MemoryUploads, "save", conflicting)
        rig.events.clear()
        await rig.engine.upload_service.cancel(OPERATOR, upload.upload_id)
        assert rig.counted("upload.state") == 1


async def test_the_publication_of_a_command_costs_no_separate_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is committed together with the client's answer; without an answer, alone a little later."""
    async with Rig() as rig:
        await rig.birth()
        rig.engine.uploads.linger = 60
        commits: list[None] = []
        write = rig.database.write

        async def counted(work: Callable[[Records], T]) -> T:
            commits.append(None)
            return await write(work)

        monkeypatch.setattr(rig.database, "write", counted)
        upload = (await rig.trigger()).upload
        assert (await rig.upload(upload.upload_id)).state is State.QUEUED
        await rig.respond(rig.offer(upload.upload_id), sequence=1)
        assert (await rig.upload(upload.upload_id)).state is State.IN_PROGRESS
        together = len(commits)
        rig.engine.uploads.linger = 0.1
        silent = (await rig.trigger(file_path="/data/other")).upload
        await asyncio.sleep(0.15)
        await rig.settle()
        assert (await rig.upload(silent.upload_id)).state is State.DISPATCHED
        assert len(commits) - together == 2
