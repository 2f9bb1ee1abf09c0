"""What completes an argument: clients, jobs, schedules, groups, uploads, webhooks, contexts, paths of a client.

Rule: a key press waits a short time only, and a failure is silence: a shell that completes shows no error.
"""

import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import typer

from control_plane.cli.contexts.store import load, target_of
from control_plane.cli.errors import CliError
from control_plane.cli.rest.client import ControlPlane, segment
from control_plane.cli.secret_files import STDIN, secret_from

PATIENCE: Final = 2.0
"""Seconds within which the control plane has to answer."""

MOST: Final = 200
"""Candidates of one key press."""

_GLOB: Final = re.compile(r"[*?\[\]{}]")

Candidates = Callable[[typer.Context, str], list[str]]


def clients(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of clients."""
    return _found(ctx, incomplete, lambda plane: _names(plane, "/clients", "clients", "client_id"))


def selections(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of clients, and groups as `group:NAME`."""

    def read(plane: ControlPlane) -> Iterable[str]:
        groups = plane.call("GET", "/groups")["groups"]
        return [*_names(plane, "/clients", "clients", "client_id"), *(f"group:{one['name']}" for one in groups)]

    return _found(ctx, incomplete, read)


def uploads(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the newest uploads."""
    return _found(ctx, incomplete, lambda plane: _names(plane, "/uploads", "uploads", "upload_id"))


def jobs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the newest jobs."""
    return _found(ctx, incomplete, lambda plane: _names(plane, "/jobs", "jobs", "job_id"))


def schedules(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of schedules."""
    return _found(ctx, incomplete, lambda plane: _names(plane, "/schedules", "schedules", "schedule_id"))


def groups(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of groups."""
    return _found(ctx, incomplete, lambda plane: [one["name"] for one in plane.call("GET", "/groups")["groups"]])


def webhooks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of webhooks."""
    return _found(
        ctx, incomplete, lambda plane: [one["webhook_id"] for one in plane.call("GET", "/webhooks")["webhooks"]]
    )


def budgets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Labels with a budget."""

    def read(plane: ControlPlane) -> Iterable[str]:
        rows = plane.pages("/budgets", "budgets", {}, MOST)["budgets"]
        return [f"{one['label']}={one['value']}" for one in rows]

    return _found(ctx, incomplete, read)


def contexts(ctx: typer.Context, incomplete: str) -> list[str]:  # noqa: ARG001 - as the others
    """Names of contexts."""
    with suppress(CliError):
        return [name for name in load().places if name.startswith(incomplete)]
    return []


def device_paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """Files and folders of the client that is named before; below its roots."""
    client_id = ctx.params.get("client")
    if not isinstance(client_id, str) or _GLOB.search(incomplete):
        return []

    def read(plane: ControlPlane) -> Iterable[str]:
        roots = plane.call("GET", f"/clients/{segment(client_id)}").get("roots") or []
        above = [f"{root.rstrip('/')}/" for root in roots if f"{root.rstrip('/')}/".startswith(incomplete)]
        if above and incomplete not in above:
            return above
        found = plane.call(
            "GET",
            f"/clients/{segment(client_id)}/files",
            params={"pattern": f"{incomplete}*", "folders": "true", "limit": MOST},
        )
        return [f"{one['path']}/" if one.get("folder") else one["path"] for one in found["files"]]

    return _found(ctx, incomplete, read)


def _names(plane: ControlPlane, path: str, rows: str, member: str) -> list[str]:
    return [str(row[member]) for row in plane.pages(path, rows, {}, MOST)[rows]]


def _found(ctx: typer.Context, incomplete: str, read: Callable[[ControlPlane], Iterable[str]]) -> list[str]:
    """What begins as typed; nothing when there is no answer in time."""
    found: list[str] = []

    def work() -> None:
        # After a failure a key press shows nothing; a person who runs the command sees why.
        with suppress(Exception), _connected(ctx) as plane:
            # One candidate a line: of a file's name with line breaks, the shell would take each line for one.
            found.extend(name for name in read(plane) if name.startswith(incomplete) and name.isprintable())

    # A thread, for the resolver of names has no time limit of its own.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return list(found) if not thread.is_alive() else []


def _connected(ctx: typer.Context) -> ControlPlane:
    """The control plane that the command would call, by the options that were typed so far."""
    typed = {name: _typed(ctx, name) for name in ("server", "token_file", "context")}
    file = typed["token_file"]
    # Standard input is the terminal.
    token = secret_from(Path(str(file)), "") if file is not None and str(file) != str(STDIN) else None
    target = target_of(server=typed["server"], token=token, context=typed["context"])
    return ControlPlane(target.server, target.token)


def _typed(ctx: typer.Context, name: str) -> Any:  # noqa: ANN401 - the value of an option
    level: Any = ctx
    while level is not None:
        if (value := level.params.get(name)) is not None:
            return value
        level = level.parent
    return None
