"""A site whose keys leak: Mosquitto with accounts, a control plane with tokens and a root of trust, an operator.

Rule: the operator types the commands of docs/threat-model.md; a thief uses nothing but the key that was stolen, and
what anybody can reach: the listeners of the broker and REST.
"""

import base64
import json
import os
import shlex
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import Watched, python_module
from benchmarks.site import ROOT, plane_settings, running_sink, wait_ready
from broker.child_process import clean_environment
from broker.configuration import LOOPBACK
from broker.process import Broker
from broker.server import free_port
from control_plane.api.auth import create_token
from control_plane.cli.simulate.packets import DISCONNECT, REFUSED, Connect
from control_plane.cli.site.broker import ACCESS, AuthenticatedBroker

ADMINISTRATOR: Final = "administrator"
PATIENCE: Final = 60.0
LOOK: Final = 0.01
_CONNACK: Final = 2


class Away(Exception):
    """A server did not answer: it is being restarted. That is no refusal of a thief."""


class LeakSite:
    """The running programs, and what an operator does on their machine."""

    def __init__(self, folder: Path, broker: Broker, network: AuthenticatedBroker, settings: dict[str, str]) -> None:
        self.folder = folder
        self.broker = broker
        self.network = network
        self.settings = settings
        self.accounts = folder / "broker" / ACCESS
        self.server = f"http://{LOOPBACK}:{settings['SERVER_PORT']}"
        self._plane: Watched | None = None
        self._starts = 0

    # --- the control plane ---

    def start(self, **changes: str) -> None:
        """Start the control plane, from now on with these settings, and wait until it can work."""
        self.settings |= changes
        self._starts += 1
        log = self.folder / "control-plane" / f"control-plane-{self._starts}.log"
        self._plane = Watched(python_module("control_plane.cli.main", "serve"), self.settings, log)
        wait_ready(self.server, self._plane, self.token)

    def stop(self) -> None:
        """Stop the control plane."""
        if self._plane is not None:
            self._plane.stop()

    def restart(self, **changes: str) -> None:
        """Stop it and start it with other settings."""
        self.stop()
        self.start(**changes)

    def restart_broker(self) -> None:
        """Stop the broker and start it on the same ports; the control plane knows its new process id."""
        self.broker.restart()
        self.note_broker()

    def note_broker(self) -> None:
        """Write the process id of the broker where the control plane looks for it."""
        Path(self.settings["BROKER_PID_FILE"]).write_text(str(self.broker.pid))

    @property
    def log(self) -> str:
        """What the control plane has logged since its start."""
        return "" if self._plane is None else self._plane.log_path.read_text(errors="replace")

    # --- the operator ---

    @property
    def token(self) -> str:
        """A token with every right, by the present secret."""
        return create_token(self.settings["JWT_SECRET"], ADMINISTRATOR, 3_600)

    def typed(self, command: str, *options: str) -> str:
        """What a command prints that was typed as the document has it, with options that answer its questions."""
        program, *words = shlex.split(command)
        if program != "backhaul":
            message = f"{command}: it is no command of ours"
            raise RuntimeError(message)
        own = {
            "HOME": str(self.folder / "operator"),
            "XDG_CONFIG_HOME": str(self.folder / "operator"),
            "PYTHONPATH": str(ROOT),
            "BACKHAUL_URL": self.server,
            "JWT_SECRET": self.settings["JWT_SECRET"],
            "BROKER_ACCESS": str(self.accounts),
            "BACKHAUL_TOKEN": self.token,
        }
        ended = subprocess.run(
            [*python_module("control_plane.cli.main"), *words, *options],
            env=clean_environment(own),
            cwd=self.folder / "operator",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if ended.returncode:
            message = f"{command}: {ended.returncode}: {ended.stdout}{ended.stderr}"
            raise RuntimeError(message)
        return ended.stdout

    def rest(self, method: str, path: str, token: str | None = None, body: Any = None) -> tuple[int, Any]:  # noqa: ANN401
        """Code and document of a call, or `Away`."""
        connection = HTTPConnection(LOOPBACK, int(self.settings["SERVER_PORT"]), timeout=10)
        head = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), head)
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            raise Away(str(error)) from error
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition; an error names what was waited for."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(Away):
                if condition():
                    return
            time.sleep(0.05)
        message = f"waited {PATIENCE:.0f} s for {what}; {self.log[-2000:]}"
        raise RuntimeError(message)

    def enrolled(self, name: str) -> dict[str, Any]:
        """Enrol a device by bundle; the bundle is in a folder of its own."""
        home = self.folder / name
        (home / "data").mkdir(parents=True)
        (home / "data" / "file.bin").write_bytes(os.urandom(4096))
        options = (*self.places(name), "--out", str(home / "bundle.json"))
        self.typed(f"backhaul device enroll {name}", *options)
        return self.bundle(name)

    def places(self, name: str) -> tuple[str, ...]:
        """The options that say what a device may read and where it may send."""
        sink = self.settings["AWS_ENDPOINT"].partition("://")[2]
        return ("--roots", str(self.folder / name / "data"), "--hosts", sink)

    def bundle(self, name: str) -> dict[str, Any]:
        """The bundle that lies on a device."""
        found: dict[str, Any] = json.loads((self.folder / name / "bundle.json").read_text())
        return found

    @contextmanager
    def agent(self, name: str) -> Iterator[Watched]:
        """The agent of a device with its bundle, once it is connected."""
        home, token = self.folder / name, self.token
        settings = {
            "PYTHONPATH": str(ROOT),
            "BUNDLE_FILE": str(home / "bundle.json"),
            "STATE_DIR": str(home / "state"),
        }
        log = home / f"agent-{time.monotonic_ns()}.log"
        with Watched(python_module("device_agent", "--config-dir", str(home)), settings, log) as agent:
            try:
                self.until(lambda: self.online(name, token), f"{name} online")
            except RuntimeError as error:
                message = f"{error}; {log.read_text()[-2000:]}"
                raise RuntimeError(message) from error
            yield agent

    def online(self, name: str, token: str) -> bool:
        """Whether the control plane sees a device connected."""
        code, found = self.rest("GET", f"/status/{name}", token)
        return code == 200 and bool(found["connected"])  # noqa: PLR2004 - OK

    def uploads(self, name: str) -> None:
        """Require that a device uploads its file, as an operator requests it."""
        path = self.folder / name / "data" / "file.bin"
        self.typed(f"backhaul trigger {name} {path}", "--wait", "--timeout", "30s")


