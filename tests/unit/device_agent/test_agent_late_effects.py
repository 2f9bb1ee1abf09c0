"""Effects that started before an interruption and end after the resume."""

from pathlib import Path

import pytest

from device_agent.effects import PUT
from device_agent.errors import PutFailure
from device_agent.inbox import EffectDone
from device_agent.transfer.events import Digested, PartFailed, Rechecked, Seen
from device_agent.transfer.handlers import MAX_PART_FAILURES
from device_agent.transfer.model import State
from device_agent.workers.part_io import IoEvent
from schemas.parts import MIB
from tests.unit.device_agent.agent_loop import FILE, AgentLoop


@pytest.mark.parametrize("late", [Digested(now=2.0, digests={3: None}), Rechecked(now=2.0, digests={1: None})])
def test_a_digest_of_the_old_session_does_not_change_the_resumed_upload(tmp_path: Path, late: IoEvent) -> None:
    loop = AgentLoop(tmp_path)
    run = loop.sending()
    old = run.session
    old.running += 1
    for _ in range(MAX_PART_FAILURES):
        failed = PartFailed(now=1.0, number=1, kind=PutFailure.TRY_AGAIN, text="503", seen=Seen(FILE), jitter=0.0)
        loop.agent.turn([EffectDone(run, old, failed, PUT, 5 * MIB, 1.0, "https://s/1")])
        old.running += 1
    assert run.ended
    sequence = run.transfer.sequence
    loop.agent.turn([loop.command("download_file", 3, file_path="/d/a", acknowledges=sequence)])
    assert run.transfer.state is State.QUEUED
    loop.agent.turn([EffectDone(run, old, late, "digest")])
    assert (run.transfer.ending, loop.agent.uploads.counters["faults"]) == (None, 0)
