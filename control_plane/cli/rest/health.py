"""`backhaul health`: whether a control plane can work, and its figures.

Rule: a control plane that is not ready is a result; the exit code shows it.
"""

from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from control_plane.cli.errors import Failed
from control_plane.cli.layout import facts
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import visible


def register(app: Tree, panel: str) -> None:
    """Add `whoami`."""
    app.command("whoami", rich_help_panel=panel)(rest_command(whoami))


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
    for name, function in (("ready", ready), ("live", live), ("metrics", metrics)):
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


def _view(answer: dict[str, Any]) -> Table:
    checks = {name: text for name, text in (answer.get("checks") or {}).items() if name != "store"}
    return facts(
        ("status", _coloured(answer.get("status"), "ready")), *((n, _coloured(t, "ok")) for n, t in checks.items())
    )


def _coloured(text: object, good: str) -> Text:
    return Text(visible(text), style="green" if text == good else "red")
