"""`backhaul-agent requests`, as a person types it beside a real agent whose policy asks."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.process import Broker
from tests.support.agent_process import (
    AgentProcess,
    Owner,
    begin,
    bodies,
    client_id,
    grant,
    mosquitto,
    owner,
    sink,
    wanted,
)
from tests.support.patience import came_true
from tests.support.put_sink import PutSink
from tests.support.screen import run_in_terminal

__all__ = ["client_id", "mosquitto", "owner", "sink"]

PATIENCE = 60.0

POLICY = """
[classes.camera]
paths = ["camera-*"]
consent = "ask"
"""


@pytest.fixture
def agent(mosquitto: Broker, sink: PutSink, tmp_path: Path, client_id: str) -> Iterator[AgentProcess]:
    policy = tmp_path / "rules"
    policy.write_text(POLICY)
    policy.chmod(0o644)
    running = AgentProcess(client_id, tmp_path, mosquitto.address.port, sink.host_port, {"POLICY_FILE": str(policy)})
    with running:
        yield running


def environment(agent: AgentProcess) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "CLIENT_ID": agent.client_id, "STATE_DIR": str(agent.folder / "state")}


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "device_agent", "requests", *options]


def run(agent: AgentProcess, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*options), env=environment(agent), capture_output=True, text=True, timeout=60, check=False
    )


def waiting(agent: AgentProcess) -> list[str]:
    return [one["upload_id"] for one in json.loads(run(agent, "--json").stdout)]


@pytest.mark.slow
def test_a_person_approves_one_upload_and_denies_another(agent: AgentProcess, owner: Owner, sink: PutSink) -> None:
    owner.online()
    first, second = agent.file("camera-1.jpg", b"one"), agent.file("camera-2.jpg", b"two")
    begin(owner, first, "u1")
    begin(owner, second, "u2")
    assert came_true(lambda: waiting(agent) == ["u1", "u2"], PATIENCE)
    owner.until(
        lambda: any((one.reason or "").startswith("device_consent: ") for s in owner.statuses for one in s.uploads)
    )
    screen = run_in_terminal(command(), columns=80, env={**environment(agent), "LC_ALL": "C"})
    assert f"{first}" in screen.text.replace("\n", "")
    assert "class camera, asked by cli-test, upload u1" in " ".join(screen.text.split())

    # The approval outlives a power cut.
    assert run(agent, "approve", "u1").returncode == 0
    agent.kill()
    agent.start()
    owner.online(epoch=2)
    assert wanted(owner.answer("u1", 1)) == [1]
    grant(owner, sink, [1], 1)
    owner.until(lambda: any(one.status == "success" for one in owner.answers("u1")))
    assert bodies(sink) == {1: b"one"}

    assert came_true(lambda: waiting(agent) == ["u2"], PATIENCE)
    denied = run(agent, "deny", "--all", "--json")
    assert [one["upload_id"] for one in json.loads(denied.stdout)["done"]] == ["u2"]
    refused = owner.answer("u2", 1)
    assert (refused.status, refused.error) == ("rejected", "path_not_allowed")
    assert run(agent, "approve", "u2").returncode == 1
    assert waiting(agent) == []
    assert "no upload waits for consent" in run(agent).stdout


def test_a_verdict_without_an_upload_or_without_an_agent_is_2(tmp_path: Path) -> None:
    none = AgentProcess("none", tmp_path, 1)
    for options in (("approve",), ("deny", "u1", "--all"), (), ("approve", "u1")):
        assert run(none, *options).returncode == 2
