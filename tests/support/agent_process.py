"""A real agent as a child process, and an owner at the other end of its topics.

Rule: the agent is driven from outside only: by MQTT, by signals, by its files.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

import pytest

from broker.process import Broker
from device_agent.state.journal import Journal, Memory
from device_agent.transfer.model import Transfer
from schemas.codec import decode, decode_response, encode
from schemas.messages import (
    CloseUpload,
    Command,
    CommandPayload,
    DownloadFile,
    GrantParts,
    Presence,
    Response,
    Status,
    UploadConfig,
    UploadReport,
)
from schemas.topics import Topics
from schemas.values import Action, PresignedPart, UploadOptions
from tests.support.brokers import mosquitto
from tests.support.crash_points import kill_traced
from tests.support.mqtt_packets import Connect, Packet
from tests.support.mqtt_wire import Wire
from tests.support.put_sink import PutSink

__all__ = ["mosquitto"]

PATIENCE: Final = 60.0
LOOK: Final = 0.1
"""Seconds between two checks of a state that no message reports."""

TOPICS: Final = Topics()


@dataclass
class AgentProcess:
    """One agent with its folder: `data` may be uploaded, `state` is its state folder."""

    client_id: str
    folder: Path
    port: int
    hosts: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.data.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def start(self, *before: str) -> None:
        """Start it; `before` is put before the command line, for a tracer."""
        environment = {
            "PATH": os.environ["PATH"],
            "CLIENT_ID": self.client_id,
            "MQTT_URL": f"mqtt://127.0.0.1:{self.port}",
            "ALLOWED_ROOTS": str(self.data),
            "UPLOAD_HOSTS": self.hosts,
            "STATE_DIR": str(self.folder / "state"),
            "LOG_LEVEL": "debug",
            **self.settings,
        }
        own = ("--env-file", str(self.folder / "none.env"), "--config-dir", str(self.folder))
        command = [*before, sys.executable, "-m", "device_agent", *own]
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, cwd=Path(__file__).parents[2])

    def file(self, name: str, content: bytes) -> Path:
        path = self.data / name
        path.write_bytes(content)
        return path

    def known(self) -> tuple[Memory, dict[str, Transfer]]:
        """The state after a power cut, read from a copy of its journal."""
        with TemporaryDirectory() as copy:
            shutil.copy(self.folder / "state" / "journal", copy)
            journal, transfers = Journal.open(Path(copy))
            journal.close()
        return journal.memory, transfers

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        if self.process is not None:
            kill_traced(self.process)
            self.process = None

    def terminate(self) -> int:
        """Terminate it, as a service manager does; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self.process = None
        return code


