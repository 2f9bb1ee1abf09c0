"""A site of real processes for end-to-end tests: Mosquitto, an object store that checks signatures, the product.

Rule: every process is started and ended here, by the product's own launcher; tests compare bytes.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from broker.child_process import ChildProcess
from broker.server import free_port, start_broker
from control_plane.adapters.folder_store import start_folder_store
from control_plane.api.auth import create_token
from control_plane.cli.site.broker import AuthenticatedBroker
from control_plane.cli.site.stack import Site, plane_settings
from tests.support.patience import came_true

AGENT: Final = (sys.executable, "-m", "device_agent", "--config-dir", ".")
SERVE: Final = (sys.executable, "-m", "control_plane.cli.main", "serve")
PATIENCE: Final = 60.0
START: Final = 240.0
"""Seconds until a control plane is ready: it took more than a minute on a busy machine."""

MIB: Final = 1024 * 1024
TERMINAL: Final = frozenset({"completed", "failed", "rejected", "cancelled", "expired"})


@dataclass(slots=True)
class Fleet:
    """A running site and the agents that were attached to it."""

    site: Site
    directory: Path
    stack: ExitStack
    plane_settings: Mapping[str, str]
    agents: dict[str, ChildProcess] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The operator's token, where the control plane needs one."""
        secret = self.plane_settings.get("JWT_SECRET")
        return {"Authorization": f"Bearer {create_token(secret, 'operator', 3_600)}"} if secret else {}

    def get(self, path: str) -> dict[str, Any]:
        """GET from the control plane; the answer must be 200."""
        answer = httpx.get(f"{self.site.server}{path}", timeout=PATIENCE, headers=self.headers)
        assert answer.status_code == httpx.codes.OK, answer.text
        return dict(answer.json())

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """POST to the control plane."""
        return httpx.post(f"{self.site.server}{path}", json=body, timeout=PATIENCE, headers=self.headers)

    def ready(self) -> bool:
        """Whether the control plane can work."""
        try:
            answer = httpx.get(f"{self.site.server}/health/ready", timeout=5, headers=self.headers)
            return answer.status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def attach(self, client_id: str, default_file: Path | None = None, **settings: str) -> ChildProcess:
        """Start an agent and wait until it is connected."""
        home = self.directory / client_id
        given = {**self.site.agent_settings(), "CLIENT_ID": client_id, "STATE_DIR": str(home / "state"), **settings}
        if default_file is not None:
            given["FILE_PATH"] = str(default_file)
        agent = self.stack.enter_context(ChildProcess(AGENT, settings=given, log_path=home / "agent.log"))
        self.agents[client_id] = agent
        self.until(lambda: self.connected(client_id), f"{client_id} to connect: {agent.log_tail()}")
        return agent

    def connected(self, client_id: str) -> bool:
        """Whether the control plane sees the client online."""
        clients = self.get("/clients?limit=500")["clients"]
        return any(one["client_id"] == client_id and one["connected"] for one in clients)

    def trigger(self, client_id: str, path: Path | None = None, **body: Any) -> str:  # noqa: ANN401
        """Trigger an upload; returns its id."""
        given = body if path is None else {"file_path": str(path), **body}
        answer = self.post(f"/trigger-download/{client_id}", given or None)
        assert answer.status_code == httpx.codes.OK, answer.text
        return str(answer.json()["upload_id"])

    def ended(self, upload_id: str) -> dict[str, Any]:
        """Wait for the end of an upload and return it."""
        self.until(lambda: self.get(f"/uploads/{upload_id}")["state"] in TERMINAL, f"the end of {upload_id}")
        return self.get(f"/uploads/{upload_id}")

    def until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition; fail with what was waited for."""

        def met() -> bool:
            if condition():
                return True
            self.site.check()
            return False

        if not came_true(met, patience):
            pytest.fail(f"waited {patience:.0f} s for {what}")

    def stored_sha256(self, upload_id: str) -> str:
        """The digest of the object, read through a presigned URL."""
        url = self.get(f"/uploads/{upload_id}/url")["url"]
        digest = hashlib.sha256()
        with httpx.stream("GET", url, timeout=PATIENCE) as answer:
            assert answer.status_code == httpx.codes.OK
            for chunk in answer.iter_bytes(MIB):
                digest.update(chunk)
        return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def running_fleet(
    directory: Path, settings: Mapping[str, str] | None = None, *, network: AuthenticatedBroker | None = None
) -> Iterator[Fleet]:
    """A site without agents; they end with it. With `network` its broker has passwords and an access list."""
    with ExitStack() as stack:
        home = directory / "site"
        broker = stack.enter_context(
            network.start(home / "broker") if network else start_broker(home / "broker", persistence=True)
        )
        store = stack.enter_context(start_folder_store(home / "store"))
        port = free_port()
        account = network.plane if network else {}
        joined = {**plane_settings(home, broker, store, port), **account, **(settings or {})}
        plane = stack.enter_context(serve(home, joined))
        fleet = Fleet(Site(home, broker, store, plane, f"http://127.0.0.1:{port}"), directory, stack, joined)
        fleet.until(fleet.ready, "the control plane", START)
        yield fleet


def serve(home: Path, settings: Mapping[str, str]) -> ChildProcess:
    """Start a control plane."""
    return ChildProcess(SERVE, settings=settings, log_path=home / "control-plane" / "control-plane.log")
