"""Devices that answer requests for their files with what no honest agent sends.

Rule: such a device delays its own execution and no other.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from control_plane.domain.jobs.spec import FileQuery, Timeouts
from control_plane.services.jobs.plans import request_id
from schemas.messages import FileEntry, Response, Selection
from schemas.values import Action
from tests.support.job_rig import Device, JobRig

Started = Callable[..., Any]
LARGEST: Final = 2**63 - 1


@pytest.fixture
async def started() -> AsyncIterator[Started]:
    """Starts a rig with these devices, all of them connected."""
    async with AsyncExitStack() as stack:

        async def start(*devices: Device) -> JobRig:
            rig = await stack.enter_async_context(JobRig(devices))
            rig.check_at_every_commit()
            await rig.connect()
            return rig

        yield start


def page(message_id: str, paths: tuple[str, ...], *, size: int = 10, offset: int = 0, **more: Any) -> Response:  # noqa: ANN401
    """An answer with these files."""
    entries = tuple(FileEntry(path, size, 1) for path in paths)
    totals = {"files": len(paths), "bytes": size, "offset": offset, "entries": entries, "selection": "s1", **more}
    payload = Selection("job", complete=True, **totals)
    return Response(message_id=message_id, action=Action.SELECT_FILES, status="success", payload=payload)


async def test_pages_that_come_before_they_are_asked_for_change_nothing(started: Started) -> None:
    rig = await started(Device("liar", silent=True), Device("b", silent=True))
    await rig.create()
    first = request_id(await rig.execution("liar"))
    following = first.removesuffix(".0") + ".1"
    jobs = rig.engine.jobs
    jobs.receive("liar", page(first, ("/data/a.log",), files=3, next=1))
    jobs.receive("liar", page(following, ("/data/a.log",), offset=1, files=3, next=0, selection="s2"))
    jobs.receive("liar", page(first, ("/data/a.log",), files=3, next=1))
    rig.devices["b"].silent = False
    jobs.receive("b", page(request_id(await rig.execution("b")), ()))
    await rig.settle()
    assert (await rig.execution("b")).state == "skipped"
    liar = await rig.execution("liar")
    assert (liar.state, liar.files, liar.next_index) == ("listing", 1, 1)
    assert [file.path for file in await rig.files("liar")] == ["/data/a.log"]
    assert (rig.devices["liar"].asked["select_files"], rig.counted("jobs.failed")) == (2, 0)


async def test_an_answer_that_cannot_be_stored_takes_no_other_with_it(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.services.jobs.selections.MAX_FILE_SIZE", LARGEST)
    rig = await started(Device("liar", silent=True), Device("b", silent=True))
    await rig.create()
    jobs = rig.engine.jobs
    huge = tuple(f"/data/{n}.log" for n in range(3))
    jobs.receive("liar", page(request_id(await rig.execution("liar")), huge, size=LARGEST))
    jobs.receive("b", page(request_id(await rig.execution("b")), ()))
    await rig.settle()
    assert (await rig.execution("b")).state == "skipped"
    assert (await rig.execution("liar")).state == "listing"
    assert rig.counted("jobs.failed")


async def test_a_file_that_is_larger_than_any_object_is_left_out(started: Started) -> None:
    rig = await started(Device("liar", size=LARGEST))
    await rig.create()
    execution = await rig.execution("liar")
    assert (execution.state, execution.left_out, execution.bytes) == ("skipped", 1, 0)


async def test_an_unknown_error_code_is_one_reason_for_all_devices(started: Started) -> None:
    rig = await started(Device("a", refuses="zebra-1"), Device("b", refuses="zebra-2"))
    await rig.create(files=FileQuery(paths=("/data/*.log",)), timeouts=Timeouts(listing=60.0))
    found = [await rig.execution(name) for name in ("a", "b")]
    assert {one.reason.code for one in found} == {"unknown"}
    assert [one.reason.text.partition(":")[0] for one in found] == ["zebra-1", "zebra-2"]
