"""The agent's loop on a full disk: known uploads wait, and commands still arrive."""

import errno
import os
from pathlib import Path

import pytest

from device_agent.effects import PUT
from device_agent.inbox import Connected, EffectDone
from device_agent.state import journal as journal_module
from device_agent.transfer.events import PartStored, Seen
from schemas.parts import MIB
from tests.unit.device_agent.agent_loop import FILE, AgentLoop


def full(_descriptor: int, _data: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_refused_commands_are_acknowledged_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = AgentLoop(tmp_path)
    run = loop.sending()
    loop.agent.turn([Connected()])
    loop.network.acknowledged.clear()
    monkeypatch.setattr(journal_module, "write_all", full)
    stored = PartStored(now=1.0, number=1, etag="e1", seen=Seen(FILE))
    loop.agent.turn([EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1")])
    refused = [loop.command("download_file", number, upload_id=f"n{number}") for number in range(2, 40)]
    loop.agent.turn(refused)
    # Sixteen unacknowledged commands would stop the flow, and a cancel with it.
    assert [token.packet_id for token in loop.network.acknowledged] == list(range(2, 40))
    loop.agent.turn([loop.command("cancel_upload", 40)])
    assert loop.network.acknowledged[-1].packet_id == 39, "it is not durable yet"
    monkeypatch.undo()
    loop.now += 10.0
    loop.agent.turn([])
    assert loop.network.acknowledged[-1].packet_id == 40
