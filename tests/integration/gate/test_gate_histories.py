"""Random histories of one upload: whatever happens in which order, no URL is published while its job is paused."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.domain.jobs.model import JobState
from control_plane.domain.uploads.model import OPEN, State
from schemas.messages import ActiveUpload
from schemas.parts import MIB
from tests.integration.gate.test_held_uploads import GatedRig, gated
from tests.support.examples import examples
from tests.support.fakes import CLIENT
from tests.support.uploads import wanted

SIZE = 12 * MIB
EVENTS = ("pause", "resume", "ask", "repeat", "hello", "minute", "hour", "reconnect", "offline", "down", "up")


async def happen(rig: GatedRig, upload_id: str, event: str, sequence: int, epoch: int) -> None:
    """One event of a history."""
    match event:
        case "pause":
            await rig.set_state(JobState.PAUSED)
        case "resume":
            await rig.set_state(JobState.RUNNING)
        case "ask" | "repeat":
            await rig.respond(rig.offer(upload_id, file_size=SIZE, wanted_parts=wanted(SIZE)), sequence=sequence)
        case "hello":
            await rig.hello(ActiveUpload(upload_id=upload_id, attempt=1, sequence=sequence))
        case "minute":
            await rig.pass_time(60.0)
        case "hour":
            await rig.pass_time(3_600.0, step=75.0)
        case "reconnect":
            await rig.birth(epoch=epoch)
        case "offline":
            await rig.settle(200.0)
        case _:
            rig.messenger.down = event == "down"
    await rig.settle()


@pytest.mark.slow
@settings(max_examples=examples(12), deadline=None)
@given(
    history=st.lists(st.sampled_from(EVENTS), min_size=1, max_size=10),
    paused=st.booleans(),
    capabilities=st.sampled_from([("wait", "rate"), ()]),
)
async def test_no_url_is_published_while_the_job_is_paused_and_none_is_kept_back_for_ever(
    *, history: Sequence[str], paused: bool, capabilities: tuple[str, ...]
) -> None:
    state = JobState.PAUSED if paused else JobState.RUNNING
    with TemporaryDirectory() as folder:
        async with gated(Path(folder), state=state) as rig:
            upload = await rig.asked(capabilities=capabilities)
            sequence, epoch = 1, 1
            assert any(one.urls for one in rig.grants()) is not paused
            for event in history:
                sequence += event == "ask"
                epoch += event == "reconnect"
                paused = event == "pause" or (paused and event != "resume")
                await happen(rig, upload.upload_id, event, sequence, epoch)
                published = rig.grants()
                assert not (paused and any(one.urls for one in published)), event
            rig.messenger.down = False
            await rig.set_state(JobState.RUNNING)
            await rig.birth(CLIENT, epoch=epoch + 1, capabilities=capabilities)
            if (await rig.upload(upload.upload_id)).state not in OPEN:
                return
            await rig.respond(rig.offer(upload.upload_id, file_size=SIZE, wanted_parts=wanted(SIZE)), sequence=99)
            await rig.settle(1.0)
            after = await rig.upload(upload.upload_id)
            assert (after.state, after.held) == (State.IN_PROGRESS, False)
            assert any(len(one.urls) == 3 for one in rig.grants())
