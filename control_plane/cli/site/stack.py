"""Broker, store and control plane of one site, as children of this process.

Rule: each is a real program at a real port; what an agent needs to join is said by `agent_settings` and nowhere else.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from broker.child_process import ChildProcess
from broker.errors import BrokerError
from broker.server import Broker, free_port, start_broker
from control_plane.adapters.folder_store import FolderObjectStore, start_folder_store
from control_plane.cli.errors import Failed, Refused, Unreachable
from control_plane.cli.rest.client import ControlPlane, Document
from control_plane.cli.site.broker import GuardedBroker
from control_plane.services.errors import ServiceError

BUCKET: Final = "backhaul"
LOOPBACK: Final = "127.0.0.1"
READY_TIMEOUT: Final = 40.0
"""Seconds within which a control plane has to answer; a first start on a Raspberry Pi makes its database."""

_POLL: Final = 0.05
_SERVE: Final = (sys.executable, "-m", "control_plane.cli.main", "serve")

Say = Callable[[str], None]
BrokerKind = Literal["auto", "mosquitto", "embedded"]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the site listens, and which broker does; None takes any free port."""

    broker: int | None = None
    store: int | None = None
    server: int | None = None
    broker_kind: BrokerKind = "auto"


@dataclass(frozen=True, slots=True)
class Site:
    """A running site. `directory` holds everything that it keeps."""

    directory: Path
    broker: Broker
    store: FolderObjectStore
    plane: ChildProcess
    server: str

    def agent_settings(self) -> dict[str, str]:
        """What every agent is told to reach the site. The devices' listener is the broker's last one."""
        return {"MQTT_URL": self.broker.addresses[-1].url, "UPLOAD_HOSTS": self.store.upload_host}

    def check(self) -> None:
        """`Failed` when one of the three has ended."""
        for name, alive, log in (
            ("broker", self.broker.alive, self.broker.log_path),
            ("store", self.store.alive, self.store.log_path),
            ("control plane", self.plane.alive, self.plane.log_path),
        ):
            if not alive:
                text = f"the {name} has ended: see {log}"
                raise Failed(text)


@contextmanager
def running_site(
    directory: Path, ports: Ports, *, guard: GuardedBroker | None = None, say: Say = lambda _: None
) -> Iterator[Site]:
    """Start the three and stop them again. With a `guard` devices of the network may come in.

    `Failed` with the last lines of its log when one does not come up.
    """
    with ExitStack() as stack:
        try:
            say("starting the broker")
            broker = stack.enter_context(_broker(directory / "broker", ports, guard))
            say("starting the store")
            store = stack.enter_context(_store(directory / "store", ports, guard))
        except (BrokerError, ServiceError, OSError) as error:
            raise Failed(str(error)) from error
        say("starting the control plane")
        port = ports.server or free_port()
        settings = {**plane_settings(directory, broker, store, port), **(guard.plane if guard else {})}
        log = directory / "control-plane" / "control-plane.log"
        plane = stack.enter_context(ChildProcess(_SERVE, settings=settings, log_path=log))
        site = Site(directory, broker, store, plane, f"http://{LOOPBACK}:{port}")
        _wait_until_ready(site)
        yield site


def plane_settings(directory: Path, broker: Broker, store: FolderObjectStore, port: int) -> dict[str, str]:
    """The settings that join a control plane to this broker and this store."""
    return {
        "SERVER_HOST": LOOPBACK,
        "SERVER_PORT": str(port),
        "MQTT_URL": broker.address.url,
        "DATABASE_URL": f"sqlite:///{directory / 'control-plane' / 'backhaul.db'}",
        "AWS_ENDPOINT": store.endpoint,
        "AWS_ACCESS_KEY_ID": store.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": store.credentials.secret_key,
        "S3_BUCKET_NAME": BUCKET,
    }


def _broker(directory: Path, ports: Ports, guard: GuardedBroker | None) -> Broker:
    if guard is not None:
        return guard.start(directory)
    return start_broker(directory, port=ports.broker, kind=ports.broker_kind, persistence=True)


def _store(directory: Path, ports: Ports, guard: GuardedBroker | None) -> FolderObjectStore:
    if guard is not None:
        return start_folder_store(directory, port=ports.store, address=guard.devices.host)
    return start_folder_store(directory, port=ports.store)


def _wait_until_ready(site: Site) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    with ControlPlane(site.server) as plane:
        while lacks := _lacks(plane):
            if not site.plane.alive or time.monotonic() > deadline:
                what = f"is not ready ({lacks})" if site.plane.alive else "has ended"
                text = f"the control plane {what}; {site.plane.log_path} ends:\n{site.plane.log_tail()}"
                raise Failed(text)
            time.sleep(_POLL)


def _lacks(plane: ControlPlane) -> str | None:
    """What the control plane still waits for; None when it is ready for work."""
    try:
        readiness = plane.readiness()
    except (Refused, Unreachable) as error:
        return str(error)
    if readiness.get("status") == "ready":
        return None
    return "; ".join(unready(readiness))


def unready(readiness: Document) -> list[str]:
    """The checks that are not `ok`, as `name: text`. `store` repeats `object_store` under its old name."""
    checks = readiness.get("checks", {}).items()
    return [f"{name}: {state}" for name, state in checks if state != "ok" and name != "store"]