def measured(work: Callable[[], object], refused: Callable[[], bool]) -> float:
    """Seconds from the begin of `work` until the thief is `refused`; it must be in before, and stay out after.

    The work is done by this thread: a program that it starts would end with another one.
    """
    if refused():
        message = "the thief is refused before anything was done"
        raise RuntimeError(message)
    ended, out = threading.Event(), list[float]()
    thief = threading.Thread(target=_try_on, args=(refused, ended, out))
    began = time.perf_counter()
    thief.start()
    try:
        work()
        thief.join(PATIENCE)
    finally:
        ended.set()
        thief.join()
    if not out or not refused():
        message = f"the thief was not refused within {PATIENCE:.0f} s"
        raise RuntimeError(message)
    return out[0] - began


def _try_on(refused: Callable[[], bool], ended: threading.Event, out: list[float]) -> None:
    """Try again and again, and note when it was refused; a server that is away refuses nobody."""
    while not ended.is_set():
        with suppress(Away):
            if refused():
                out.append(time.perf_counter())
                return
        time.sleep(LOOK)


def refused_by_broker(port: int, username: str, password: str, client_id: str | None = None) -> bool:
    """Whether the broker refuses this account; `Away` while nobody listens."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=10) as thief:
            thief.sendall(Connect(client_id=client_id or username, username=username, password=password).encode())
            answer = thief.recv(64)
            if len(answer) < 4 or answer[0] >> 4 != _CONNACK:  # noqa: PLR2004 - up to the reason code (3.2)
                message = "it answers no CONNECT"
                raise Away(message)
            thief.sendall(DISCONNECT)
            return answer[3] >= REFUSED
    except OSError as error:
        raise Away(str(error)) from error


def refused_over_tls(port: int, authority: Path, certificate: Path) -> bool:
    """Whether the broker refuses this client certificate (a file with its key, too); `Away` while nobody listens."""
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(certificate)
    try:
        with (
            socket.create_connection((LOOPBACK, port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=LOOPBACK) as thief,
        ):
            thief.sendall(Connect(client_id="thief").encode())
            # With TLS 1.3 the refusal comes with the first bytes that are read.
            if not thief.recv(64):
                message = "it ends without an alert"
                raise Away(message)
            return False
    except OSError as error:
        # A broker that is being stopped ends a connection without an alert.
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return True
        raise Away(str(error)) from error


def token_id(token: str) -> str:
    """The `jti` of a token."""
    middle = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))["jti"])


@contextmanager
def running_leak_site(folder: Path, more: Mapping[str, str] | None = None) -> Iterator[LeakSite]:
    """All programs, with a root of trust that was published; `more` are settings of the control plane."""
    with ExitStack() as stack:
        _, sink_url = stack.enter_context(running_sink(folder / "sink"))
        network = AuthenticatedBroker(LOOPBACK, free_port(), free_port())
        broker = stack.enter_context(network.start(folder / "broker"))
        settings = {
            **plane_settings(folder, network.services.url, sink_url, free_port()),
            **network.plane,
            "BROKER_PID_FILE": str(folder / "broker.pid"),
            "JWT_SECRET": base64.b64encode(os.urandom(32)).decode(),
            "ENROLL": "on",
            "LOG_LEVEL": "info",
            **(more or {}),
        }
        (folder / "operator").mkdir(mode=0o700)
        site = LeakSite(folder, broker, network, settings)
        site.note_broker()
        stack.callback(site.stop)
        site.start()
        (folder / "passphrase").write_text("of the root key\n")
        passphrase = ("--passphrase-file", str(folder / "passphrase"))
        site.typed("backhaul keys init", *passphrase)
        site.typed("backhaul keys add control-plane --control-plane", *passphrase)
        site.typed("backhaul keys publish")
        yield site
