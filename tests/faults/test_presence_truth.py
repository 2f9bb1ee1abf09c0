"""Presence: a dead agent is offline in time, a late will changes nothing, two devices under one id are detected.

Rule: presence is read from REST, never from the broker.
"""

import json
import time
from typing import Any, Final

import pytest

from schemas.topics import Topics
from tests.support.fault_sites import FaultSite
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Wire, connected

pytestmark = pytest.mark.slow

TOPICS: Final = Topics()
LAST: Final = 2**53 - 1
WILL_DELAY: Final = 10
KEEPALIVE: Final = 30
SLACK: Final = 10
"""Seconds that Mosquitto 2.0.11 may take beyond one and a half keepalives, and some for the control plane."""


def presence(name: str, status: str, epoch: int, sequence: int, install_id: str = "first") -> bytes:
    fields: dict[str, Any] = {"client_id": name, "status": status, "install_id": install_id, "epoch": epoch}
    return json.dumps({**fields, "sequence": sequence, "agent": {"version": "1", "protocol": [1]}}).encode()


def publish(wire: Wire, name: str, payload: bytes) -> None:
    wire.publish(TOPICS.presence(name), payload, retain=True)


def settled(site: FaultSite, wire: Wire, name: str) -> None:
    """Wait until every presence message so far is applied; the control plane applies them in their order of arrival."""
    marker = f"{name[:40]}-mark-{time.monotonic_ns()}"
    publish(wire, marker, presence(marker, "online", 1, 0))
    site.until(lambda: site.connected(marker), "the marker")


def test_a_late_will_of_an_earlier_connection_changes_nothing(site: FaultSite, name: str) -> None:
    with connected(site.broker.address.port, Connect(f"cli-{name[-40:]}")) as wire:
        publish(wire, name, presence(name, "online", 2, 0))
        publish(wire, name, presence(name, "offline", 1, LAST))
        settled(site, wire, name)
        assert site.connected(name)
        publish(wire, name, presence(name, "offline", 2, LAST))
        site.until(lambda: not site.connected(name), "the will of this connection")
        # A beat that arrives after the will of the same connection does not bring the client back.
        publish(wire, name, presence(name, "online", 2, 5))
        settled(site, wire, name)
        assert not site.connected(name)


def test_two_devices_under_one_id_stop_dispatch_with_a_reason(site: FaultSite, name: str) -> None:
    with connected(site.broker.address.port, Connect(f"cli-{name[-40:]}")) as wire:
        for epoch, install_id in ((1, "first"), (1, "second"), (2, "first")):
            publish(wire, name, presence(name, "online", epoch, 0, install_id))
        settled(site, wire, name)
        client = site.get(f"/clients/{name}")
        assert "two devices share this client id" in client["reason"]["text"]
        upload_id = site.trigger(name, site.file(name, "kept.bin", 10))
        assert site.upload(upload_id)["state"] == "queued"
        assert "two devices share this client id" in site.upload(upload_id)["reason"]["text"]


def test_two_agents_under_one_id_are_detected(site: FaultSite, name: str) -> None:
    """A cloned memory card: each agent takes over the other's connection, and each birth has another install id."""
    site.attach(name)
    cloned = site.agent(f"{name[:50]}-clone", CLIENT_ID=name)
    cloned.start()
    site.until(
        lambda: "two devices share this client id" in str(site.get(f"/clients/{name}")["reason"]),
        "the two devices to be detected",
    )
    cloned.kill()
    upload_id = site.trigger(name, site.file(name, "kept.bin", 10))
    assert site.upload(upload_id)["state"] == "queued"


def test_an_agent_that_stops_gracefully_is_offline_at_once(site: FaultSite, name: str) -> None:
    site.attach(name).terminate()
    site.until(lambda: not site.connected(name), "its `offline`", patience=WILL_DELAY - 2)
    assert site.get(f"/clients/{name}")["reason"]["text"] == "the client is offline"


def test_a_short_disconnect_does_not_make_a_client_offline(site: FaultSite, name: str) -> None:
    """The will is delayed: a client that reconnects before it is published stays online."""
    agent = site.attach(name)
    for again in range(1, 4):
        site.until(site.mqtt.cut, "a connection to cut")
        site.until(lambda times=again: agent.log.count("connected: epoch=") > times, "the agent to be back")  # type: ignore[misc]
        assert site.connected(name)


@pytest.mark.timeout(120)
def test_a_killed_or_frozen_agent_is_offline_in_time_then_online(site: FaultSite, name: str) -> None:
    killed, frozen = site.attach(f"{name[-50:]}-k"), site.attach(f"{name[-50:]}-f")
    names = {killed: f"{name[-50:]}-k", frozen: f"{name[-50:]}-f"}
    killed.kill()
    frozen.freeze()
    site.until(lambda: not site.connected(names[killed]), "the will of the killed agent", WILL_DELAY + SLACK)
    longest = 1.5 * KEEPALIVE + WILL_DELAY + SLACK
    site.until(lambda: not site.connected(names[frozen]), "the will of the frozen agent", longest)
    assert not site.connected(names[killed])
    killed.start()
    frozen.thaw()
    for name_of in names.values():
        site.until(lambda one=name_of: site.connected(one), "the agent to be back")  # type: ignore[misc]
