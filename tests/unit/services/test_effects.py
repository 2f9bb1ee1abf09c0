"""What is done ahead of a commit: a look at the object, on what was committed last."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.ports.database import Records
from control_plane.services.uploads import effects
from control_plane.services.uploads.completion import Completion
from control_plane.services.uploads.effects import OpenUploads
from tests.support.fakes import Rig
from tests.support.uploads import md5_of
from tests.unit.services.test_one_put import offered, put, succeed


async def commit_elsewhere(rig: Rig, upload: Upload, change: Callable[[Upload], Upload]) -> None:
    """What another replica does to the database, behind our back."""

    def work(records: Records) -> None:
        now = records.uploads.get(upload.key)
        assert now is not None
        records.uploads.save(now, change(now))

    await rig.store.write(work)


async def test_a_success_costs_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the object is decided by what is in memory, and committed with the success."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        writes = []
        write = MemoryDatabase.write

        async def count(store: MemoryDatabase, work: object) -> object:
            writes.append(work)
            return await write(store, work)  # type: ignore[arg-type]

        monkeypatch.setattr(MemoryDatabase, "write", count)
        assert (await succeed(rig, upload)).state is State.COMPLETED
        assert len(writes) == 1


async def test_what_another_replica_committed_meanwhile_stands() -> None:
    """We remember an upload that is under way; in the database it was cancelled."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)

        await commit_elsewhere(rig, upload, lambda now: replace(now, state=State.CANCELLED))
        assert (await succeed(rig, upload)).state is State.CANCELLED
        assert rig.messenger.actions()[-1] == "close_upload"


async def test_a_proof_of_other_bytes_than_those_in_the_database_proves_nothing() -> None:
    """Another replica heard that the file was read again; what we remember, and looked at, has the old digest."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)

        other = {1: replace(upload.parts[1], digest=md5_of(2))}
        await commit_elsewhere(rig, upload, lambda now: replace(now, parts=other))
        seen = []
        settle = Completion.settle

        async def noting(completion: Completion, looked_at: Upload) -> object:
            seen.append(looked_at.parts[1].digest)
            return await settle(completion, looked_at)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Completion, "settle", noting)
            assert (await succeed(rig, upload)).state is State.COMPLETED
        assert seen == [md5_of(1), md5_of(2)], "looked at again, for what the database says"


async def test_one_that_is_not_remembered_is_read() -> None:
    """After a restart, say."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        rig.engine.uploads._open = OpenUploads()
        assert (await succeed(rig, upload)).state is State.COMPLETED


async def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none that is over."""
    async with Rig() as rig:
        upload = await offered(rig)
    monkeypatch.setattr(effects, "MOST_OPEN", 2)
    known = OpenUploads()
    several = [replace(upload, upload_id=str(number)) for number in range(3)]
    for one in several:
        known.committed(one)
    assert [_remembers(known, one) for one in several] == [False, True, True]
    known.committed(replace(several[2], state=State.CANCELLED))
    assert not _remembers(known, several[2])


def _remembers(known: OpenUploads, upload: Upload) -> bool:
    return upload.key in known._known
