"""Signals and streams at real processes: a second signal ends each program, a full stream stops none.

Rule: a program that hangs is made to hang by its neighbours (a stopped broker, a connection that stays open), not by a
change of the program.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from broker.child_process import clean_environment
from broker.server import Broker, free_port
from tests.support.brokers import mosquitto
from tests.support.patience import came_true

__all__ = ["mosquitto"]

PIPE: Final = 4096
ENDS: Final = 15.0
"""Seconds within which a program that got a signal is gone, on a busy machine."""


@contextmanager
def serving(
    folder: Path, settings: Mapping[str, str], *, ignored: tuple[int, ...] = (), stderr: int | None = None
) -> Iterator["Serving"]:
    """`backhaul serve`, with some signals ignored as `nohup` or a shell do it."""
    port = free_port()
    script = (
        "import signal, os, sys\n"
        # This process may itself be the background job of a shell.
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        f"for number in {[*map(int, ignored)]}: signal.signal(number, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, '-P', '-m', 'control_plane.cli.main', 'serve'])\n"
    )
    environment = clean_environment(
        {
            "SERVER_PORT": str(port),
            "DATABASE_URL": f"sqlite:///{folder / 'backhaul.db'}",
            "AWS_ENDPOINT": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "S3_BUCKET_NAME": "bucket",
            **settings,
        }
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", script], env=environment, cwd=folder, stderr=log if stderr is None else stderr
        )
    try:
        yield Serving(process, port)
    finally:
        process.kill()
        process.wait()


class Serving:
    """The process and its port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        assert came_true(self.listens, 40)

    def listens(self) -> bool:
        """Whether it takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_control_plane_that_waits_for_its_broker(
    tmp_path: Path, mosquitto: Broker, number: signal.Signals
) -> None:
    """The first signal waits for the broker's answer to DISCONNECT, among others; the second one for nothing."""
    with serving(tmp_path, {"MQTT_URL": mosquitto.address.url}) as serve:
        assert came_true(lambda: b"broker.connected" in (tmp_path / "log").read_bytes(), 40)
        mosquitto.send(signal.SIGSTOP)
        try:
            serve.process.send_signal(number)
            assert came_true(lambda: not serve.listens(), ENDS, pause=0.01)
            serve.process.send_signal(number)
            assert serve.process.wait(ENDS) == -number
        finally:
            mosquitto.send(signal.SIGCONT)


@pytest.mark.slow
def test_a_control_plane_ends_at_the_first_signal_while_its_broker_is_frozen(tmp_path: Path, mosquitto: Broker) -> None:
    """A cancellation is never taken for a lost connection."""
    with serving(tmp_path, {"MQTT_URL": mosquitto.address.url}) as serve:
        assert came_true(lambda: b"broker.connected" in (tmp_path / "log").read_bytes(), 40)
        mosquitto.send(signal.SIGSTOP)
        try:
            serve.process.terminate()
            assert serve.process.wait(ENDS) in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
        finally:
            mosquitto.send(signal.SIGCONT)


@pytest.mark.slow
def test_a_second_signal_ends_an_agent_that_waits_for_its_broker(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {"CLIENT_ID": "one", "MQTT_URL": f"mqtt://127.0.0.1:{silent.getsockname()[1]}"}
        settings |= {"STATE_DIR": str(tmp_path / "state"), "FILE_PATH": str(tmp_path / "log")}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "device_agent"], env=clean_environment(settings), cwd=tmp_path
        )
        try:
            # It takes signals before it connects; its broker accepts and never answers.
            silent.settimeout(40)
            connection, _ = silent.accept()
            with connection:
                process.terminate()
                process.terminate()
                assert process.wait(ENDS) in {0, 128 + signal.SIGTERM}
        finally:
            process.kill()


@pytest.mark.slow
def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """A shell ignores SIGINT for its background jobs, and `nohup` SIGHUP."""
    with serving(tmp_path, {}, ignored=(signal.SIGINT, signal.SIGHUP)) as serve:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGINT):
            serve.process.send_signal(number)
        assert serve.listens()
        serve.process.terminate()
        assert serve.process.wait(ENDS) is not None


@pytest.mark.slow
def test_a_reader_of_the_log_that_stalls_does_not_stop_the_control_plane(tmp_path: Path) -> None:
    """A pipe takes so many bytes; then a write to it waits for its reader."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    waiting = array("i", [0])

    def full() -> bool:
        fcntl.ioctl(reading, termios.FIONREAD, waiting)
        return waiting[0] > PIPE / 2

    try:
        with serving(tmp_path, {"LOG_LEVEL": "DEBUG"}, stderr=writing) as serve:
            assert came_true(full, 40)
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", serve.port), timeout=ENDS) as caller:
                    caller.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    assert caller.recv(12) == b"HTTP/1.1 200"
            serve.process.terminate()
            assert serve.process.wait(ENDS) is not None
    finally:
        os.close(reading)
        os.close(writing)
