"""What the agent reports to a service manager, at a real datagram socket."""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from device_agent import agent as loop
from device_agent.inbox import Connected, Disconnected
from device_agent.service_manager import PATIENCE, PULSES, Notifier, status_line
from tests.support.notify_socket import NotifySocket
from tests.unit.device_agent.agent_loop import AgentLoop

ALIVE = "WATCHDOG=1"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as one:
        yield one


def settled(listening: NotifySocket, manager: Notifier) -> list[str]:
    """What has arrived up to now: a message is behind all earlier ones."""
    manager._send("END=1")
    listening.until_line("END=1")
    lines = [line for line in listening.lines if line != "END=1"]
    listening.lines.clear()
    return lines


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_status_and_stopping_arrive_at_a_path_and_at_an_abstract_name(tmp_path: Path, *, abstract: bool) -> None:
    address = f"@backhaul-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with NotifySocket(address) as listening:
        manager = Notifier.of({"NOTIFY_SOCKET": address}, os.getpid())
        manager.ready()
        manager.show("online", 1.0)
        manager.stopping()
        assert settled(listening, manager) == ["READY=1", "STATUS=online", "STOPPING=1", "STATUS=stopping"]


def test_without_a_service_manager_nothing_is_sent_and_no_thread_runs() -> None:
    before = threading.active_count()
    manager = Notifier.of({"WATCHDOG_USEC": "1000000"}, os.getpid())
    for call in (manager.ready, manager.turned, manager.pass_on, manager.stopping):
        call()
    manager.show("online", 1.0)
    assert (manager.pulse, manager.next_at, threading.active_count()) == (None, None, before)


@pytest.mark.parametrize(
    ("environ", "pulse"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "180000000"}, 180 / PULSES),
        ({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "77"}, 180 / PULSES),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_counts_for_the_process_that_it_names(environ: dict[str, str], pulse: float | None) -> None:
    assert Notifier.of({"NOTIFY_SOCKET": "@x", **environ}, 77).pulse == pulse


def test_a_loop_that_turns_is_alive_and_one_that_is_stuck_is_not(listening: NotifySocket) -> None:
    manager = Notifier(listening.address)
    manager.turned()
    manager.pass_on()
    assert settled(listening, manager) == [ALIVE]
    manager.pass_on()
    assert settled(listening, manager) == [], "it has not turned since"


def test_a_loop_that_waits_for_a_disk_or_stops_is_alive(listening: NotifySocket) -> None:
    manager = Notifier(listening.address)
    with manager.waiting_for_disk():
        for _ in range(5):
            manager.pass_on()
    assert settled(listening, manager) == [ALIVE] * 5
    manager.pass_on()
    manager.pass_on()
    assert settled(listening, manager) == [ALIVE], "once for the end of the wait"
    with pytest.raises(OSError, match="full"), manager.waiting_for_disk():
        raise OSError("full")  # noqa: EM101
    manager.pass_on()
    manager.pass_on()
    assert settled(listening, manager) == [ALIVE]
    manager.stopping()
    manager.pass_on()
    manager.pass_on()
    assert settled(listening, manager)[2:] == [ALIVE] * 2


def test_signs_of_life_go_on_while_the_loop_turns(listening: NotifySocket) -> None:
    manager = Notifier(listening.address, watchdog=0.03)
    manager.ready()
    for _ in range(4):
        before = listening.count(ALIVE)
        manager.turned()
        listening.until(lambda lines, before=before: lines.count(ALIVE) > before)  # type: ignore[misc]
    manager.close()
    assert listening.lines[0] == "READY=1"


def test_a_status_is_sent_when_it_changes_and_at_most_once_a_second(listening: NotifySocket) -> None:
    manager = Notifier(listening.address)
    manager.show("a", 100.0)
    manager.show("a", 200.0)
    assert (settled(listening, manager), manager.next_at) == (["STATUS=a"], None)
    manager.show("b", 100.0 + PATIENCE / 2)
    manager.show("c\nREADY=1", 100.0 + PATIENCE / 2)
    assert (settled(listening, manager), manager.next_at) == ([], 100.0 + PATIENCE)
    manager.show("c\nREADY=1", 100.0 + PATIENCE)
    assert (settled(listening, manager), manager.next_at) == (["STATUS=c READY=1"], None)


