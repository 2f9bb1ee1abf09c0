"""Commands for webhooks, over REST.

Rule: each is one call of the control plane.
"""

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from control_plane.cli.errors import Misused
from control_plane.cli.rest.client import segment
from control_plane.cli.rest.tables import cell, id_cell, table
from control_plane.cli.session import CliSession, new_app, rest_command
from control_plane.cli.text import moment, visible

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="The webhook's id.")]
Url = Annotated[str, typer.Argument(metavar="URL", help="Where changes are sent: https://…")]
Types = Annotated[
    list[str] | None, typer.Option("--type", "-t", metavar="TYPE", help="upload.state_changed, job.*. Repeatable.")
]
Selector = Annotated[str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="Of clients with labels.")]
State = Annotated[str | None, typer.Option("--state", "-s", metavar="STATE", help="waiting, delivered or dead.")]
Most = Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")]
Number = Annotated[int | None, typer.Argument(metavar="[NUMBER]", help="The number of one delivery.")]
Dead = Annotated[bool, typer.Option("--dead", help="All dead deliveries, the newest 1,000.")]


def build() -> typer.Typer:
    """`backhaul webhook …`."""
    app = new_app("Send changes to a URL as signed messages.")
    for name, function in (
        ("add", add),
        ("list", list_webhooks),
        ("show", show),
        ("enable", enable),
        ("disable", disable),
        ("rm", remove),
        ("deliveries", deliveries),
        ("replay", replay),
    ):
        app.command(name)(rest_command(function))
    return app


def add(session: CliSession, url: Url, *, types: Types = None, selector: Selector = None) -> None:
    """Send changes to a URL from now on. The secret that verifies them is printed once."""
    body = {"url": url, "types": types or [], "selector": selector or ""}
    with session.connect() as plane:
        answer = plane.call("POST", "/webhooks", json=body)
    note = "keep the secret: it verifies the messages, and is not shown again"
    session.output.result(answer, Group(_view(answer), f"secret  {answer['secret']}", note))


def list_webhooks(session: CliSession) -> None:
    """List the webhooks."""
    with session.connect() as plane:
        answer = plane.call("GET", "/webhooks")
    shown = table("webhook", "url", "types", "selector", "waiting", "state")
    for row in answer["webhooks"]:
        shown.add_row(
            id_cell(row["webhook_id"]),
            cell(row["url"]),
            cell(" ".join(row["types"]) or "all"),
            cell(row["selector"] or "-"),
            str(row["waiting"]),
            _state(row),
        )
    session.output.result(answer, shown)


def show(session: CliSession, webhook: WebhookId) -> None:
    """Show one webhook."""
    with session.connect() as plane:
        answer = plane.call("GET", _path(webhook))
    session.output.result(answer, _view(answer))


def enable(session: CliSession, webhook: WebhookId) -> None:
    """Enable a webhook: it gets the changes from now on."""
    _change(session, webhook, enabled=True)


def disable(session: CliSession, webhook: WebhookId) -> None:
    """Disable a webhook; its deliveries are kept."""
    _change(session, webhook, enabled=False)


def remove(session: CliSession, webhook: WebhookId) -> None:
    """Delete a webhook and its deliveries."""
    with session.connect() as plane:
        plane.delete(_path(webhook))
    session.output.result({"webhook_id": webhook, "deleted": True}, f"webhook {visible(webhook)} is deleted")


def deliveries(session: CliSession, webhook: WebhookId, *, state: State = None, limit: Most = 50) -> None:
    """List the deliveries of a webhook, newest first."""
    with session.connect() as plane:
        answer = plane.pages(f"{_path(webhook)}/deliveries", "deliveries", {"state": state}, limit)
    session.output.result(answer, _deliveries_table(answer["deliveries"]))


def replay(session: CliSession, webhook: WebhookId, number: Number = None, *, dead: Dead = False) -> None:
    """Send a delivery once more, or with --dead all that were given up."""
    if (number is None) != dead:
        message = "name the NUMBER of a delivery, or say --dead"
        raise Misused(message)
    with session.connect() as plane:
        if number is None:
            answer = plane.call("POST", f"{_path(webhook)}/replay")
            session.output.result(answer, f"{answer['replayed']} deliveries wait again")
            return
        answer = plane.call("POST", f"{_path(webhook)}/deliveries/{number}/replay")
    session.output.result(answer, _deliveries_table([answer]))


def _change(session: CliSession, webhook: str, **change: object) -> None:
    with session.connect() as plane:
        answer = plane.call("PATCH", _path(webhook), json=change, repeatable=True)
    session.output.result(answer, _view(answer))


def _path(webhook: str) -> str:
    return f"/webhooks/{segment(webhook)}"


def _view(row: dict[str, Any]) -> Table:
    shown = Table.grid(padding=(0, 2, 0, 0))
    for name, value in (
        ("webhook", id_cell(row["webhook_id"])),
        ("url", cell(row["url"])),
        ("types", cell(" ".join(row["types"]) or "all")),
        ("selector", cell(row["selector"] or "-")),
        ("state", _state(row)),
        ("waiting", cell(row["waiting"])),
        ("since", cell(moment(row["created_at"]))),
        ("by", cell(row["created_by"])),
    ):
        shown.add_row(name, value)
    return shown


def _state(row: dict[str, Any]) -> Text:
    if row["enabled"]:
        return Text("enabled", style="green")
    return Text(f"disabled: {visible(row['note'])}" if row["note"] else "disabled", style="yellow")


def _deliveries_table(rows: list[dict[str, Any]]) -> Table:
    shown = table("number", "type", "subject", "state", "tries", "last try", "next try", "error")
    for row in rows:
        shown.add_row(
            id_cell(row["number"]),
            cell(row["type"]),
            cell(row["subject"]),
            cell(row["state"]),
            str(row["tries"]),
            cell(moment(row["tried_at"])),
            cell(moment(row["next_try_at"])),
            cell(row["error"] or "-"),
        )
    return shown
