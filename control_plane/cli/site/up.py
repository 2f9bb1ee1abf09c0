"""`backhaul up`: everything that one site needs on one machine, with its data in one directory.

Rule: on loopback unless --listen names an address; the same directory gives the same site again, at the same ports.
"""

import fcntl
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.program import command_line, program
from control_plane.cli.rest.client import ControlPlane, Document
from control_plane.cli.session import CliSession
from control_plane.cli.site.broker import ACCESS, AuthenticatedBroker, port_is_free, reload_on_change
from control_plane.cli.site.operator_env import operator_file, write_operator_file
from control_plane.cli.site.page import page_link
from control_plane.cli.site.signals import termination_as_interrupt, wait_for_termination
from control_plane.cli.site.stack import BUCKET, LOOPBACK, Site, SitePorts, running_site, unready
from control_plane.cli.site.trust import ensure_trust
from control_plane.cli.text import visible
from schemas.errors import SchemaError

Data = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help=r"Keeps everything. \[~/.local/share/backhaul]")
]
Listen = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Accept devices of the network here, with passwords; needs mosquitto."),
]
ServerPort = Annotated[int, typer.Option("--port", min=1, max=65_535, help="Of the control plane.")]
BrokerPort = Annotated[int, typer.Option("--mqtt-port", min=1, max=65_535, help="Of the broker.")]
StorePort = Annotated[int, typer.Option("--store-port", min=1, max=65_535, help="Of the object store.")]


