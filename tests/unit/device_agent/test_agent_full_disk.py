"""The agent's loop on a full disk: known uploads wait, and commands still arrive."""

import errno
import os
from pathlib import Path

import pytest

from device_agent.effects import PUT
from device_agent.inbox import Connected, EffectDone
from device_agent.state import journal as journal_module
from device_agent.transfer.events import PartStored, Seen
from schemas.codec import decode, decode_response
from schemas.messages import Status
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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_the_words_of_the_system_and_the_path_reach_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A read-only or failing disk is not a full one, and asks for something else."""

    def fail(_descriptor: int, _data: bytes) -> None:
        raise OSError(code, os.strerror(code))

    loop = AgentLoop(tmp_path)
    run = loop.sending()
    loop.agent.turn([Connected()])
    monkeypatch.setattr(journal_module, "write_all", fail)
    stored = PartStored(now=1.0, number=1, etag="e1", seen=Seen(FILE))
    loop.agent.turn([EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1")])
    loop.network.published.clear()
    loop.agent.turn([loop.command("download_file", 2, upload_id="n2", file_path="/d/b")])
    loop.now += 2.0
    loop.agent.turn([])
    words = f"the device cannot keep its state: {tmp_path}/journal cannot be written: {os.strerror(code)}"
    answers = [decode_response(data) for data in loop.network.published if b'"no_space"' in data]
    assert [answer.message for answer in answers] == [words]
    statuses = [decode(Status, data) for data in loop.network.published if b'"current_upload"' in data]
    assert {entry.reason for status in statuses for entry in status.uploads} == {words}
