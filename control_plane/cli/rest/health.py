"""`backhaul health` and `backhaul fleet`: whether a control plane can work, and the fleet in numbers.

Rule: a control plane that is not ready is a result; the exit code shows it.
"""

from typing import Annotated, Any, Final

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from control_plane.cli.errors import Failed
from control_plane.cli.layout import Column, Listing, Row, cell, facts
from control_plane.cli.rest.answers.shapes import FINDINGS, HOURS
from control_plane.cli.rest.token import rights_of
from control_plane.cli.rest.watching import Watch, show_or_watch
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import moment, size, visible

Hours = Annotated[int, typer.Option(min=1, max=168, help="How far back.")]
_CHANGES: Final = {"type": ["upload.*", "client.*"]}
_ENDS: Final = ("completed", "failed", "rejected", "cancelled", "expired")


def register(app: Tree, panel: str) -> None:
    """Add `whoami`."""
    app.command("whoami", rich_help_panel=panel)(rest_command(whoami))


def whoami(session: CliSession) -> None:
    """Show the caller as the control plane knows it, and the address of the control plane."""
    with session.connect() as plane:
        answer = plane.call("GET", "/session")
    document = {"server": plane.server, **answer}
    session.output.result(
        document,
        facts(
            ("server", plane.server),
            ("context", session.target.context),
            ("caller", answer.get("caller")),
            ("needs a token", "yes" if answer.get("auth") else "no"),
            ("may", rights_of(answer.get("scopes") or [])),
            ("clients", answer.get("clients") or "all"),
        ),
    )


def build() -> Tree:
    """`backhaul health …`."""
    app = new_app("See whether the control plane can work.")
    for name, function, shape in (
        ("ready", ready, None),
        ("details", details, FINDINGS),
        ("live", live, None),
        ("metrics", metrics, None),
    ):
        app.command(name)(rest_command(function, shape))
    return app


def build_fleet() -> Tree:
    """`backhaul fleet …`."""
    app = new_app("See the fleet in numbers.")
    app.command("show")(rest_command(show))
    app.command("history")(rest_command(history, HOURS))
    return app


def show(session: CliSession, *, watch: Watch = False) -> None:
    """Show how many clients are there, what is under way, what waits for what, and what ended today."""
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: plane.call("GET", "/fleet"),
            _fleet_view,
            None,
            _CHANGES,
            watch=watch,
        )


def history(session: CliSession, *, hours: Hours = 24) -> None:
    """Show what was sent and what ended, hour by hour."""
    with session.connect() as plane:
        answer = plane.call("GET", "/fleet/history", params={"hours": hours})
    columns = (
        Column("hour", lambda row: moment(row.get("begins_at"))),
        Column("sent", lambda row: size(row.get("bytes")), right=True),
        *(
            Column(state, lambda row, state=state: (row.get("ended") or {}).get(state), right=True)  # type: ignore[misc]
            for state in _ENDS
        ),
    )
    session.output.result(answer, Listing(columns, answer["hours"]), "nothing ended in this time")


def details(session: CliSession) -> None:
    """Show what the control plane finds wrong with its neighbours, and what to do; exits with 1 when something is."""
    with session.connect() as plane:
        answer = plane.call("GET", "/health/details")
    findings = answer.get("findings") or []
    columns = (
        Column("", lambda row: _coloured("ok" if row.get("fine") else "wrong", "ok")),
        Column("what", lambda row: row.get("name")),
        Column("finding", _finding),
    )
    replicas = (
        Column("replica", lambda row: row.get("replica_id"), whole=True),
        Column("host", lambda row: row.get("host")),
        Column("version", lambda row: row.get("version")),
        Column("seen", lambda row: moment(row.get("seen_at"))),
    )
    view = Group(_view({"status": "ready" if answer.get("ready") else "not ready", **answer}), "",
                 Listing(columns, findings), "", Listing(replicas, answer.get("replicas") or ()))  # fmt: skip
    session.output.result(answer, view)
    if not answer.get("ready") or not all(one.get("fine") for one in findings):
        raise typer.Exit(Failed.exit_code)


def _finding(row: Row) -> Text:
    text = cell(row.get("text"))
    return text.append(f"\n→ {visible(row['remedy'])}", style="bold") if row.get("remedy") else text


def _fleet_view(answer: Row) -> Table:
    counts = {name: answer.get(name) or {} for name in ("clients", "open", "ended")}
    texts = {
        name: ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in found.items() if number) or "none"
        for name, found in counts.items()
    }
    return facts(
        ("clients", texts["clients"]),
        ("under way", texts["open"]),
        *((f"waits: {one.get('code')}", one.get("count")) for one in answer.get("waiting") or ()),
        ("ended today", texts["ended"]),
        ("sent today", size(answer.get("bytes"))),
        *((f"failed: {one.get('code')}", one.get("count")) for one in answer.get("failures") or ()),
        ("as of", moment(answer.get("as_of"))),
    )


def ready(session: CliSession) -> None:
    """Check broker, database and object store; exits with 1 when one of them is missing."""
    with session.connect() as plane:
        answer = plane.readiness()
    session.output.result(answer, _view(answer))
    if answer.get("status") != "ready":
        raise typer.Exit(Failed.exit_code)


def live(session: CliSession) -> None:
    """See that the process answers, and what its clock shows."""
    with session.connect() as plane:
        answer = plane.call("GET", "/health")
    session.output.result(answer, f"{session.server} answers; its clock shows {visible(answer.get('timestamp'))}")


def metrics(session: CliSession) -> None:
    """Print its figures in Prometheus' text format."""
    with session.connect() as plane:
        for line in plane.lines("/metrics", {}):
            session.output.text(line)


def _view(answer: dict[str, Any]) -> Table:
    checks = {name: text for name, text in (answer.get("checks") or {}).items() if name != "store"}
    return facts(
        ("status", _coloured(answer.get("status"), "ready")), *((n, _coloured(t, "ok")) for n, t in checks.items())
    )


def _coloured(text: object, good: str) -> Text:
    return Text(visible(text), style="green" if text == good else "red")
