"""Commands that show clients, over REST.

Rule: they change nothing.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from control_plane.cli.errors import Unreachable
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.rest.events import Wakes
from control_plane.cli.rest.progress import ENDED
from control_plane.cli.rest.tables import client_view, clients_table, files_table, uploads_table
from control_plane.cli.rest.uploads import Client
from control_plane.cli.session import CliSession, rest_command
from control_plane.domain.clients import ClientState

Selector = Annotated[
    str | None,
    typer.Option(
        "--selector", "-l", metavar="SELECTOR", help="Only those with these labels: 'site=berlin,model in (a,b),!old'."
    ),
]
State = Annotated[
    ClientState | None, typer.Option("--state", help="Only those that are in this state.", case_sensitive=False)
]
Pattern = Annotated[str, typer.Argument(metavar="[PATTERN]", help="A glob of absolute paths, such as '/data/*.bin'.")]
Every = Annotated[float, typer.Option(min=0.2, help="Seconds between two looks at uploads that go on.")]

_RECENT = 10
_SILENT = 15.0
"""Seconds between two looks without a change: no change shows that a client stopped to send beats."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (("status", status), ("clients", clients), ("files", files), ("watch", watch)):
        app.command(name)(rest_command(function))


def status(session: CliSession, client: Client) -> None:
    """Show one client: whether it is connected, and what it uploads."""
    with session.connect() as plane:
        answer = plane.status(client)
    session.output.result(answer, client_view(answer))


def clients(session: CliSession, *, selector: Selector = None, state: State = None) -> None:
    """List the clients."""
    with session.connect() as plane:
        answer = plane.clients(selector=selector, state=state)
    session.output.result(answer, clients_table(answer["clients"]))


def files(
    session: CliSession, client: Client, pattern: Pattern = "/**", *, digest: bool = False, folders: bool = False
) -> None:
    """List files on a device that match a pattern, below its allowed roots."""
    with session.connect() as plane:
        answer = plane.files(client, pattern, digest="md5" if digest else None, folders="true" if folders else None)
    session.output.result(answer, files_table(answer["files"]))


def watch(session: CliSession, *, every: Every = 1.0) -> None:
    """Show the fleet as it changes, until Ctrl-C. With --json: a document on a line for each change."""
    with session.connect() as plane:
        seen = _read_fleet(plane)
        wakes = Wakes(session)
        wakes.start()
        if session.output.as_json or not session.output.stdout.is_terminal:
            _print_changes(session, plane, seen, partial(_wait, wakes, every))
        with Live(_fleet_view(seen), console=session.output.stdout, auto_refresh=False) as live:
            while True:
                _wait(wakes, every, seen)
                try:
                    seen = _read_fleet(plane)
                    live.update(_fleet_view(seen), refresh=True)
                except Unreachable as error:
                    live.update(Text(str(error), style="red"), refresh=True)


def _wait(wakes: Wakes, every: float, seen: dict[str, Any]) -> None:
    """Until the next look: at progress `every` seconds; else after a change, or when a silent client may be gone."""
    moving = any(upload.get("status") not in ENDED for upload in seen["uploads"])
    if wakes.missing:
        time.sleep(every)
    else:
        wakes.wait(every if moving else max(every, _SILENT))


def _print_changes(
    session: CliSession, plane: ControlPlane, seen: dict[str, Any], wait: Callable[[dict[str, Any]], None]
) -> None:
    while True:
        session.output.result(seen, _fleet_view(seen))
        before = seen
        while seen == before:
            wait(seen)
            seen = _read_fleet(plane)


def _read_fleet(plane: ControlPlane) -> dict[str, Any]:
    recent = plane.uploads(most=_RECENT)["uploads"]
    return {"clients": plane.clients()["clients"], "uploads": recent}


def _fleet_view(seen: dict[str, Any]) -> Group:
    busy = sum(upload.get("status") not in ENDED for upload in seen["uploads"])
    there = sum(bool(client.get("connected")) for client in seen["clients"])
    summary = f"{there} of {len(seen['clients'])} clients connected, {busy} of the newest uploads unfinished"
    return Group(
        Text(summary, style="bold"), "", clients_table(seen["clients"]), "", uploads_table(seen["uploads"], short=True)
    )
