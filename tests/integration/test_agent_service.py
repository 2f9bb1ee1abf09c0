"""A real agent under a service manager that the test plays: ready, online, alive on a slow disk, stopping."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.process import Broker
from device_agent.service_manager import PULSES
from tests.support.agent_process import AgentProcess, Owner, begin, mosquitto
from tests.support.notify_socket import NotifySocket
from tests.support.patience import came_true

__all__ = ["mosquitto"]

ALIVE = "WATCHDOG=1"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as one:
        yield one


def test_an_agent_is_ready_then_online_then_stopping(
    mosquitto: Broker, listening: NotifySocket, tmp_path: Path
) -> None:
    settings = {"NOTIFY_SOCKET": listening.address, "WATCHDOG_USEC": "600000000"}
    with AgentProcess("service-1", tmp_path, mosquitto.address.port, settings=settings) as agent:
        listening.until_line(f"STATUS=online at mqtt://127.0.0.1:{mosquitto.address.port}; 0 uploads")
        assert "READY=1" in listening.lines
        assert agent.terminate() == 0
        listening.until_line("STOPPING=1")
    assert "Traceback" not in agent.log


def test_an_agent_is_ready_without_a_network(listening: NotifySocket, tmp_path: Path) -> None:
    with AgentProcess("service-2", tmp_path, 1, settings={"NOTIFY_SOCKET": listening.address}):
        listening.until_line("READY=1")
        listening.until_line("STATUS=connecting; 0 uploads")
        assert not any(line.startswith("STATUS=online") for line in listening.lines)


def test_an_agent_that_the_watchdog_ends_writes_where_it_was(listening: NotifySocket, tmp_path: Path) -> None:
    with AgentProcess("service-3", tmp_path, 1, settings={"NOTIFY_SOCKET": listening.address}) as agent:
        listening.until_line("READY=1")
        assert agent.process is not None
        agent.process.send_signal(signal.SIGABRT)
        assert agent.process.wait(60) == -signal.SIGABRT
        assert came_true(lambda: "Fatal Python error: Aborted" in agent.log, 30)
    assert "device_agent/agent.py" in agent.log


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_agent_on_a_slow_disk_stays_alive(mosquitto: Broker, listening: NotifySocket, tmp_path: Path) -> None:
    """Each fsync takes five periods of the watchdog."""
    settings = {"NOTIFY_SOCKET": listening.address, "WATCHDOG_USEC": "400000"}
    agent = AgentProcess("service-4", tmp_path, mosquitto.address.port, settings=settings)
    agent.data.mkdir()
    slow = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=2000000")
    agent.start("strace", "-f", "-qq", "-o", "/dev/null", *slow)
    try:
        with Owner(mosquitto.address.port, agent.client_id) as owner:
            owner.until(lambda: any(one.status == "online" for one in owner.presences), timeout=60)
            alive = listening.count(ALIVE)
            begin(owner, agent.file("a.bin", b"x" * 1000), "slow")
            owner.until(lambda: owner.answers("slow"), timeout=60)
        assert listening.count(ALIVE) - alive >= PULSES
    finally:
        agent.kill()
