"""Who is there: a dead agent is offline in time, a late will never wins, two devices under one name are told apart."""

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
"""Seconds that Mosquitto 2.0.11 may take beyond one and a half keepalives, and some for us."""


def presence(name: str, status: str, epoch: int, sequence: int, install_id: str = "first") -> bytes:
    fields: dict[str, Any] = {"client_id": name, "status": status, "install_id": install_id, "epoch": epoch}
    return json.dumps({**fields, "sequence": sequence, "agent": {"version": "1", "protocol": [1]}}).encode()


def tell(wire: Wire, name: str, payload: bytes) -> None:
    wire.publish(TOPICS.presence(name), payload, retain=True)


def settled(site: FaultSite, wire: Wire, name: str) -> None:
    """Everything said so far has been applied: presence is applied in the order in which it came."""
    marker = f"{name[:40]}-mark-{time.monotonic_ns()}"
    tell(wire, marker, presence(marker, "online", 1, 0))
    site.until(lambda: site.connected(marker), "the marker")


def test_a_late_will_of_an_earlier_connection_never_beats_the_birth_of_this_one(site: FaultSite, name: str) -> None:
    with connected(site.broker.address.port, Connect(f"cli-{name[-40:]}")) as wire:
        tell(wire, name, presence(name, "online", 2, 0))
        tell(wire, name, presence(name, "offline", 1, LAST))
        settled(site, wire, name)
        assert site.connected(name)
        tell(wire, name, presence(name, "offline", 2, LAST))
        site.until(lambda: not site.connected(name), "the will of this connection")
        # A beat that was overtaken by the will of its own connection does not bring it back.
        tell(wire, name, presence(name, "online", 2, 5))
        settled(site, wire, name)
        assert not site.connected(name)


def test_two_devices_under_one_name_stop_dispatch_and_say_so(site: FaultSite, name: str) -> None:
    with connected(site.broker.address.port, Connect(f"cli-{name[-40:]}")) as wire:
        for epoch, install_id in ((1, "first"), (1, "second"), (2, "first")):
            tell(wire, name, presence(name, "online", epoch, 0, install_id))
        settled(site, wire, name)
        client = site.get(f"/clients/{name}")
        assert "two devices share this client id" in client["reason"]
        upload_id = site.trigger(name, site.file(name, "kept.bin", 10))
        assert site.upload(upload_id)["state"] == "queued"
        assert "two devices share this client id" in site.upload(upload_id)["reason"]


def test_two_agents_under_one_name_are_told_apart_though_the_broker_keeps_only_one(site: FaultSite, name: str) -> None:
    """A card that was cloned: each connection ends the other's, and each birth is one of another installation."""
    site.attach(name)
    cloned = site.agent(f"{name[:50]}-clone", CLIENT_ID=name)
    cloned.start()
    site.until(
        lambda: "two devices share this client id" in (site.get(f"/clients/{name}")["reason"] or ""),
        "the two to be told apart",
    )
    cloned.kill()
    upload_id = site.trigger(name, site.file(name, "kept.bin", 10))
    assert site.upload(upload_id)["state"] == "queued"


def test_an_agent_that_leaves_in_order_is_offline_at_once(site: FaultSite, name: str) -> None:
    site.attach(name).terminate()
    site.until(lambda: not site.connected(name), "its goodbye", patience=8)
    assert site.get(f"/clients/{name}")["reason"] == "the client is offline"


def test_a_short_cut_of_the_connection_is_no_absence(site: FaultSite, name: str) -> None:
    """The will is delayed: a client that is back in time never was offline."""
    agent = site.attach(name)
    for again in range(1, 4):
        site.until(site.mqtt.cut, "a connection to cut")
        site.until(lambda times=again: agent.log.count("connected: epoch=") > times, "it to be back")  # type: ignore[misc]
        assert site.connected(name)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_agent_that_dies_or_freezes_is_offline_in_time_and_online_when_it_is_back(
    site: FaultSite, name: str
) -> None:
    killed, frozen = site.attach(f"{name[-50:]}-k"), site.attach(f"{name[-50:]}-f")
    names = {killed: f"{name[-50:]}-k", frozen: f"{name[-50:]}-f"}
    killed.kill()
    frozen.freeze()
    site.until(lambda: not site.connected(names[killed]), "the killed one's will", WILL_DELAY + SLACK)
    longest = 1.5 * KEEPALIVE + WILL_DELAY + SLACK
    site.until(lambda: not site.connected(names[frozen]), "the frozen one's will", longest)
    assert not site.connected(names[killed])
    killed.start()
    frozen.thaw()
    for name_of in names.values():
        site.until(lambda one=name_of: site.connected(one), "it to be back")  # type: ignore[misc]
