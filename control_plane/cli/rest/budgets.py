"""Commands for budgets, over REST.

Rule: each is one call of the control plane.
"""

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from control_plane.cli.errors import Misused
from control_plane.cli.parsing import read_key_values
from control_plane.cli.rest.client import segment
from control_plane.cli.rest.tables import cell, id_cell, table
from control_plane.cli.session import CliSession, new_app, rest_command
from control_plane.cli.text import moment, size

Label = Annotated[str, typer.Argument(metavar="LABEL=VALUE", help="The label of the clients, such as site=berlin.")]
Rate = Annotated[str, typer.Argument(metavar="RATE", help="Bytes a second, such as 2MiB.")]


def build() -> typer.Typer:
    """`backhaul budget …`."""
    app = new_app("Bound the bytes a second that all clients with a label send together.")
    for name, function in (("list", list_budgets), ("show", show), ("set", put), ("delete", delete)):
        app.command(name)(rest_command(function))
    return app


def list_budgets(session: CliSession) -> None:
    """List the budgets."""
    with session.connect() as plane:
        answer = plane.pages("/budgets", "budgets", {})
    shown = table("label", "a second", "spent until", "users", "waiting")
    for row in answer["budgets"]:
        shown.add_row(
            cell(f"{row['label']}={row['value']}"),
            size(row["bytes_per_second"]),
            moment(row["spent_until"]),
            str(len(row["users"])),
            str(row["waiting"]),
        )
    session.output.result(answer, shown)


def show(session: CliSession, label: Label) -> None:
    """Show one budget: who uses it, and who waits."""
    with session.connect() as plane:
        answer = plane.call("GET", _path(label))
    session.output.result(answer, _view(answer))


def put(session: CliSession, label: Label, rate: Rate) -> None:
    """Set a budget, from the next grant on."""
    body = {"bytes_per_second": int(rate) if rate.isascii() and rate.isdigit() else rate}
    with session.connect() as plane:
        answer = plane.call("PUT", _path(label), json=body, repeatable=True)
    session.output.result(answer, _view(answer))


def delete(session: CliSession, label: Label) -> None:
    """Delete a budget; what waits for it goes on at once."""
    with session.connect() as plane:
        plane.delete(_path(label))
    session.output.result({"label": label, "deleted": True}, f"the budget of {label} is deleted")


def _path(text: str) -> str:
    ((label, value),) = read_key_values([text]).items()
    if "/" in label:
        message = f"{text!r}: a label with a budget has a name without /"
        raise Misused(message)
    return f"/budgets/{segment(label)}/{segment(value)}"


def _view(row: dict[str, Any]) -> Group:
    head = f"{row['label']}={row['value']}: {size(row['bytes_per_second'])} a second, {row['waiting']} waiting"
    users = table("uses it", "client", "job", "bytes", "until")
    for one in row["users"]:
        users.add_row(
            id_cell(one["upload_id"]),
            cell(one["client_id"]),
            cell(one["job_id"]),
            size(one["bytes"]),
            moment(one["until"]),
        )
    waiters = table("waits", "client", "job", "priority", "since")
    for one in row["waiters"]:
        waiters.add_row(
            *_names(one), str(one["priority"]), moment(one["since"]) + (" (absent)" if one["absent"] else "")
        )
    return Group(head, *(shown for shown in (users, waiters) if shown.row_count))


def _names(one: dict[str, Any]) -> tuple[Text, Text, Text]:
    return id_cell(one["upload_id"]), cell(one["client_id"]), cell(one["job_id"])
