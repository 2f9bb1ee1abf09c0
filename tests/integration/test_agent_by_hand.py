"""Messages as a person types them, with `mosquitto_pub`, to a real agent.

Rule: an agent that lost its connection shows a new epoch, so one epoch at the end means that no message cost it.
"""

import json
import subprocess
from pathlib import Path

import pytest

from broker.process import Broker
from control_plane.domain.clients import apply_presence
from schemas.messages import Health, HealthCheck
from schemas.values import Action
from tests.support.agent_process import TOPICS, AgentProcess, Owner, agent, client_id, mosquitto, owner, sink

__all__ = ["agent", "client_id", "mosquitto", "owner", "sink"]

# The shipped broker accepts at most QoS 1, and `mosquitto_pub -q 2` says so.
OPTIONS = {
    "plain": (),
    "q1": ("-q", "1"),
    "retained": ("-r",),
    "retained-q1": ("-r", "-q", "1"),
}


def typed(port: int, topic: str, *options: str, data: bytes | None) -> None:
    """Run `mosquitto_pub`; `data` comes from standard input, None is an empty message."""
    command = [
        "mosquitto_pub",
        "-V",
        "5",
        "-p",
        str(port),
        "-t",
        topic,
        *options,
        *(["-n"] if data is None else ["-s"]),
    ]
    subprocess.run(command, input=data, check=True, timeout=60)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_no_typed_message_costs_the_connection(
    agent: AgentProcess, owner: Owner, mosquitto: Broker, options: tuple[str, ...]
) -> None:
    """One hand-typed message must not bar a device: neither by its QoS, nor as a stored one at the next connect."""
    owner.online()
    port, command = mosquitto.address.port, TOPICS.command(agent.client_id)
    check = json.dumps({"message_id": "typed", "action": "health_check"}).encode()
    try:
        for data in (None, b"hello", b"\xff\x00\xfe", b"[" * 5_000, b"x" * 200_000, check):
            typed(port, command, *options, data=data)
            typed(port, TOPICS.birth(), *options, data=data)
        owner.until(lambda: any(one.message_id == "typed" for one in owner.responses))
        agent.terminate()
        agent.start()
        later = owner.online(epoch=2)
        owner.send(HealthCheck(), Action.HEALTH_CHECK, "last")
        owner.until(lambda: any(one.message_id == "last" for one in owner.responses))
    finally:
        for topic in (command, TOPICS.birth()):
            typed(port, topic, "-r", data=None)
    epochs = {one.epoch for one in owner.presences}
    assert epochs == {1, later.epoch}, "a connection was lost"
    assert sum(one.message_id == "typed" for one in owner.responses) == 1, "carried out once, and not at each connect"
    (last,) = [one.payload for one in owner.responses if one.message_id == "last"]
    assert isinstance(last, Health)
    assert "retained_commands" not in last.counters


def test_a_state_folder_that_went_back_continues_above_what_the_broker_remembers(
    agent: AgentProcess, owner: Owner, tmp_path: Path
) -> None:
    """A restored card or an overlay root: the owner would drop every presence with a lower epoch, for ever."""
    first = owner.online()
    agent.kill()
    saved = (tmp_path / "state" / "identity").read_bytes()
    agent.start()
    later = owner.online(epoch=first.epoch + 1)
    agent.terminate()
    (tmp_path / "state" / "identity").write_bytes(saved)
    for _ in range(2):
        # Each boot of a root that is not written begins with the same copy.
        agent.start()
        healed = owner.online(epoch=later.epoch + 1)
        assert healed.install_id == first.install_id
        births = [one.epoch for one in owner.presences if (one.status, one.sequence) == ("online", 0)]
        assert births == sorted(births), "no birth below an earlier one reached the owner"
        agent.terminate()
        (tmp_path / "state" / "identity").write_bytes(saved)
        later = healed
    assert "older copy" in agent.log


@pytest.mark.slow
def test_two_agents_with_one_copied_state_folder_become_two_installations(
    agent: AgentProcess, owner: Owner, mosquitto: Broker, tmp_path: Path
) -> None:
    """A card that is cloned after its first start. The owner reports two installations that alternate."""
    owner.online()
    agent.terminate()
    twin = AgentProcess(agent.client_id, tmp_path / "twin", mosquitto.address.port)
    (tmp_path / "twin" / "state").mkdir(parents=True)
    (tmp_path / "twin" / "state" / "identity").write_bytes((tmp_path / "state" / "identity").read_bytes())
    agent.start()
    with twin:
        owner.until(lambda: len({one.install_id for one in owner.presences if one.status == "online"}) > 1, 60.0)
        owner.until(lambda: in_conflict(owner), 60.0)
    assert "another device uses CLIENT_ID" in agent.log + twin.log


def in_conflict(owner: Owner) -> bool:
    """Whether a control plane that received the same presences reports two devices."""
    client = None
    for presence in owner.presences:
        client, _ = apply_presence(client, presence, 0.0)
    return client is not None and client.in_conflict(1.0)
