"""A broker as a child process: it starts, restarts, ends with its parent, and is not confused with another process."""

import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from broker import configuration, embedded
from broker.errors import BrokerMissing, BrokerNotStarted, PortTaken
from broker.process import Broker, BrokerAddress
from broker.server import find_mosquitto, free_port, start_broker, start_configured
from tests.support.brokers import CONFIGURATION, Open, any_broker, open_wire, started
from tests.support.mqtt_packets import Connect, Property

__all__ = ["any_broker", "open_wire"]


def ends(pid: int) -> bool:
    """Whether the process ends within five seconds."""
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def own(any_broker: Broker, tmp_path: Path) -> Broker:
    """A broker of each kind that a test may stop."""
    return started(tmp_path, any_broker.kind)


def test_it_listens_once_it_is_started(any_broker: Broker, open_wire: Open) -> None:
    assert any_broker.alive
    assert any_broker.address.url == f"mqtt://127.0.0.1:{any_broker.address.port}"
    open_wire(any_broker.address.port, Connect("first")).ping()


def test_it_stops_and_starts_again_at_the_same_address(own: Broker) -> None:
    with own:
        address, pid = own.address, own.pid
        own.stop()
        assert not own.alive
        own.stop()
        own.start()
        assert own.address == address
        assert own.pid != pid
        own.restart()
        own.kill()
        assert not own.alive
        own.restart()
        assert own.alive
    assert not own.alive


def test_without_a_process_there_is_no_pid(own: Broker) -> None:
    own.stop()
    with pytest.raises(BrokerNotStarted, match="not running"):
        _ = own.pid


def test_a_frozen_broker_is_stopped_by_force(own: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.child_process.STOP_TIMEOUT", 0.2)
    own.send(signal.SIGSTOP)
    own.stop()
    assert not own.alive


def test_a_signal_to_a_broker_that_is_ending_is_no_error(own: Broker) -> None:
    """The process may be gone, and reaped by its thread, between a look whether it runs and the signal."""
    os.kill(own.pid, signal.SIGKILL)
    while own.alive:
        own.send(signal.SIGCONT)
    own.send(signal.SIGCONT)
    assert not own.alive


def test_it_notices_that_its_process_was_killed(own: Broker) -> None:
    pid = own.pid
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)
    for _ in range(100):
        if not own.alive:
            break
        time.sleep(0.01)
    assert not own.alive


@pytest.mark.parametrize("end", ["sys.exit()", "os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_it_ends_with_its_parent(any_broker: Broker, tmp_path: Path, end: str) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from broker.server import start_broker
print(start_broker(Path({str(tmp_path)!r}), kind={any_broker.kind!r}).pid, flush=True)
{end}
"""
    parent = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert ends(int(parent.stdout))


def test_it_outlives_the_thread_that_started_it(any_broker: Broker, tmp_path: Path) -> None:
    brokers: list[Broker] = []
    thread = threading.Thread(target=lambda: brokers.append(started(tmp_path, any_broker.kind)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with brokers[0] as broker:
        assert broker.alive


def test_a_port_that_another_process_uses_is_reported_as_taken(any_broker: Broker, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"mqtt://127.0.0.1:{port}.*ended with code 1.*broker.log ends:"):
            start_broker(tmp_path, kind=any_broker.kind, port=port)


def test_a_port_taken_in_the_meantime_is_replaced_by_another(
    any_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [any_broker.address.port, free_port()]
    monkeypatch.setattr("broker.server.free_port", lambda: ports.pop(0))
    with start_broker(tmp_path, kind=any_broker.kind) as broker:
        assert broker.address.port != any_broker.address.port


def test_a_free_port_is_outside_the_range_of_outgoing_ports() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 1024 < free_port() < low


def test_a_free_port_is_another_one_each_time_even_with_a_seeded_random() -> None:
    """The user of the last port may not listen yet, and another process may have the same seed."""
    state = random.getstate()
    try:
        random.seed(7)
        first = [free_port() for _ in range(50)]
        random.seed(7)
        second = [free_port() for _ in range(50)]
    finally:
        random.setstate(state)
    assert len({*first, *second}) == 100


def test_a_configuration_with_an_error_shows_the_last_lines_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(BrokerNotStarted, match=r"(?s)broker.log ends:.*Unknown configuration variable .?nonsense"):
        start_configured(tmp_path, "nonsense true\n", [BrokerAddress("127.0.0.1", free_port())])


def test_mosquitto_is_found_off_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_mosquitto() is not None


@pytest.mark.parametrize("kind", ["auto", "mosquitto", "embedded"])
def test_without_any_program_one_error_names_both_remedies(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.server.find_mosquitto", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BrokerMissing, match=r"apt-get install mosquitto.*pip install 'backhaul\[demo\]'"):
        start_broker(tmp_path, kind=kind)  # type: ignore[arg-type]


def test_without_mosquitto_the_embedded_broker_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.server.find_mosquitto", lambda: None)
    with start_broker(tmp_path) as broker:
        assert broker.kind == "embedded"


def test_the_embedded_broker_refuses_any_address_but_loopback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        embedded.main(["--port", "1", "--directory", str(tmp_path), "--host", "0.0.0.0"])  # noqa: S104
    assert "no access list" in capsys.readouterr().err


def test_an_orderly_stop_keeps_sessions_and_retained_messages(tmp_path: Path, open_wire: Open) -> None:
    with started(tmp_path, "mosquitto", persistence=True) as broker:
        device = Connect("device", clean_start=False, properties={Property.SESSION_EXPIRY: 600})
        open_wire(broker.address.port, device).subscribe("a")
        open_wire(broker.address.port, Connect("writer")).publish("b", b"online", retain=True)
        broker.restart()
        assert open_wire(broker.address.port, device).session_present
        reader = open_wire(broker.address.port, Connect("reader"))
        reader.subscribe("b")
        assert reader.receive().payload == b"online"


@pytest.mark.parametrize("damage", ["garbage", "truncated", "a foreign header"])
def test_a_database_that_cannot_be_opened_is_moved_aside(damage: str, tmp_path: Path, open_wire: Open) -> None:
    with started(tmp_path, "mosquitto", persistence=True) as broker:
        open_wire(broker.address.port, Connect("writer")).publish("b", b"x" * 5000, retain=True)
        broker.stop()
        database = tmp_path / configuration.DATABASE
        good = database.read_bytes()
        bad = {"garbage": os.urandom(4096), "truncated": good[: len(good) // 2], "a foreign header": b"x" + good}
        database.write_bytes(bad[damage])
        broker.start()
        (aside,) = tmp_path.glob("mosquitto.db.bad-*")
        assert aside.read_bytes() == bad[damage]
        open_wire(broker.address.port, Connect("reader")).ping()


def test_an_error_that_is_not_the_database_leaves_it_alone(tmp_path: Path) -> None:
    with started(tmp_path, "mosquitto", persistence=True) as broker:
        broker.stop()
        with socket.create_server(("127.0.0.1", broker.address.port)), pytest.raises(PortTaken):
            broker.start()
    assert list(tmp_path.glob("mosquitto.db.bad-*")) == []


def test_development_and_production_have_the_same_caps() -> None:
    shipped = CONFIGURATION.read_text()
    assert {name: configuration.option(shipped, name) for name in configuration.CAPS} == configuration.CAPS
