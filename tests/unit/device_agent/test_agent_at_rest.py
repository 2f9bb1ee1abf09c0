"""An agent at rest for an hour of its clock: it publishes, and writes nothing.

Rule: every timer of the loop is one of `Agent._sleep`, so an hour of turns at the moments that it asks for runs them
all. The connection's own timers, in `device_agent.mqtt`, write to a socket only.
"""

import os
from pathlib import Path

import pytest

from device_agent.inbox import Connected, Disconnected
from tests.unit.device_agent.agent_loop import AgentLoop

HOUR = 3_600.0


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of the last change of every file."""
    found = {str(path): path.stat() for path in (folder, *folder.rglob("*"))}
    return {name: (stat.st_ino, stat.st_size, stat.st_ctime_ns) for name, stat in found.items()}


@pytest.mark.parametrize("online", [True, False])
def test_an_hour_at_rest_changes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, online: bool) -> None:
    loop = AgentLoop(tmp_path)
    loop.agent.turn([Connected()])
    if not online:
        loop.agent.turn([Disconnected("gone")])
    loop.agent.turn([])
    before, published, turns = stamps(tmp_path), len(loop.network.published), 0
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    end = loop.now + HOUR
    while loop.now < end:
        loop.now += max(0.001, loop.agent.turn([]))
        turns += 1
    assert stamps(tmp_path) == before
    assert synced == []
    beats = HOUR / 30
    assert len(loop.network.published) - published in ((beats - 1, beats, beats + 1) if online else (0,))
    # It does not wake up for nothing either.
    assert turns <= 2 * beats + 2
