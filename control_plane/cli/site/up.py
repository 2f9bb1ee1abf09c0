"""`backhaul up`: everything that one site needs on one machine, with its data in one directory.

Rule: on loopback unless told otherwise; the same directory gives the same site again, at the same ports.
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
from control_plane.cli.session import Session
from control_plane.cli.site.broker import ACCESS, GuardedBroker, port_is_free, reload_on_change
from control_plane.cli.site.operator_env import write_operator_file
from control_plane.cli.site.signals import ends_in_order, wait_until_told
from control_plane.cli.site.stack import LOOPBACK, Ports, Site, running_site
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
    """What is to run where."""

    data: Path
    listen: str | None
    server_port: int
    mqtt_port: int
    store_port: int

    @property
    def ports(self) -> Ports:
        """As the site takes them."""
        return Ports(broker=self.mqtt_port, store=self.store_port, server=self.server_port)

    def guard(self) -> GuardedBroker | None:
        """The broker with passwords, where devices of the network are let in; services come in one port above."""
        return GuardedBroker(self.listen, self.mqtt_port, self.mqtt_port + 1) if self.listen else None


def up(
    session: Session,
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
        stack.enter_context(ends_in_order())
        stack.enter_context(_alone_in(directory))
        _require_ports(plan)
        site, check = stack.enter_context(_running(session, plan))
        with ControlPlane(site.server) as plane:
            readiness = plane.readiness()
        session.output.result(document(site, readiness), report(site, readiness, guarded=listen is not None))
        try:
            wait_until_told(check)
        except KeyboardInterrupt:
            session.output.say("stopping")


def default_directory() -> Path:
    """Where data of this user's programs belongs (XDG Base Directory Specification)."""
    share = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(share) / "backhaul"


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold the directory; `Failed` when another `backhaul up` does."""
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
    """`Misused` for what is no address that a device could be told."""
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
    """`Failed`, naming the option, when somebody listens where we are to listen."""
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
def _running(session: Session, plan: Plan) -> Iterator[tuple[Site, Callable[[], None]]]:
    """The site, and what to look at while it runs."""
    say = session.output.say
    guard = plan.guard()
    if guard is None:
        with running_site(plan.data, plan.ports, say=say) as site:
            write_operator_file(site)
            yield site, site.check
        return
    with running_site(plan.data, plan.ports, guard=guard, say=say) as site:
        write_operator_file(site, guard.operator)
        reload = reload_on_change(site.broker, plan.data / "broker" / ACCESS)

        def check() -> None:
            site.check()
            reload()

        yield site, check
