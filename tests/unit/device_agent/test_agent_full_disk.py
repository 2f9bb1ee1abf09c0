"""A full disk, as the agent's loop meets it: what is known waits, and keeps nobody out."""

import errno
import os
from pathlib import Path

import pytest

from device_agent.effects import PUT
from device_agent.inbox import Connected, EffectDone
from device_agent.state import journal as journal_module
from device_agent.transfer.events import PartStored, Seen
from schemas.parts import MIB
from tests.unit.device_agent.scene import FILE, Scene


def full(_descriptor: int, _data: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_refused_meanwhile_takes_no_room_from_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    run = scene.sending()
    scene.agent.turn([Connected()])
    scene.network.acknowledged.clear()
    monkeypatch.setattr(journal_module, "write_all", full)
    stored = PartStored(now=1.0, number=1, etag="e1", seen=Seen(FILE))
    scene.agent.turn([EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1")])
    refused = [scene.command("download_file", number, upload_id=f"n{number}") for number in range(2, 40)]
    scene.agent.turn(refused)
    # Sixteen that nobody acknowledges would stop the flow, and a cancel with it.
    assert [token.packet_id for token in scene.network.acknowledged] == list(range(2, 40))
    scene.agent.turn([scene.command("cancel_upload", 40)])
    assert scene.network.acknowledged[-1].packet_id == 39, "it is not durable yet"
    monkeypatch.undo()
    scene.now += 10.0
    scene.agent.turn([])
    assert scene.network.acknowledged[-1].packet_id == 40
