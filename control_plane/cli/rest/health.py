"""`backhaul health` and `backhaul fleet`: whether a control plane can work, and the fleet in numbers.

Rule: a control plane that is not ready is a result; the exit code shows it.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from control_plane.cli.errors import Failed
from control_plane.cli.layout import Column, Listing, Row, facts
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import instant, size, visible

_MOVING: Final = frozenset({"uploading", "completing"})


Hours = Annotated[int, typer.Option(min=1, max=168, help="Show this many hours one by one, with the present one.")]


def register(app: Tree, panel: str) -> None:
    """Add `whoami`."""
    app.command("whoami", rich_help_panel=panel)(rest_command(whoami))


def fleet(session: CliSession) -> None:
    """Show the fleet in numbers: who is online, what waits and why, how today went (in UTC)."""
    with session.connect() as plane:
        answer = plane.call("GET", "/fleet")
    clients, ended = answer["clients"], answer["ended"]
    waits = [one for one in answer["waiting"] if one["code"] not in _MOVING]
    shown = facts(
        ("online", clients["connected"]),
        ("offline", clients["offline"]),
        ("never seen", clients["never_seen"]),
        ("open", ", ".join(f"{count} {state}" for state, count in answer["open"].items() if count) or "none"),
        ("waiting for", _ranked(waits)),
        ("ended today", ", ".join(f"{count} {state}" for state, count in ended.items() if count) or "none"),
        ("received today", size(answer["bytes"])),
        ("failures, 24 h", _ranked(answer["failures"])),
    )
    session.output.result(answer, shown)


def history(session: CliSession, *, hours: Hours = 24) -> None:
    """Show what the fleet uploaded hour by hour, and how uploads ended."""
    with session.connect() as plane:
        answer = plane.call("GET", "/fleet/history", params={"hours": hours})
    columns = [
        Column("hour", lambda row: instant(row["begins_at"]), whole=True),
        Column("received", lambda row: size(row["bytes"]), right=True),
        *(Column(state, _number_of(state), right=True) for state in answer["hours"][0]["ended"]),
    ]
    session.output.result(answer, Listing(columns, answer["hours"]))


def details(session: CliSession) -> None:
    """Show what the server finds wrong, each with its remedy; exits with 1 when it cannot work."""
    with session.connect() as plane:
        answer = plane.call("GET", "/health/details")
    columns = [
        Column("check", lambda row: row["name"]),
        Column("", lambda row: Text("fine", style="green") if row["fine"] else Text("wrong", style="red"), whole=True),
        Column("finding", lambda row: "\n".join(filter(None, (row["text"], row["remedy"] and f"→ {row['remedy']}")))),
    ]
    session.output.result(answer, Listing(columns, answer["findings"]))
    if not answer["ready"]:
        raise typer.Exit(Failed.exit_code)


def whoami(session: CliSession) -> None:
    """Show for whom the control plane takes the caller, and which one that is."""
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
        ),
    )


def build() -> Tree:
    """`backhaul health …`."""
    app = new_app("See whether the control plane can work.")
    commands = (("ready", ready), ("live", live), ("details", details), ("history", history), ("metrics", metrics))
    for name, function in commands:
        app.command(name)(rest_command(function))
    return app


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


def _ranked(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one['code']} ({one['count']})" for one in rows) or "nothing"


def _number_of(state: str) -> Callable[[Row], object]:
    return lambda row: row["ended"][state]


def _view(answer: dict[str, Any]) -> Table:
    checks = {name: text for name, text in (answer.get("checks") or {}).items() if name != "store"}
    return facts(
        ("status", _coloured(answer.get("status"), "ready")), *((n, _coloured(t, "ok")) for n, t in checks.items())
    )


def _coloured(text: object, good: str) -> Text:
    return Text(visible(text), style="green" if text == good else "red")
