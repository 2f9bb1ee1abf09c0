"""What an agent repeats for a new connection must not overtake what is happening already."""

from pathlib import Path

from device_agent.inbox import Connected, EffectDone
from device_agent.transfer.events import Opened
from device_agent.transfer.model import State
from tests.unit.device_agent.agent_loop import FILE, AgentLoop


def test_a_source_opened_in_the_same_turn_is_not_opened_again(tmp_path: Path) -> None:
    """The connection came, and the file was open, in one turn: what was derived before that is out of date."""
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
