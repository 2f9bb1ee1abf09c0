"""Overload: queues that overflow and a fleet that reconnects at once delay uploads and lose none."""

import json
from pathlib import Path

import pytest

from broker.configuration import LOOPBACK, development_mosquitto
from broker.process import BrokerAddress
from broker.server import free_port, start_configured
from schemas.topics import Topics
from tests.support.fault_sites import MIB, FaultSite, running_site
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Wire, connected

TOPICS = Topics()
CLIENTS = 200


@pytest.mark.slow
def test_commands_dropped_by_a_full_broker_queue_are_sent_again(tmp_path: Path, name: str) -> None:
    """Mosquitto drops the newest message and acknowledges it as usual."""
    port = free_port()
    text = development_mosquitto(port=port, directory=tmp_path / "broker", persistence=False)
    text = text.replace("max_queued_messages 200", "max_queued_messages 2")
    broker = start_configured(tmp_path / "broker", text, [BrokerAddress(LOOPBACK, port)])
    with running_site(tmp_path, broker=broker) as site:
        agent = site.attach(name)
        paths = [site.file(name, f"{number}.bin", 1000 + number) for number in range(30)]
        agent.freeze()
        uploads = {site.trigger(name, path): path for path in paths}
        agent.thaw()
        for upload_id, path in uploads.items():
            site.completed(upload_id, path)
        assert "Outgoing messages are being dropped" in broker.log_path.read_text()


def born(port: int, name: str, epoch: int) -> Wire:
    """A raw client that connects like an agent: it subscribes, publishes `online`, and publishes a hello."""
    wire = connected(port, Connect(name))
    wire.subscribe(TOPICS.command(name), TOPICS.birth())
    presence = {"client_id": name, "status": "online", "install_id": name, "epoch": epoch, "sequence": 0}
    wire.publish(TOPICS.presence(name), json.dumps({**presence, "agent": {"protocol": [1]}}).encode(), retain=True)
    payload = {"install_id": name, "active": [], "more": False}
    hello = {"message_id": f"h{epoch}", "action": "hello", "status": "success", "epoch": epoch, "payload": payload}
    wire.publish(TOPICS.response(name), json.dumps(hello).encode())
    return wire


def resident(site: FaultSite) -> int:
    """Resident memory of the control plane in bytes."""
    status = Path(f"/proc/{site.plane.pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def test_a_fleet_that_reconnects_at_once_takes_bounded_memory(site: FaultSite, name: str) -> None:
    names = [f"storm-{number}" for number in range(CLIENTS)]
    wires = [born(site.broker.address.port, one, 1) for one in names]
    try:
        site.until(lambda: online(site) >= CLIENTS, "the fleet")
        before = resident(site)
        site.broker.kill()
        site.broker.start()
        wires += [born(site.broker.address.port, one, 2) for one in names]
        site.until(lambda: online(site) >= CLIENTS and site.ready(), "the fleet to be back")
        path = site.file(name, "small.bin", 1000)
        site.attach(name)
        site.completed(site.trigger(name, path), path)
        assert resident(site) - before < 64 * MIB
    finally:
        for wire in wires:
            wire.drop()


def online(site: FaultSite) -> int:
    """The number of connected clients of the reconnect storm."""
    clients = site.get("/clients?limit=500")["clients"]
    return sum(one["connected"] and one["client_id"].startswith("storm-") for one in clients)
