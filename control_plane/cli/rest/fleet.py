"""`backhaul client` and `backhaul group`: who belongs to the fleet, labels, groups.

Rule: each is one call of the control plane, which may be repeated.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

from control_plane.cli.errors import Misused
from control_plane.cli.parsing import read_key_values
from control_plane.cli.rest.answers.shapes import CLIENT, CLIENT_STATUS, CLIENTS, FILES, GROUP, GROUPS, HISTORY
from control_plane.cli.rest.arguments import Client, ClientInState, GroupName, IdPattern, Selector
from control_plane.cli.rest.client import segment
from control_plane.cli.rest.clients import clients, files, history, status
from control_plane.cli.rest.many import chosen_clients
from control_plane.cli.rest.tables import group_view, groups_table, whole_client_view
from control_plane.cli.rest.watching import Watch, show_or_watch
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.shell import candidates
from control_plane.cli.text import visible

MaybeClient = Annotated[str | None, typer.Argument(metavar="[CLIENT]", help="The client's id.")]
File = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", metavar="CSV", exists=True, dir_okay=False, readable=True,
        help='Many clients: a CSV whose first line is id,labels,note; labels are "site=berlin,ring=beta".',
    ),
]  # fmt: skip
SetLabels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label to set. Repeatable.")
]
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="What people should know.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE|KEY-]...", help="Labels to set, and with a - behind it, to take off."),
]
ManyChanges = Annotated[
    list[str], typer.Argument(metavar="KEY=VALUE|KEY-...", help="Labels to set, and with a - behind it, to take off.")
]
Replace = Annotated[bool, typer.Option("--replace", help="Take off every other label that was set here.")]
NewName = Annotated[str, typer.Argument(metavar="GROUP", help="The new group's name.")]
Members = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CLIENT]...", help="Client ids, and patterns such as 'shop-*'.", autocompletion=candidates.clients
    ),
]

_CSV: Final = {"Content-Type": "text/csv"}


def build_client() -> Tree:
    """`backhaul client …`."""
    app = new_app("Look at clients and their files; name clients as part of the fleet, label them, forget them.")
    for name, function, shape in (
        ("list", clients, CLIENTS),
        ("show", show, CLIENT),
        ("status", status, CLIENT_STATUS),
        ("files", files, FILES),
        ("history", history, HISTORY),
        ("add", add, None),
        ("label", label, CLIENT),
        ("label-many", label_many, None),
        ("forget", forget, None),
    ):
        app.command(name)(rest_command(function, shape))
    return app


def build_group() -> Tree:
    """`backhaul group …`."""
    app = new_app("Keep named selections of clients, used as group:NAME.")
    for name, function, shape in (
        ("list", list_groups, GROUPS),
        ("show", show_group, GROUP),
        ("create", create_group, GROUP),
        ("set", set_group, GROUP),
        ("delete", delete_group, None),
    ):
        app.command(name)(rest_command(function, shape))
    return app


def show(session: CliSession, client: Client, *, watch: Watch = False) -> None:
    """Show everything about one client."""
    path = _client_path(client)
    with session.connect() as plane:
        show_or_watch(
            session, lambda: plane.call("GET", path), whole_client_view, CLIENT, {"client": client}, watch=watch
        )


def add(
    session: CliSession, client: MaybeClient = None, *, label: SetLabels = None, note: Note = None, file: File = None
) -> None:
    """Name a client, or all clients of a CSV, before the agents connect. A repeat changes nothing."""
    if (client is None) == (file is None):
        text = "name one client, or a CSV with --file"
        raise Misused(text)
    if file is not None:
        if label or note is not None:
            text = "--label and --note belong to one client: the CSV has columns for them"
            raise Misused(text)
        with session.connect() as plane:
            answer = plane.call("POST", "/clients", repeatable=True, content=_read(file), headers=_CSV)
        summary = f"{answer['clients']} clients: {answer['created']} are new, {answer['changed']} were changed"
        session.output.result(answer, summary)
        return
    body = {"client_id": client, "labels": read_key_values(label) if label else None, "note": note}
    with session.connect() as plane:
        answer = plane.call("POST", "/clients", repeatable=True, json=body)
    session.output.result(answer, whole_client_view(answer))


def label(session: CliSession, client: Client, changes: Changes = None, *, replace: Replace = False) -> None:
    """Set labels on a client, or take them off: site=berlin ring-. They win over those that the device reports."""
    body = _labels(changes or [])
    if replace:
        body = {name: value for name, value in body.items() if value is not None}
    with session.connect() as plane:
        answer = plane.call("PUT" if replace else "PATCH", f"{_client_path(client)}/labels", repeatable=True, json=body)
    session.output.result(answer, whole_client_view(answer))


def label_many(
    session: CliSession,
    changes: ManyChanges,
    *,
    pattern: IdPattern = None,
    selector: Selector = None,
    state: ClientInState = None,
) -> None:
    """Set labels on all clients that match, or take them off; a person is asked, with the number of clients."""
    body = _labels(changes)
    with session.connect() as plane:
        where = chosen_clients(session, plane, "Change the labels of", pattern, selector, state)
        answer = plane.call("PATCH", "/clients/labels", json={"where": where, "labels": body})
    session.output.result(answer, f"{answer['changed']} of {answer['clients']} clients have other labels now")


def forget(session: CliSession, client: Client) -> None:
    """Forget a client; its uploads stay. A connected one returns with its next presence."""
    session.output.confirm(f"Forget {client}, with its labels and its note?")
    with session.connect() as plane:
        plane.call("DELETE", _client_path(client))
    session.output.result({"client_id": client, "forgotten": True}, f"{visible(client)} is forgotten")


def list_groups(session: CliSession) -> None:
    """List the groups."""
    with session.connect() as plane:
        answer = plane.call("GET", "/groups")
    none = f"no groups; `{session.step('group', 'create', '--help')}` shows how to make one"
    session.output.result(answer, groups_table(answer["groups"]), none)


def show_group(session: CliSession, group: GroupName) -> None:
    """Show one group, and how many clients it selects now."""
    with session.connect() as plane:
        answer = plane.call("GET", _group_path(group))
    session.output.result(answer, group_view(answer))


def create_group(
    session: CliSession, group: NewName, clients: Members = None, *, selector: Selector = None, note: Note = None
) -> None:
    """Create a group of the clients that are named or that the selector matches."""
    content = _content(clients, selector, note)
    with session.connect() as plane:
        answer = plane.call("POST", "/groups", repeatable=True, json={"name": group, **content})
    session.output.result(answer, group_view(answer))


def set_group(
    session: CliSession, group: GroupName, clients: Members = None, *, selector: Selector = None, note: Note = None
) -> None:
    """Create or replace a group: what is not given is empty afterwards."""
    content = _content(clients, selector, note)
    with session.connect() as plane:
        answer = plane.call("PUT", _group_path(group), repeatable=True, json=content)
    session.output.result(answer, group_view(answer))


def delete_group(session: CliSession, group: GroupName) -> None:
    """Delete a group; its clients stay."""
    session.output.confirm(f"Delete the group {group}?")
    with session.connect() as plane:
        plane.call("DELETE", _group_path(group))
    session.output.result({"group": group, "deleted": True}, f"group {visible(group)} is deleted")


def _labels(changes: list[str]) -> dict[str, str | None]:
    """`site=berlin` sets a label, `ring-` takes one off."""
    dropped = [change for change in changes if change.endswith("-") and "=" not in change]
    added = read_key_values(change for change in changes if change not in dropped)
    return {**{change[:-1]: None for change in dropped}, **added}


def _client_path(client_id: str) -> str:
    return f"/clients/{segment(client_id)}"


def _group_path(name: str) -> str:
    return f"/groups/{segment(name)}"


def _content(clients: list[str] | None, selector: str | None, note: str | None) -> dict[str, object]:
    return {"clients": clients or [], "selector": selector, "note": note or ""}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        text = f"{file}: {error.strerror}"
        raise Misused(text) from error
