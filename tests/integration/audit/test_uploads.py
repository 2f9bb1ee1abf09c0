"""Acts on uploads, and their records.

Rule: the engine runs over SQLite; each transaction runs on the event loop itself.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain.errors import IllegalTransition
from control_plane.domain.uploads.model import State
from control_plane.services.audit.ports import AuditFilter
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.database import Page
from control_plane.services.uploads.service import TriggerRequest
from tests.support.fakes import CLIENT, OPERATOR, Rig
from tests.support.inline_database import InlineDatabase


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    database = InlineDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}", patience=5)
    async with Rig(database=database) as one:
        yield one
    await database.close()


async def acts(rig: Rig) -> list[tuple[str, str, dict[str, Any]]]:
    """Act, target and detail of each record, oldest first; every one is about the one client."""
    found, _ = await rig.database.read(lambda records: records.audit.list(AuditFilter(client_id=CLIENT), Page(100)))
    documents = [one.document for one in reversed(found)]
    assert {(one["subject"], tuple(one["clients"])) for one in documents} <= {("operator", (CLIENT,))}
    return [(one["act"], one["target"].removeprefix("upload:"), one["detail"]) for one in documents]


async def test_trigger_cancel_and_retry_each_leave_one_record(rig: Rig) -> None:
    service = rig.engine.upload_service
    await rig.birth()
    first = (await rig.trigger(file_path="/data/a.bin")).upload.upload_id
    await service.cancel(OPERATOR, first)
    with pytest.raises(IllegalTransition):
        await service.cancel(OPERATOR, first)
    second = (await service.retry(OPERATOR, first)).upload.upload_id
    path = {"file_path": "/data/a.bin"}
    assert await acts(rig) == [
        ("upload.trigger", first, path),
        ("upload.cancel", first, path),
        ("upload.retry", second, {**path, "of": first}),
    ]


async def test_a_trigger_that_is_repeated_with_its_key_leaves_no_second_record(rig: Rig) -> None:
    await rig.birth()
    request = TriggerRequest(CLIENT, idempotency_key="once")
    for _ in range(2):
        await rig.engine.upload_service.trigger(OPERATOR, request)
    assert [act for act, _, _ in await acts(rig)] == ["upload.trigger"]


async def test_two_triggers_of_one_file_in_one_second_leave_a_record_each(rig: Rig) -> None:
    """The second object key is taken at first: the record is that of the key that was used."""
    await rig.birth()
    ids = [(await rig.trigger()).upload.upload_id for _ in range(2)]
    assert [(act, target) for act, target, _ in await acts(rig)] == [("upload.trigger", one) for one in ids]


async def test_a_url_is_given_once_its_reading_is_recorded_and_not_without(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await rig.finished()
    await rig.settle(1)
    assert (await rig.upload(upload.upload_id)).state is State.COMPLETED
    await rig.engine.upload_service.object_url(OPERATOR, upload.upload_id)
    assert (await acts(rig))[-1][:2] == ("object.url", upload.upload_id)

    async def unavailable(*_: object) -> None:
        message = "the disk is full"
        raise DatabaseUnavailable(message)

    monkeypatch.setattr(rig.database, "write", unavailable)
    with pytest.raises(DatabaseUnavailable):
        await rig.engine.upload_service.object_url(OPERATOR, upload.upload_id)
