"""Effects derived for a new connection do not repeat work that has ended in the same turn."""

from pathlib import Path

from device_agent.inbox import Connected, EffectDone
from device_agent.transfer.events import Opened
from device_agent.transfer.model import State
from tests.unit.device_agent.agent_loop import FILE, AgentLoop


def test_a_source_opened_in_the_same_turn_is_not_opened_again(tmp_path: Path) -> None:
    """The connection and the open file arrive in one turn: effects derived before are outdated."""
    loop = AgentLoop(tmp_path)
    loop.agent.turn([loop.command("download_file", file_path="/d/a")])
    run = loop.agent.uploads.get("u1")
    assert run is not None
    assert run.transfer.opened is None
    opened = EffectDone(run, run.session, Opened(now=1.0, fingerprint=FILE), "open")
    loop.agent.turn([Connected(), opened])
    assert run.transfer.state == State.REQUESTING
    assert (id(run.session), "open") not in loop.agent._runner._running
    loop.journal.close()
