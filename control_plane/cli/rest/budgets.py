"""Commands for budgets, over REST.

Rule: each is one call of the control plane.
"""

from typing import Annotated

import typer
from rich.console import Group

from control_plane.cli.errors import Misused
from control_plane.cli.layout import Column, Listing, Row
from control_plane.cli.parsing import read_key_values
from control_plane.cli.rest.answers.shapes import BUDGET, BUDGETS
from control_plane.cli.rest.arguments import Label
from control_plane.cli.rest.client import segment
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import moment, size, visible

Rate = Annotated[str, typer.Argument(metavar="RATE", help="Bytes a second, such as 2MiB.")]


def build() -> Tree:
    """`backhaul budget …`."""
    app = new_app("Bound the bytes a second that all clients with a label send together.")
    for name, function, shape in (
        ("list", list_budgets, BUDGETS),
        ("show", show, BUDGET),
        ("set", put, BUDGET),
        ("delete", delete, None),
    ):
        app.command(name)(rest_command(function, shape))
    return app


def list_budgets(session: CliSession) -> None:
    """List the budgets."""
    with session.connect() as plane:
        answer = plane.pages("/budgets", "budgets", {})
    columns = (
        Column("label", lambda row: f"{row['label']}={row['value']}", whole=True),
        Column("a second", lambda row: size(row["bytes_per_second"]), right=True),
        Column("spent until", lambda row: moment(row["spent_until"])),
        Column("users", lambda row: len(row["users"]), right=True),
        Column("waiting", lambda row: row["waiting"], right=True),
    )
    none = f"no budgets; `{session.step('budget', 'set', '--help')}` shows how to set one"
    session.output.result(answer, Listing(columns, answer["budgets"]), none)


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
    """Delete a budget; what waits for it continues at once."""
    session.output.confirm(f"Delete the budget of {label}?")
    with session.connect() as plane:
        plane.delete(_path(label))
    session.output.result({"label": label, "deleted": True}, f"the budget of {visible(label)} is deleted")


def _path(text: str) -> str:
    ((label, value),) = read_key_values([text]).items()
    if "/" in label:
        message = f"{text!r}: a label with a budget has a name without /"
        raise Misused(message)
    return f"/budgets/{segment(label)}/{segment(value)}"


def _view(row: Row) -> Group:
    head = f"{row['label']}={row['value']}: {size(row['bytes_per_second'])} a second, {row['waiting']} waiting"
    users = (*_WHO, Column("bytes", lambda one: size(one["bytes"]), right=True), _moment("until"))
    waiters = (*_WHO, Column("priority", lambda one: one["priority"], right=True), _moment("since"))
    shown = [Listing(columns, rows) for columns, rows in ((users, row["users"]), (waiters, row["waiters"])) if rows]
    return Group(head, *shown)


def _moment(member: str) -> Column:
    return Column(member, lambda one: moment(one[member]) + (" (absent)" if one.get("absent") else ""))


_WHO = (
    Column("upload", lambda one: one["upload_id"], whole=True),
    Column("client", lambda one: one["client_id"]),
    Column("job", lambda one: one["job_id"]),
)
