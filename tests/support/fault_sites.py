"""A site for fault tests: real processes, an object store that fails on request, proxies between agents and servers.

Rule: every process is started and ended here, by its process id; `reset` undoes every fault.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
import pytest

from broker.child_process import ChildProcess
from broker.server import Broker, free_port, start_broker
from control_plane.cli.site.stack import BUCKET
from tests.support.crash_points import kill_children
from tests.support.patience import came_true
from tests.support.proxy import Proxy
from tests.support.s3_servers import S3Server
from tests.support.strict_s3 import Operation, StoreEvent, StrictControl, received, start_strict_process

AGENT: Final = (sys.executable, "-m", "device_agent", "--config-dir", "agent.d")
SERVE: Final = (sys.executable, "-m", "control_plane.cli.main", "serve")
PATIENCE: Final = 60.0
MIB: Final = 1024 * 1024
CHUNK: Final = 5 * MIB
TERMINAL: Final = frozenset({"completed", "failed", "rejected", "cancelled", "expired"})
STEP_TIMEOUT: Final = 10
"""`CLIENT_TIMEOUT` of these sites, in seconds: the longest time until a lost message is sent again.

An upload that a test lets stand still, or whose agent it freezes, fails after three of these: longer than a busy
machine takes for what the test does meanwhile, such as a start of the control plane.
"""

FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class SiteProcess:
    """One program of this project that is killed, frozen and started again, always with the same settings."""

    def __init__(self, command: Sequence[str], settings: Mapping[str, str], log_path: Path) -> None:
        self.command = command
        self.settings = dict(settings)
        self.log_path = log_path
        self._program: ChildProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id; the program must run."""
        assert self._program is not None
        return self._program.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, frozen or not."""
        return self._program is not None and self._program.alive

    @property
    def log(self) -> str:
        """Its log over all its starts."""
        return self.log_path.read_text(errors="replace")

    def start(self, *before: str, **settings: str) -> None:
        """Start it if it does not run. `before` is put before the command line, for example a tracer."""
        if not self.alive:
            given = {**self.settings, **settings}
            self._program = ChildProcess((*before, *self.command), settings=given, log_path=self.log_path)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._program is not None:
            self._program.send(number)

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, like a power cut; returns when it has ended. A traced program is the child of its tracer."""
        if self._program is not None:
            kill_children(self._program.pid)
            self._program.kill()
            self._program = None

    def terminate(self) -> None:
        """SIGTERM, like a service manager."""
        if self._program is not None:
            self._program.stop()
            self._program = None


def http_client() -> httpx.Client:
    """A client for servers without TLS that may be killed between two requests.

    `httpx.get` reads the certificates of the system each time: 30 ms of processor time for a look that takes one.
    """
    return httpx.Client(verify=False, timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))  # noqa: S501