_LOCK: Final = ".lock"


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

    They run until Ctrl-C; the same directory continues where it was.
    """
    directory = _directory(data)
    plan = Plan(directory, _require_address(listen), port, mqtt_port, store_port)
    with ExitStack() as stack:
        stack.enter_context(termination_as_interrupt())
        stack.enter_context(_alone_in(directory))
        _require_ports(plan)
        site, check = stack.enter_context(_running(session, plan))
        with site.connect() as plane:
            _trust(session, site, plane)
            readiness, link = plane.readiness(), page_link(plane)
        shown = report(site, readiness, link, authenticated=listen is not None)
        try:
            session.output.result(document(site, readiness, link), shown)
            wait_for_termination(check)
        except KeyboardInterrupt:
            session.output.note("stopping")


def _trust(session: CliSession, site: Site, plane: ControlPlane) -> None:
    """A root of trust with the data of the site, so that devices can be enrolled at once."""
    if site.broker.kind != "mosquitto":
        return
    try:
        ensure_trust(plane, site.directory)
    except (OSError, SchemaError) as error:
        session.output.note(f"devices are enrolled without a root of trust: {error}")


def _directory(data: Path | None) -> Path:
    from control_plane.settings import SettingsError, data_directory

    try:
        return (data or data_directory()).expanduser().resolve()
    except (SettingsError, RuntimeError) as error:
        text = "this user has no home folder: name a directory with --data"
        raise Misused(text) from error


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Lock the directory; `Failed` when another `backhaul up` holds the lock."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _require_private(directory)
        lock = (directory / _LOCK).open("a")
    except OSError as error:
        text = f"{error.filename}: {error.strerror}: name another directory with --data"
        raise Misused(text) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"another `up` runs with the data in {directory}"
            raise Failed(text) from error
        yield


def _require_private(directory: Path) -> None:
    """Close a folder of an earlier version, or an empty one, to other users; `Misused` for one that has other files.

    It will hold uploaded files and passwords, and an operator may share a folder on purpose.
    """
    if not directory.stat().st_mode & 0o077:
        return
    if (directory / _LOCK).exists() or not any(directory.iterdir()):
        directory.chmod(0o700)
        return
    text = f"other users can read {directory}, which has files already: `chmod 700` it, or name another with --data"
    raise Misused(text)


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


EXAMPLE: Final = "restaurant-1"
ENROLLED: Final = "restaurant-2"


def document(site: Site, readiness: Document, link: str) -> dict[str, Any]:
    """The site as one JSON document."""
    return {
        "server": site.server,
        "page": link,
        "agent": site.agent_settings(),
        "broker": {"kind": site.broker.kind, "url": site.broker.address.url},
        "store": {"endpoint": site.store.endpoint, "bucket": BUCKET},
        "data": str(site.directory),
        "readiness": readiness,
    }


def report(site: Site, readiness: Document, link: str, *, authenticated: bool) -> Group:
    """The site for a person."""
    steps = _steps(site, authenticated=authenticated)
    return Group(
        Text(f"Open {link}", style="bold", no_wrap=True, overflow="ignore"),
        *(
            (Text(f"it signs one browser in, within a minute; `{program()} page` prints another", style="dim"),)
            if site.secret
            else ()
        ),
        "",
        _places(site, readiness),
        "",
        Text("A device joins with", style="bold"),
        *(Text(line, style="dim" if line.startswith("#") else "", no_wrap=True, overflow="ignore") for line in steps),
        "",
    )


def enforced(probe: Document | None) -> str:
    """What the object store enforces, as text (protocol.md section 5)."""
    if not probe:
        return "it has not been probed"
    found = [
        f"parts bound by {', '.join(probe['part_digests'])}" if probe.get("part_digests") else None,
        f"objects bound by {', '.join(probe['object_digests'])}" if probe.get("object_digests") else None,
        "no overwriting on request" if probe.get("if_none_match") else None,
        "ETags are MD5s" if probe.get("etag_is_md5") else None,
        "encrypted" if probe.get("encrypts") else None,
    ]
    return "; ".join(filter(None, found)) or "nothing"


def _places(site: Site, readiness: Document) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, place in (
        ("control plane", f"{site.server}  (its calls: {site.server}/openapi.json)"),
        ("broker", f"{', '.join(address.url for address in site.broker.addresses)}  ({site.broker.kind})"),
        ("store", f"{site.store.endpoint}/{BUCKET}"),
        ("it enforces", enforced(readiness.get("probe"))),
        ("not ready", "; ".join(unready(readiness))),
        ("data", str(site.directory)),
    ):
        if place:
            table.add_row(Text(name, style="dim"), Text(visible(place), overflow="fold"))
    return table


def _enrolment(site: Site) -> tuple[str, ...]:
    """How a device gets a key of its own; only a Mosquitto has a root of trust beside it."""
    options = ("--roots", "/data", "--hosts", site.agent_settings()["UPLOAD_HOSTS"], "--out", f"{ENROLLED}.json")
    return (
        "# a device with a key of its own, which obeys signed commands: copy the file to it, as its BUNDLE_FILE",
        command_line("device", "enroll", *options, about=[ENROLLED]),
        "",
        "# or one without a key, which obeys whoever may publish",
    )


def _steps(site: Site, *, authenticated: bool) -> tuple[str, ...]:
    settings = {"CLIENT_ID": EXAMPLE, "FILE_PATH": "/data/test-file.bin", **site.agent_settings()}
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    accounts = site.directory / "broker" / ACCESS
    enroll = command_line("broker", "enroll", "--directory", str(accounts), about=[EXAMPLE])
    password = ("# its account, once; it prints the password", enroll) if authenticated else ()
    secret = f"MQTT_USERNAME={EXAMPLE} MQTT_PASSWORD=… " if authenticated else ""
    return (
        *(_enrolment(site) if site.broker.kind == "mosquitto" else ()),
        *password,
        "# on the device; its state and an unfinished upload survive in STATE_DIR",
        f"{variables} {secret}STATE_DIR=~/.local/state/backhaul-agent backhaul-agent",
        "",
        "# then, on this machine",
        f"set -a; . {shlex.quote(str(operator_file(site)))}; set +a",
        command_line("trigger", "--wait", about=[EXAMPLE]),
        "# or keep the address for every shell of yours",
        command_line("context", "add", "--server", site.server, "--use", about=["site"]),
    )
