"""Commands that show clients and their files, over REST.

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
from control_plane.cli.rest.answers.shapes import CLIENT_STATUS, CLIENTS, FILES
from control_plane.cli.rest.arguments import Client, ClientInState, IdPattern, Pattern, Selector
from control_plane.cli.rest.client import ControlPlane, segment
from control_plane.cli.rest.events import Wakes
from control_plane.cli.rest.progress import ENDED
from control_plane.cli.rest.tables import (
    client_view,
    clients_table,
    files_table,
    history_table,
    reason_of,
    uploads_table,
)
from control_plane.cli.rest.watching import Watch, show_or_watch
from control_plane.cli.session import CliSession, Tree, rest_command
from control_plane.cli.text import moment

Every = Annotated[float, typer.Option(min=0.2, help="Seconds between two reads of uploads that are under way.")]
Digest = Annotated[bool, typer.Option("--digest", help="With the MD5 of each file, which the device computes.")]
Hours = Annotated[int, typer.Option(min=1, max=168, help="How far back.")]
Folders = Annotated[bool, typer.Option("--folders", help="With the folders that match.")]

_RECENT = 10
_SILENT = 15.0
"""Seconds between two looks without a change: no change shows that a client stopped to send beats."""


def register(app: Tree, panel: str) -> None:
    """Add the short verbs."""
    for name, function, shape in (
        ("status", status, CLIENT_STATUS),
        ("clients", clients, CLIENTS),
        ("files", files, FILES),
        ("watch", watch, None),
    ):
        app.command(name, rich_help_panel=panel)(rest_command(function, shape))


def status(session: CliSession, client: Client, *, watch: Watch = False) -> None:
    """Show one client: whether it is connected, and what it uploads."""
    with session.connect() as plane:
        show_or_watch(
            session, lambda: plane.status(client), client_view, CLIENT_STATUS, {"client": client}, watch=watch
        )


def clients(
    session: CliSession,
    *,
    pattern: IdPattern = None,
    selector: Selector = None,
    state: ClientInState = None,
    watch: Watch = False,
) -> None:
    """List the clients."""
    filters = {"type": ["client.*"], **({"selector": selector} if selector else {})}
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: plane.clients(id=pattern, selector=selector, state=state),
            lambda answer: clients_table(answer["clients"]),
            CLIENTS,
            filters,
            watch=watch,
            none=f"no clients; `{session.step('client', 'add', '--help')}` shows how to expect one",
        )


def files(
    session: CliSession, client: Client, pattern: Pattern = "/**", *, digest: Digest = False, folders: Folders = False
) -> None:
    """List files on a device that match a pattern, below its allowed roots."""
    with session.connect() as plane:
        answer = plane.files(client, pattern, digest="md5" if digest else None, folders="true" if folders else None)
    if answer.get("live") is False:
        reason = reason_of(answer)
        session.output.note(f"as of {moment(answer.get('as_of'))}" + (f": {reason}" if reason else ""), "yellow")
    session.output.result(answer, files_table(answer["files"]), "no files: nothing below the client's roots matches")


def history(session: CliSession, client: Client, *, hours: Hours = 168) -> None:
    """Show when a client was connected, in the last seven days."""
    with session.connect() as plane:
        answer = plane.call("GET", f"/clients/{segment(client)}/history", params={"hours": hours})
    session.output.result(answer, history_table(answer["spans"]), "nothing is known of this time")


def watch(session: CliSession, *, every: Every = 1.0) -> None:
    """Show the fleet as it changes, until Ctrl-C. With --json: a document on a line for each change."""
    with session.connect() as plane:
        seen = _read_fleet(plane)
        wakes = Wakes(session)
        wakes.start()
        if not session.output.redraws:
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
