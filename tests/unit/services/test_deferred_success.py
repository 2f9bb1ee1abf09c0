"""A success that waits for a look at its object, while another process changes the upload in the database."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from control_plane.domain.uploads.model import State, Upload
from control_plane.services.ports.database import Records
from control_plane.services.uploads.completion import Completion, Settled
from tests.support.fakes import Rig
from tests.support.uploads import md5_of
from tests.unit.services.test_one_put import offered, put, succeed

Change = Callable[[Upload], Upload]


def change_during_the_look(patch: pytest.MonkeyPatch, rig: Rig, change: Change) -> list[str | None]:
    """Let another replica change the upload while this one looks; returns the digest of part 1 at each look."""
    seen: list[str | None] = []
    settle = Completion.settle

    async def slow(completion: Completion, upload: Upload) -> Settled:
        seen.append(upload.parts[1].digest)
        settled = await settle(completion, upload)
        if len(seen) == 1:
            await rig.database.write(lambda records: commit(records, upload, change))
        return settled

    patch.setattr(Completion, "settle", slow)
    return seen


def commit(records: Records, upload: Upload, change: Change) -> None:
    now = records.uploads.get(upload.key)
    assert now is not None
    records.uploads.save(now, change(now))


async def test_a_change_by_another_replica_during_the_look_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        change_during_the_look(monkeypatch, rig, lambda now: replace(now, state=State.CANCELLED))
        assert (await succeed(rig, upload)).state is State.CANCELLED
        assert rig.messenger.actions()[-1] == "close_upload"


async def test_a_proof_for_other_digests_than_the_committed_ones_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another replica committed that the file was read again. The success counts; its proof is found once more."""
    async with Rig() as rig:
        upload = await offered(rig)
        put(rig, upload)
        other = {1: replace(upload.parts[1], digest=md5_of(2))}
        seen = change_during_the_look(monkeypatch, rig, lambda now: replace(now, parts=other))
        assert (await succeed(rig, upload)).state is State.COMPLETED
        assert seen == [md5_of(1), md5_of(2)]