def test_a_service_manager_that_is_away_or_does_not_read_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = Notifier(str(tmp_path / "none"))
    away.ready()
    away.stopping()
    deaf = tmp_path / "deaf"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unread, caplog.at_level(logging.WARNING):
        unread.bind(str(deaf))
        full = Notifier(str(deaf))
        full.turned()
        for _ in range(5_000):
            full.turned()
            full.pass_on()
    assert [record.getMessage() for record in caplog.records] == [
        "the service manager takes no message: No such file or directory",
        "the service manager takes no message: Resource temporarily unavailable",
    ]


@pytest.mark.parametrize(
    ("broker", "reason", "uploads", "failure", "line"),
    [
        (None, "", 0, None, "connecting; 0 uploads"),
        ("mqtt://b", "", 1, None, "online at mqtt://b; 1 upload"),
        (None, "the broker is gone", 2, None, "offline: the broker is gone; 2 uploads"),
        ("mqtt://b", "", 2, "the disk is full", "online at mqtt://b; 2 uploads; the disk is full"),
    ],
)
def test_the_status_is_a_line_for_a_person(
    broker: str | None, reason: str, uploads: int, failure: str | None, line: str
) -> None:
    assert status_line(broker, offline_for=reason, uploads=uploads, failure=failure) == line


# The loop.


def test_the_loop_sleeps_less_than_half_of_the_watchdog(listening: NotifySocket, tmp_path: Path) -> None:
    for watchdog, longest in ((30.0, 10.0), (3_600.0, loop._LONGEST_SLEEP)):
        manager = Notifier(listening.address, watchdog)
        agent = AgentLoop(tmp_path / str(watchdog), manager=manager).agent
        sleep = agent.turn(())
        assert sleep <= longest <= watchdog / 2
        manager.pass_on()
        assert ALIVE in settled(listening, manager)


def test_the_loop_reports_its_connection_and_its_uploads(listening: NotifySocket, tmp_path: Path) -> None:
    manager = Notifier(listening.address)
    running = AgentLoop(tmp_path / "state", manager=manager)
    running.now = 10.0
    running.agent.turn(())
    running.now = 20.0
    running.agent.turn([Connected()])
    running.now = 30.0
    running.sending()
    running.now = 40.0
    running.agent.turn([Disconnected("the broker ended the connection")])
    assert settled(listening, manager) == [
        "STATUS=connecting; 0 uploads",
        "STATUS=online at mqtt://localhost:1883; 0 uploads",
        "STATUS=online at mqtt://localhost:1883; 1 upload",
        "STATUS=offline: the broker ended the connection; 1 upload",
    ]


def test_the_loop_is_ready_when_it_has_turned_once_and_says_when_it_stops(
    listening: NotifySocket, tmp_path: Path
) -> None:
    running = AgentLoop(tmp_path / "state", manager=Notifier(listening.address))
    running.agent.stop()
    running.agent.run()
    listening.until_line("STOPPING=1")
    assert [line for line in listening.lines if not line.startswith("STATUS=")] == ["READY=1", "STOPPING=1"]
    assert running.happened == ["cut", "published offline"]


def test_a_commit_of_the_loop_counts_as_a_wait_for_the_disk(
    listening: NotifySocket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Notifier(listening.address)
    running = AgentLoop(tmp_path / "state", manager=manager)
    commit, alive = running.journal.commit, []

    def slow() -> None:
        settled(listening, manager)
        for _ in range(3):
            manager.pass_on()
        alive.append(settled(listening, manager))
        commit()

    monkeypatch.setattr(running.journal, "commit", slow)
    running.sending()
    assert alive
    assert all(lines == [ALIVE] * 3 for lines in alive)


def test_ready_waits_for_a_service_manager_with_a_full_queue(tmp_path: Path) -> None:
    """Without it systemd ends the agent after its time for a start; a sign of life may be lost."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as busy:
        busy.bind(address)
        busy.settimeout(60)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others, suppress(BlockingIOError):
            others.settimeout(0)
            while True:
                others.sendto(b"STATUS=starting", address)
        arrived: list[bytes] = []

        def read_all() -> None:
            while arrived[-1:] != [b"READY=1"]:
                arrived.append(busy.recv(100))

        # Later than the first try of `ready`; the test holds too where it is not.
        reading = threading.Timer(0.2, read_all)
        reading.start()
        Notifier(address).ready()
        reading.join(60)
    assert arrived[-1] == b"READY=1"


def test_an_address_that_the_kernel_does_not_take_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier(str(tmp_path / ("x" * 200))).ready()
    assert "takes no message: AF_UNIX path too long" in caplog.text
