"""Commands for webhooks, over REST.

Rule: each is one call of the control plane.
"""

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from control_plane.cli.errors import Misused
from control_plane.cli.formats import Shape
from control_plane.cli.layout import Column, Listing, Row, facts, id_cell
from control_plane.cli.rest.answers.shapes import DELIVERIES, DELIVERY, NEW_WEBHOOK, WEBHOOK, WEBHOOKS
from control_plane.cli.rest.arguments import Most, WebhookId
from control_plane.cli.rest.client import segment
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import moment, visible

Url = Annotated[str, typer.Argument(metavar="URL", help="Where changes are sent: https://…")]
Types = Annotated[
    list[str] | None, typer.Option("--type", "-t", metavar="TYPE", help="upload.state_changed, job.*. Repeatable.")
]
Selector = Annotated[str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="Of clients with labels.")]
State = Annotated[str | None, typer.Option("--state", "-s", metavar="STATE", help="waiting, delivered or dead.")]
NewUrl = Annotated[str | None, typer.Option("--url", metavar="URL", help="Send them there from now on.")]
Number = Annotated[int | None, typer.Argument(metavar="[NUMBER]", help="The number of one delivery.")]
Dead = Annotated[bool, typer.Option("--dead", help="All dead deliveries, the newest 1,000.")]


def build() -> Tree:
    """`backhaul webhook …`."""
    app = new_app("Send changes to a URL as signed messages.")
    for name, function, shape in (
        ("add", add, NEW_WEBHOOK),
        ("list", list_webhooks, WEBHOOKS),
        ("show", show, WEBHOOK),
        ("set", change, WEBHOOK),
        ("enable", enable, WEBHOOK),
        ("disable", disable, WEBHOOK),
        ("rm", remove, None),
        ("deliveries", deliveries, DELIVERIES),
        ("replay", replay, DELIVERY),
    ):
        app.command(name)(rest_command(function, shape))
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
    columns = (
        Column("webhook", lambda row: row["webhook_id"], whole=True),
        Column("url", lambda row: row["url"]),
        Column("types", lambda row: " ".join(row["types"]) or "all"),
        Column("selector", lambda row: row["selector"] or "-"),
        Column("waiting", lambda row: row["waiting"], right=True),
        Column("state", _state),
    )
    none = f"no webhooks; `{session.step('webhook', 'add', '--help')}` shows how to add one"
    session.output.result(answer, Listing(columns, answer["webhooks"]), none)


def show(session: CliSession, webhook: WebhookId) -> None:
    """Show one webhook."""
    with session.connect() as plane:
        answer = plane.call("GET", _path(webhook))
    session.output.result(answer, _view(answer))


def change(
    session: CliSession, webhook: WebhookId, *, url: NewUrl = None, types: Types = None, selector: Selector = None
) -> None:
    """Change where a webhook sends, or what; what is not given stays."""
    given = {"url": url, "types": types, "selector": selector}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        message = "nothing to change: give --url, --type or --selector"
        raise Misused(message)
    _change(session, webhook, **changes)


def enable(session: CliSession, webhook: WebhookId) -> None:
    """Enable a webhook: it gets the changes from now on."""
    _change(session, webhook, enabled=True)


def disable(session: CliSession, webhook: WebhookId) -> None:
    """Disable a webhook; its deliveries are kept."""
    _change(session, webhook, enabled=False)


def remove(session: CliSession, webhook: WebhookId) -> None:
    """Delete a webhook and its deliveries."""
    session.output.confirm(f"Delete the webhook {webhook} and its deliveries?")
    with session.connect() as plane:
        plane.delete(_path(webhook))
    session.output.result({"webhook_id": webhook, "deleted": True}, f"webhook {visible(webhook)} is deleted")


def deliveries(session: CliSession, webhook: WebhookId, *, state: State = None, limit: Most = 50) -> None:
    """List the deliveries of a webhook, newest first."""
    with session.connect() as plane:
        answer = plane.pages(f"{_path(webhook)}/deliveries", "deliveries", {"state": state}, limit)
    session.output.result(answer, _deliveries_table(answer["deliveries"]), "no deliveries")


def replay(session: CliSession, webhook: WebhookId, number: Number = None, *, dead: Dead = False) -> None:
    """Send a delivery once more, or with --dead all that were given up."""
    if (number is None) != dead:
        message = "name the NUMBER of a delivery, or say --dead"
        raise Misused(message)
    with session.connect() as plane:
        if number is None:
            answer = plane.call("POST", f"{_path(webhook)}/replay")
            session.output.result(answer, f"{answer['replayed']} deliveries wait again", shape=_REPLAYED)
            return
        answer = plane.call("POST", f"{_path(webhook)}/deliveries/{number}/replay")
    session.output.result(answer, _deliveries_table([answer]))


def _change(session: CliSession, webhook: str, **change: object) -> None:
    with session.connect() as plane:
        answer = plane.call("PATCH", _path(webhook), json=change, repeatable=True)
    session.output.result(answer, _view(answer))


def _path(webhook: str) -> str:
    return f"/webhooks/{segment(webhook)}"


_REPLAYED = Shape("replayed", ("replayed",))


def _view(row: dict[str, Any]) -> Table:
    return facts(
        ("webhook", id_cell(row["webhook_id"])),
        ("url", row["url"]),
        ("types", " ".join(row["types"]) or "all"),
        ("selector", row["selector"] or "-"),
        ("state", _state(row)),
        ("waiting", row["waiting"]),
        ("since", moment(row["created_at"])),
        ("by", row["created_by"]),
    )


def _state(row: Row) -> Text:
    if row["enabled"]:
        return Text("enabled", style="green")
    return Text(f"disabled: {visible(row['note'])}" if row["note"] else "disabled", style="yellow")


def _deliveries_table(rows: list[dict[str, Any]]) -> Listing:
    columns = (
        Column("number", lambda row: row["number"], whole=True, right=True),
        Column("type", lambda row: row["type"]),
        Column("subject", lambda row: row["subject"]),
        Column("state", lambda row: row["state"]),
        Column("tries", lambda row: row["tries"], right=True),
        Column("status", lambda row: row["status"], wide=True, right=True),
        Column("last try", lambda row: moment(row["tried_at"])),
        Column("next try", lambda row: moment(row["next_try_at"])),
        Column("error", lambda row: row["error"]),
    )
    return Listing(columns, rows)
