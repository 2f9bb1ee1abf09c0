"""Broker, sink and control plane on loopback, each a separate process with measured CPU and memory.

Rule: the broker has the caps and the logging of the shipped `mosquitto.conf`; the control plane is `backhaul serve`
with its database on the disk; only the store is not a real one.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.processes import Watched, cpu_seconds, python_module
from benchmarks.sink import COUNTS
from broker.configuration import CAPS, LOOPBACK
from broker.process import Broker, BrokerAddress
from broker.server import free_port, start_configured

ROOT: Final = Path(__file__).parents[1]
READY: Final = 60.0
BUCKET: Final = "bench"
_LOGGED: Final = ("error", "warning", "notice", "information")


@dataclass(frozen=True, slots=True)
class Counts:
    """What the sink saw: PUTs taken, PUTs onto an object that was there, bytes, and objects."""

    puts: int
    repeated: int
    bytes_taken: int
    objects: int


@dataclass(frozen=True, slots=True)
class Site:
    """All programs; their CPU is reported by name."""

    broker: Broker
    sink: Watched
    sink_url: str
    plane: Watched
    server: str

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of the three."""
        return {
            "broker": cpu_seconds(self.broker.pid),
            "control plane": cpu_seconds(self.plane.pid),
            "store sink": cpu_seconds(self.sink.pid),
        }

    def counts(self) -> Counts:
        """What the sink saw so far."""
        return Counts(*map(int, get(self.sink_url + COUNTS).split()))


def get(url: str, timeout: float = 10.0, token: str | None = None) -> bytes:
    """The body of a GET on loopback, with a bearer token where one is given."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        return connection.getresponse().read()
    finally:
        connection.close()


def get_json(url: str, token: str | None = None) -> Any:  # noqa: ANN401 - any document
    """The document of a GET on loopback."""
    return json.loads(get(url, token=token))


@contextmanager
def running_broker(directory: Path) -> Iterator[Broker]:
    """A Mosquitto on loopback that requires no password."""
    port = free_port()
    lines = [f"listener {port} {LOOPBACK}", "allow_anonymous true"]
    lines += [f"{name} {value}" for name, value in CAPS.items()]
    lines += ["persistence true", f"persistence_location {directory}/", "autosave_interval 60"]
    lines += [f"log_type {kind}" for kind in _LOGGED]
    with start_configured(directory, "\n".join(lines) + "\n", [BrokerAddress(LOOPBACK, port)]) as broker:
        yield broker


@contextmanager
def running_sink(directory: Path, certificate: Path | None = None) -> Iterator[tuple[Watched, str]]:
    """The sink and its URL."""
    port = free_port()
    more = ("--certificate", str(certificate)) if certificate else ()
    scheme = "https" if certificate else "http"
    command = python_module("benchmarks.sink", str(port), *more)
    with Watched(command, {"PYTHONPATH": str(ROOT)}, directory / f"sink-{scheme}.log") as sink:
        sink.wait_for("ready")
        yield sink, f"{scheme}://{LOOPBACK}:{port}"


@contextmanager
def running_site(
    directory: Path, settings: Mapping[str, str] | None = None, token: str | None = None
) -> Iterator[Site]:
    """All three, the control plane ready for work; `settings` are more of its settings, and `token` opens its REST."""
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker(directory / "broker"))
        sink, sink_url = stack.enter_context(running_sink(directory / "sink"))
        port = free_port()
        plane = stack.enter_context(
            Watched(
                python_module("control_plane.cli.main", "serve"),
                {**plane_settings(directory, broker.address.url, sink_url, port), **(settings or {})},
                directory / "control-plane" / "control-plane.log",
            )
        )
        server = f"http://{LOOPBACK}:{port}"
        wait_ready(server, plane, token)
        yield Site(broker, sink, sink_url, plane, server)


def plane_settings(directory: Path, mqtt_url: str, sink_url: str, port: int) -> dict[str, str]:
    """What joins a control plane to this broker and this sink."""
    return {
        "PYTHONPATH": str(ROOT),
        "SERVER_HOST": LOOPBACK,
        "SERVER_PORT": str(port),
        "MQTT_URL": mqtt_url,
        "DATABASE_URL": f"sqlite:///{directory / 'control-plane' / 'backhaul.db'}",
        "AWS_ENDPOINT": sink_url,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark-secret",
        "S3_BUCKET_NAME": BUCKET,
        "LOG_LEVEL": "warning",
    }


def wait_ready(server: str, plane: Watched, token: str | None = None) -> None:
    """Wait until the control plane has broker, database and a probed store."""
    deadline = time.monotonic() + READY
    said = ""
    while time.monotonic() < deadline:
        try:
            document = get_json(f"{server}/health/ready", token)
        except OSError as error:
            said = str(error)
        else:
            if document.get("status") == "ready":
                return
            said = str(document)
        time.sleep(0.1)
    message = f"the control plane is not ready: {said}; {plane.log_path.read_text(errors='replace')[-2000:]}"
    raise RuntimeError(message)
