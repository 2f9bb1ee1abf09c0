"""A network that comes late: no interface, then no name server, then one that fails, then a broker.

Rule: the agent has a network namespace of its own, with a name server and a broker of the test; it is started once.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.support.bad_days.fixtures import calm, impatient, logs, waits_for_broker
from tests.support.bad_days.front import Front
from tests.support.bad_days.namespace import NameServer, Namespace
from tests.support.fault_sites import FaultSite

BROKER: Final = "broker.example"
AN_HOUR: Final = 120
"""Tries of an agent in an hour without a network: its pauses are half a minute on average."""


@pytest.mark.slow
def test_a_network_an_hour_late_is_waited_out(site: FaultSite, name: str, tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("")
    url = f"mqtt://{BROKER}:{site.mqtt.port}"
    agent = impatient(site, name, MQTT_URL=url, BAD_DAY_PAUSE="0.02")
    agent.start(*Namespace.command(resolver))
    site.until(lambda: agent.log.count("trying again in") >= AN_HOUR, "tries")
    waits_for_broker(site, agent, "name resolution")
    pid, network = agent.pid, Namespace(agent.pid)
    network.up()
    with NameServer(network, BROKER) as names:
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        site.until(lambda: names.failed > 0, "a question to the name server that fails")
        names.works = True
        logs(site, agent, "ConnectionRefusedError")
        make_mqtt, make_s3 = network.listener(site.mqtt.port), network.listener(site.s3.port)
        with Front(site.mqtt.port, make=make_mqtt), Front(site.s3.port, make=make_s3):
            site.until(lambda: site.connected(name), "the agent to connect")
            path = site.file(name, "a.bin", 1000)
            site.completed(site.trigger(name, path), path)
            assert agent.pid == pid
            assert calm(agent)
