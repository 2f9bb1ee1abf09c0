"""`backhaul up`: everything that one site needs on one machine, with its data in one directory.

Rule: on loopback unless --listen names an address; the same directory gives the same site again, at the same ports.
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.session import CliSession
from control_plane.cli.site.broker import ACCESS, AuthenticatedBroker, port_is_free, reload_on_change
from control_plane.cli.site.operator_env import write_operator_file
from control_plane.cli.site.signals import termination_as_interrupt, wait_for_termination
from control_plane.cli.site.stack import LOOPBACK, Site, SitePorts, running_site
from control_plane.cli.site.up_report import document, report

Data = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help=r"Keeps everything. \[~/.local/share/backhaul]")
]
Listen = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Let devices of the network in here, with passwords; needs mosquitto."),
]
ServerPort = Annotated[int, typer.Option("--port", min=1, max=65_535, help="Of the control plane.")]
BrokerPort = Annotated[int, typer.Option("--mqtt-port", min=1, max=65_535, help="Of the broker.")]
StorePort = Annotated[int, typer.Option("--store-port", min=1, max=65_535, help="Of the object store.")]


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of the command."""

    data: Path
    listen: str | None
    server_port: int
    mqtt_port: int
    store_port: int

    @property
    def ports(self) -> SitePorts:
        """The ports in the form of `running_site`."""
        return SitePorts(broker=self.mqtt_port, store=self.store_port, server=self.server_port)

    def network_broker(self) -> AuthenticatedBroker | None:
        """The broker with passwords, if devices of the network may connect; services use the next port."""
        return AuthenticatedBroker(self.listen, self.mqtt_port, self.mqtt_port + 1) if self.listen else None


def up(
    session: CliSession,
    *,
    data: Data = None,
    listen: Listen = None,
    port: ServerPort = 8080,
    mqtt_port: BrokerPort = 1883,
    store_port: StorePort = 9000,
) -> None:
    """Run broker, store and control plane for one site, with all data in one directory.

    They run until Ctrl-C; the same directory goes on where it was.
    """
    directory = (data or default_directory()).expanduser().resolve()
    plan = Plan(directory, _require_address(listen), port, mqtt_port, store_port)
    with ExitStack() as stack:
        stack.enter_context(termination_as_interrupt())
        stack.enter_context(_alone_in(directory))
        _require_ports(plan)
        site, check = stack.enter_context(_running(session, plan))
        with ControlPlane(site.server) as plane:
            readiness = plane.readiness()
        session.output.result(document(site, readiness), report(site, readiness, authenticated=listen is not None))
        try:
            wait_for_termination(check)
        except KeyboardInterrupt:
            session.output.note("stopping")


def default_directory() -> Path:
    """The folder for data of this user's programs (XDG Base Directory Specification)."""
    share = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(share) / "backhaul"


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Lock the directory; `Failed` when another `backhaul up` holds the lock."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (directory / ".lock").open("a")
    except OSError as error:
        text = f"{error.filename}: {error.strerror}: name another directory with --data"
        raise Misused(text) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"another `backhaul up` runs with the data in {directory}"
            raise Failed(text) from error
        yield


def _require_address(listen: str | None) -> str | None:
    """Return the address; `Misused` for one that devices cannot use."""
    if listen is None:
        return None
    try:
        infos = socket.getaddrinfo(listen, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        text = f"--listen {listen!r} is no IPv4 address or name of this machine: {error.strerror or error}"
        raise Misused(text) from error
    if any(info[4][0] == "0.0.0.0" for info in infos):  # noqa: S104 - refused, not used
        text = "--listen needs the one address under which devices reach this machine, not 0.0.0.0"
        raise Misused(text)
    return listen


def _require_ports(plan: Plan) -> None:
    """`Failed`, naming the option, when another process listens on one of the ports."""
    address = plan.listen or LOOPBACK
    second = [("--mqtt-port", LOOPBACK, plan.mqtt_port + 1)] if plan.listen else []
    for option, host, port in (
        ("--port", LOOPBACK, plan.server_port),
        ("--mqtt-port", address, plan.mqtt_port),
        ("--store-port", address, plan.store_port),
        *second,
    ):
        if not port_is_free(host, port):
            text = f"cannot listen at {host}:{port}: is something else there? Take another one with {option}"
            raise Failed(text)


@contextmanager
def _running(session: CliSession, plan: Plan) -> Iterator[tuple[Site, Callable[[], None]]]:
    """The site, and the check to run while it runs."""
    note = session.output.note
    network_broker = plan.network_broker()
    if network_broker is None:
        with running_site(plan.data, plan.ports, note=note) as site:
            write_operator_file(site)
            yield site, site.check
        return
    with running_site(plan.data, plan.ports, network_broker=network_broker, note=note) as site:
        write_operator_file(site, network_broker.operator)
        reload = reload_on_change(site.broker, plan.data / "broker" / ACCESS)

        def check() -> None:
            site.check()
            reload()

        yield site, check