@dataclass
class FaultSite:
    """A running site. Agents reach broker and object store through `mqtt` and `s3`; the control plane uses no proxy."""

    directory: Path
    broker: Broker
    store: S3Server
    strict: StrictControl
    mqtt: Proxy
    s3: Proxy
    plane: SiteProcess
    server: str
    stack: ExitStack = field(default_factory=ExitStack)
    agents: dict[str, SiteProcess] = field(default_factory=dict)
    http: httpx.Client = field(default_factory=http_client)

    # REST.

    def get(self, path: str) -> dict[str, Any]:
        """GET from the control plane; the answer must be 200."""
        answer = self.http.get(f"{self.server}{path}")
        assert answer.status_code == httpx.codes.OK, answer.text
        return dict(answer.json())

    def post(self, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> httpx.Response:
        """POST to the control plane."""
        return self.http.post(f"{self.server}{path}", json=body, headers=headers)

    def ready(self) -> bool:
        """Whether the control plane can work."""
        try:
            return self.http.get(f"{self.server}/health/ready", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def upload(self, upload_id: str) -> dict[str, Any]:
        """One upload as REST shows it."""
        return self.get(f"/uploads/{upload_id}")

    def trigger(self, client_id: str, path: Path, **body: Any) -> str:  # noqa: ANN401
        """Trigger an upload; returns its id."""
        answer = self.post(f"/trigger-download/{client_id}", {"file_path": str(path), **body})
        assert answer.status_code == httpx.codes.OK, answer.text
        return str(answer.json()["upload_id"])

    def ended(self, upload_id: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for the end of an upload and return it."""
        self.until(lambda: self.upload(upload_id)["state"] in TERMINAL, f"the end of {upload_id}", patience)
        return self.upload(upload_id)

    def completed(self, upload_id: str, path: Path) -> dict[str, Any]:
        """Wait for the end of an upload, which must be completed and equal to the file."""
        upload = self.ended(upload_id)
        assert (upload["state"], upload["error"], upload["message"]) == ("completed", None, None), upload
        assert self.stored(upload_id) == path.read_bytes()
        return upload

    def stored(self, upload_id: str) -> bytes:
        """The object, read through a presigned URL."""
        answer = self.http.get(self.get(f"/uploads/{upload_id}/url")["url"])
        assert answer.status_code == httpx.codes.OK
        return answer.content

    def connected(self, client_id: str) -> bool:
        """Whether the control plane sees the client online."""
        clients = self.get("/clients?limit=500")["clients"]
        return any(one["client_id"] == client_id and one["connected"] for one in clients)

    def counted(self, event: str) -> int:
        """How often the control plane counted an event since it started."""
        text = self.http.get(f"{self.server}/metrics").text
        found = re.search(rf'^backhaul_events_total{{event="{re.escape(event)}"}} (\S+)', text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    # What the object store received.

    def events(self, upload_id: str, operation: Operation | None = None) -> list[StoreEvent]:
        """The requests that the object store received for the key of one upload."""
        key = self.upload(upload_id)["s3_key"]
        return [one for one in self.strict.events() if one.key == key and operation in {None, one.operation}]

    def bytes_received(self, upload_id: str) -> int:
        """Bytes of parts that the object store received for one upload, stored or not."""
        return received(self.events(upload_id), Operation.UPLOAD_PART)

    def s3_uploads(self, upload_id: str) -> list[str]:
        """S3's ids of the multipart uploads of one upload, in the order in which parts arrived."""
        return list(dict.fromkeys(one.upload_id or "" for one in self.events(upload_id, Operation.UPLOAD_PART)))

    # Processes.

    def agent(self, client_id: str, **settings: str) -> SiteProcess:
        """An agent that is not started yet; it ends with the site, or at `reset`."""
        home = self.directory / client_id
        files = home / "files"
        files.mkdir(parents=True, exist_ok=True)
        # Empty: what lies in a folder of settings is never sent, so it must not be the home.
        (home / "agent.d").mkdir(exist_ok=True)
        given = {
            "CLIENT_ID": client_id,
            "MQTT_URL": f"mqtt://{self.mqtt.host_port}",
            "UPLOAD_HOSTS": self.s3.host_port,
            "ALLOWED_ROOTS": str(files),
            "STATE_DIR": str(home / "state"),
            "LOG_LEVEL": "debug",
            **settings,
        }
        self.agents[client_id] = SiteProcess(AGENT, given, home / "agent.log")
        return self.agents[client_id]

    def attach(self, client_id: str, **settings: str) -> SiteProcess:
        """Start an agent and wait until it is connected."""
        agent = self.agent(client_id, **settings)
        agent.start()
        self.until(lambda: self.connected(client_id), f"{client_id} to connect")
        return agent

    def file(self, client_id: str, name: str, size: int) -> Path:
        """A new file of random bytes that the agent may send."""
        path = self.directory / client_id / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        return path

    def begun(self, client_id: str, *, parts: int, **options: Any) -> tuple[str, Path]:  # noqa: ANN401
        """Begin an upload that stalls in the middle of its second part until `s3.flow()`; returns its id and file."""
        self.attach(client_id, MAX_PARALLEL_PARTS="1")
        path = self.file(client_id, "big.bin", parts * CHUNK)
        self.s3.stall_after(CHUNK + CHUNK // 2)
        upload_id = self.trigger(client_id, path, options=options)
        self.until(lambda: self.s3.stalled, "the upload to stall in the middle of a part")
        return upload_id, path

    def restart_plane(self) -> None:
        """Start the control plane, if it does not run, and wait until it can work."""
        self.plane.start()
        self.until(self.ready, "the control plane")

    def end_agents(self) -> None:
        """Kill every agent, and forget it."""
        for agent in self.agents.values():
            agent.kill()
        self.agents.clear()

    def until(self, condition: Callable[[], object], what: str | Callable[[], str], patience: float = PATIENCE) -> None:
        """Wait for a condition; fail with `what` was waited for: a text, or a function that returns it at the end."""
        if not came_true(condition, patience, 0.03):
            awaited = what if isinstance(what, str) else what()
            pytest.fail(f"waited {patience:.0f} s for {awaited}\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of every log, for the message of a failed test."""
        logs = {"control plane": self.plane.log_path, **{name: one.log_path for name, one in self.agents.items()}}
        texts = {name: path.read_text(errors="replace") for name, path in logs.items() if path.exists()}
        return "\n".join(f"{name}:\n" + "\n".join(text.splitlines()[-15:]) for name, text in texts.items())

    def reset(self) -> None:
        """End the agents, undo every fault, and wait until the control plane is ready."""
        self.end_agents()
        self.strict.clear()
        for proxy in (self.mqtt, self.s3):
            proxy.throttle(None)
            proxy.flow()
            proxy.accept()
        self.broker.send(signal.SIGCONT)
        self.broker.start()
        self.plane.thaw()
        self.restart_plane()


def clock_of(library: str, clock: Path) -> dict[str, str]:
    """Settings that shift the clock of a process by the offset in the file `clock`, such as `+10m` or `-20000d`.

    Only the wall clock is shifted, never the monotonic one. The file is read at every call for the time.
    """
    paths = (str(Path(__file__).parent / "fault_sites_clock"), os.environ.get("PYTHONPATH", ""))
    return {
        "LD_PRELOAD": library,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }


@contextmanager
def small_tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A small file system, `size` bytes; the test is skipped where none can be mounted."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(ballast: Path) -> None:
    """Fill the file system of the file `ballast` to its last byte."""
    with ballast.open("ab", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"x" * 512)


def plane_settings(directory: Path, broker: Broker, store: S3Server, s3: Proxy, port: int) -> dict[str, str]:
    """The settings of a control plane with a broker and an object store whose presigned URLs lead through a proxy."""
    return {
        "SERVER_PORT": str(port),
        "MQTT_URL": broker.address.url,
        "DATABASE_URL": f"sqlite:///{directory / 'backhaul.db'}",
        "AWS_ENDPOINT": store.endpoint,
        "S3_PUBLIC_ENDPOINT": f"http://{s3.host_port}",
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "S3_BUCKET_NAME": BUCKET,
        "CLIENT_TIMEOUT": str(STEP_TIMEOUT),
    }


@contextmanager
def running_site(
    directory: Path, settings: Mapping[str, str] | None = None, *, broker: Broker | None = None
) -> Iterator[FaultSite]:
    """A site without agents; `settings` are added to the control plane's. All its processes end with the context."""
    with ExitStack() as stack:
        broker = stack.enter_context(broker or start_broker(directory / "broker", kind="mosquitto", persistence=True))
        store, strict = start_strict_process(directory / "store")
        stack.enter_context(store)
        mqtt = stack.enter_context(Proxy(broker.address.port))
        s3 = stack.enter_context(Proxy(int(store.endpoint.rpartition(":")[2])))
        port, home = free_port(), directory / "plane"
        given = {**plane_settings(home, broker, store, s3, port), **(settings or {})}
        plane = stack.enter_context(SiteProcess(SERVE, given, home / "plane.log"))
        site = FaultSite(directory, broker, store, strict, mqtt, s3, plane, f"http://127.0.0.1:{port}", stack)
        stack.callback(site.end_agents)
        site.until(site.ready, "the control plane")
        yield site
