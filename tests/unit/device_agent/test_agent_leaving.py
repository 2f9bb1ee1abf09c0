"""The graceful stop: stored parts are kept, running work is stopped."""

from pathlib import Path

import pytest

from device_agent.effects import PUT
from device_agent.inbox import EffectDone, StopRequested
from device_agent.state.journal import Journal
from device_agent.transfer.events import PartStored, Seen
from schemas.parts import MIB
from tests.unit.device_agent.agent_loop import FILE, AgentLoop


@pytest.fixture
def loop(tmp_path: Path) -> AgentLoop:
    return AgentLoop(tmp_path)


def test_a_part_stored_before_the_stop_is_kept(loop: AgentLoop, tmp_path: Path) -> None:
    run = loop.sending()
    loop.inbox.put(StopRequested())
    stored = PartStored(now=1.0, number=1, etag="e1", seen=Seen(FILE))
    loop.inbox.put(EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1"))
    loop.agent.run()
    loop.journal.close()
    journal, transfers = Journal.open(tmp_path)
    assert {number: kept.etag for number, kept in transfers["u1"].kept.items()} == {1: "e1"}
    journal.close()


def test_a_part_stored_during_the_stop_is_kept(loop: AgentLoop, tmp_path: Path) -> None:
    run = loop.sending()
    loop.inbox.put(StopRequested())
    stored = PartStored(now=1.0, number=1, etag="e1", seen=Seen(FILE))
    report = EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1")
    loop.agent._runner._part_io.uploader.close = lambda: loop.inbox.put(report)  # type: ignore[method-assign]
    loop.agent.run()
    loop.journal.close()
    journal, transfers = Journal.open(tmp_path)
    assert 1 in transfers["u1"].kept
    journal.close()


def test_running_reads_are_stopped(loop: AgentLoop) -> None:
    run = loop.sending()
    loop.inbox.put(StopRequested())
    loop.agent.run()
    assert run.session.stopped.is_set()
    assert loop.happened == ["cut", "published offline"]