class Owner:
    """An owner that sends commands to one agent and receives everything that it publishes."""

    def __init__(self, port: int, client_id: str) -> None:
        self.client_id = client_id
        self.presences: list[Presence] = []
        self.statuses: list[Status] = []
        self.responses: list[Response] = []
        self._wire = Wire(port)
        self._wire.connect(Connect(f"cli-{client_id}"))
        self._ids = itertools.count(1)
        filters = (TOPICS.presence(client_id), TOPICS.status(client_id), TOPICS.response(client_id))
        self._wire.subscribe(*filters)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.drop()

    def send(self, payload: CommandPayload, action: Action, message_id: str | None = None) -> str:
        message_id = message_id or f"m{next(self._ids)}"
        self.publish(encode(Command(message_id, action, payload)))
        return message_id

    def publish(self, data: bytes) -> None:
        self._wire.publish(TOPICS.command(self.client_id), data)

    def birth(self, data: bytes) -> None:
        self._wire.publish(TOPICS.birth(), data)

    def until(self, happened: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Receive until the condition holds."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if happened():
                return
            assert left > 0, (self.presences[-1:], self.responses[-3:])
            try:
                packet = self._wire.receive(LOOK)
            except TimeoutError:
                continue
            self._wire.acknowledge(packet)
            self._read(packet)

    def listen(self, seconds: float) -> None:
        """Receive for a number of seconds."""
        for packet in self._wire.received(seconds):
            self._read(packet)

    def online(self, epoch: int = 1) -> Presence:
        self.until(lambda: any(p.status == "online" and p.epoch >= epoch for p in self.presences))
        return self.presences[-1]

    def answers(self, upload_id: str) -> list[Response]:
        """The responses about one upload."""
        return [one for one in self.responses if upload_of(one) == upload_id]

    def answer(self, upload_id: str, sequence: int, timeout: float = PATIENCE) -> Response:
        """Wait for a response with at least this sequence."""
        self.until(lambda: any((one.sequence or 0) >= sequence for one in self.answers(upload_id)), timeout)
        return self.answers(upload_id)[-1]

    def _read(self, packet: Packet) -> None:
        channel = packet.topic.rpartition("/")[2]
        if channel == "presence" and packet.payload:
            self.presences.append(decode(Presence, packet.payload))
        elif channel == "status":
            self.statuses.append(decode(Status, packet.payload))
        elif channel == "response":
            self.responses.append(decode_response(packet.payload))


def upload_of(response: Response) -> str | None:
    return response.payload.upload_id if isinstance(response.payload, UploadReport) else None


def report(response: Response) -> UploadReport:
    assert isinstance(response.payload, UploadReport)
    return response.payload


def wanted(response: Response) -> list[int]:
    return [part.part_number for part in report(response).wanted_parts]


def urls(sink: PutSink, numbers: list[int], name: str = "key") -> tuple[PresignedPart, ...]:
    return tuple(PresignedPart(n, sink.url(f"/bucket/{name}?partNumber={n}&X-Amz-Signature=CANARY")) for n in numbers)


def part_of(target: str) -> int:
    """The part number in a URL's path and query."""
    return int(target.partition("partNumber=")[2].partition("&")[0])


def begin(
    owner: Owner,
    path: Path,
    upload_id: str = "u1",
    attempt: int = 1,
    acknowledges: int = 0,
    options: UploadOptions = UploadOptions(),  # noqa: B008 - frozen
) -> None:
    config = UploadConfig(upload_id=upload_id, attempt=attempt, owner="cli-test")
    payload = DownloadFile(upload_config=config, file_path=str(path), acknowledges=acknowledges, options=options)
    owner.send(payload, Action.DOWNLOAD_FILE, f"begin-{upload_id}-{attempt}")


def grant(owner: Owner, sink: PutSink, numbers: list[int], acknowledges: int, upload_id: str = "u1") -> None:
    config = UploadConfig(upload_id=upload_id, presigned_urls=urls(sink, numbers, upload_id), expires_in=900)
    owner.send(GrantParts(upload_config=config, acknowledges=acknowledges), Action.GRANT_PARTS)


def close(owner: Owner, upload_id: str = "u1", outcome: str = "completed") -> None:
    owner.send(CloseUpload(upload_id=upload_id, attempt=1, outcome=outcome), Action.CLOSE_UPLOAD)


def bodies(sink: PutSink) -> dict[int, bytes]:
    return {part_of(put.target): put.body for put in sink.puts}


@pytest.fixture
def sink() -> Iterator[PutSink]:
    with PutSink() as running:
        yield running


@pytest.fixture
def client_id(request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    return name.replace("_", "-").replace("[", "-").replace("]", "")[-60:]


@pytest.fixture
def agent(mosquitto: Broker, sink: PutSink, tmp_path: Path, client_id: str) -> Iterator[AgentProcess]:
    with AgentProcess(client_id, tmp_path, mosquitto.address.port, sink.host_port) as running:
        yield running


@pytest.fixture
def owner(mosquitto: Broker, client_id: str) -> Iterator[Owner]:
    with Owner(mosquitto.address.port, client_id) as running:
        yield running
