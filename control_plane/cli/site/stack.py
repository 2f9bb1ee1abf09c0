"""Broker, object store and control plane of one site, as child processes.

Rule: each is a real program at a real port; `agent_settings` alone defines what an agent needs to join.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from broker.child_process import ChildProcess, bound_log, python_program
from broker.errors import BrokerError
from broker.server import Broker, free_port, start_broker
from control_plane.adapters.folder_store import FolderObjectStore, start_folder_store
from control_plane.cli.errors import Failed, Refused, Unreachable
from control_plane.cli.rest.client import ControlPlane, Document
from control_plane.cli.rest.token import operator_token
from control_plane.cli.site.broker import AuthenticatedBroker
from control_plane.services.errors import ServiceError

BUCKET: Final = "backhaul"
LOOPBACK: Final = "127.0.0.1"
READY_TIMEOUT: Final = 60.0
"""Seconds within which a control plane has to answer; a first start on a Raspberry Pi creates its database."""

_POLL: Final = 0.05
_SERVE: Final = python_program("control_plane.cli.main", "serve")

Note = Callable[[str], None]
BrokerKind = Literal["auto", "mosquitto", "embedded"]


@dataclass(frozen=True, slots=True)
class SitePorts:
    """The ports of the site, and the kind of broker; None takes a free port."""

    broker: int | None = None
    store: int | None = None
    server: int | None = None
    broker_kind: BrokerKind = "auto"


@dataclass(frozen=True, slots=True)
class Site:
    """A running site. `directory` holds all its data."""

    directory: Path
    broker: Broker
    store: FolderObjectStore
    plane: ChildProcess
    server: str
    secret: str | None = None
    """The JWT_SECRET of the caller's environment, with which the control plane runs."""

    def connect(self) -> ControlPlane:
        """The control plane, as this site's operator."""
        return ControlPlane(self.server, None if self.secret is None else operator_token(self.secret))

    def agent_settings(self) -> dict[str, str]:
        """The settings with which an agent reaches the site. The devices' listener is the broker's last one."""
        return {"MQTT_URL": self.broker.addresses[-1].url, "UPLOAD_HOSTS": f"{self.store.endpoint}/{BUCKET}/"}

    def check(self) -> None:
        """`Failed` when one of the three has ended; keeps their logs small."""
        for name, alive, log in (
            ("broker", self.broker.alive, self.broker.log_path),
            ("store", self.store.alive, self.store.log_path),
            ("control plane", self.plane.alive, self.plane.log_path),
        ):
            if not alive:
                text = f"the {name} has ended: see {log}"
                raise Failed(text)
            bound_log(log)


@contextmanager
def running_site(
    directory: Path, ports: SitePorts, *, network_broker: AuthenticatedBroker | None = None, note: Note = lambda _: None
) -> Iterator[Site]:
    """Start the three and stop them again. With `network_broker`, devices of the network may connect.

    `Failed` with the last lines of its log when one does not come up.
    """
    with ExitStack() as stack:
        try:
            note("starting the broker")
            broker = stack.enter_context(_broker(directory / "broker", ports, network_broker))
            note("starting the store")
            store = stack.enter_context(_store(directory / "store", ports, network_broker))
        except (BrokerError, ServiceError, OSError) as error:
            raise Failed(str(error)) from error
        note("starting the control plane")
        port = ports.server or free_port()
        settings = {
            **plane_settings(directory, broker, store, port),
            **(network_broker.plane if network_broker else {}),
        }
        secret = os.environ.get("JWT_SECRET") or None
        if secret is not None:
            settings["JWT_SECRET"] = secret
            # Before the control plane refuses it, and ends.
            operator_token(secret)
        log = directory / "control-plane" / "control-plane.log"
        plane = stack.enter_context(ChildProcess(_SERVE, settings=settings, log_path=log))
        site = Site(directory, broker, store, plane, f"http://{LOOPBACK}:{port}", secret)
        _wait_until_ready(site)
        yield site


def plane_settings(directory: Path, broker: Broker, store: FolderObjectStore, port: int) -> dict[str, str]:
    """The settings that connect a control plane to this broker and this object store."""
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


def _broker(directory: Path, ports: SitePorts, network_broker: AuthenticatedBroker | None) -> Broker:
    if network_broker is not None:
        return network_broker.start(directory)
    return start_broker(directory, port=ports.broker, kind=ports.broker_kind, persistence=True)


def _store(directory: Path, ports: SitePorts, network_broker: AuthenticatedBroker | None) -> FolderObjectStore:
    if network_broker is not None:
        return start_folder_store(directory, port=ports.store, address=network_broker.devices.host)
    return start_folder_store(directory, port=ports.store)


def _wait_until_ready(site: Site) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    with site.connect() as plane:
        while missing := _missing(plane):
            if not site.plane.alive or time.monotonic() > deadline:
                what = f"is not ready ({missing})" if site.plane.alive else "has ended"
                text = f"the control plane {what}; {site.plane.log_path} ends:\n{site.plane.log_tail()}"
                raise Failed(text)
            time.sleep(_POLL)


def _missing(plane: ControlPlane) -> str | None:
    """The checks of the control plane that fail; None when it is ready."""
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
