"""How the agent leaves: what is stored by then is kept, what is under way is stopped."""

from pathlib import Path

import pytest

from device_agent.effects import PUT
from device_agent.inbox import EffectDone, StopRequested
from device_agent.state.journal import Journal
from device_agent.transfer.events import PartStored, Seen
from schemas.parts import MIB
from tests.unit.device_agent.scene import FILE, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_part_stored_by_then_is_not_sent_again(scene: Scene, tmp_path: Path) -> None:
    run = scene.sending()
    scene.inbox.put(StopRequested())
    stored = PartStored(now=1.0, number=1, etag="e1", seen=Seen(FILE))
    scene.inbox.put(EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1"))
    scene.agent.run()
    scene.journal.close()
    journal, transfers = Journal.open(tmp_path)
    assert {number: kept.etag for number, kept in transfers["u1"].kept.items()} == {1: "e1"}
    journal.close()


def test_a_part_stored_while_it_stops_is_not_sent_again_either(scene: Scene, tmp_path: Path) -> None:
    run = scene.sending()
    scene.inbox.put(StopRequested())
    stored = PartStored(now=1.0, number=1, etag="e1", seen=Seen(FILE))
    report = EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1")
    scene.agent._runner._part_io.uploader.close = lambda: scene.inbox.put(report)  # type: ignore[method-assign]
    scene.agent.run()
    scene.journal.close()
    journal, transfers = Journal.open(tmp_path)
    assert 1 in transfers["u1"].kept
    journal.close()


def test_what_reads_a_file_is_stopped_too(scene: Scene) -> None:
    run = scene.sending()
    scene.inbox.put(StopRequested())
    scene.agent.run()
    assert run.session.stopped.is_set()
    assert scene.happened == ["cut", "said offline"]
