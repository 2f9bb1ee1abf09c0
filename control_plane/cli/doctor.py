"""`backhaul doctor`: what is wrong with the control plane's neighbours, and how to repair it.

Rule: it reads the settings of `serve`, and changes nothing without `--fix`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.session import CliSession
from control_plane.cli.text import visible

if TYPE_CHECKING:
    from control_plane.services.diagnosis.findings import Finding

Fix = Annotated[
    bool,
    typer.Option(
        "--fix",
        help="Repair what can be repaired without loss: migrate the database, add the lifecycle rule by which the store"
        " aborts what stays incomplete, remove retained commands.",
    ),
]
_WORDS: Final = {"ok": "green", "fixed": "cyan", "wrong": "bold red"}


def doctor(session: CliSession, *, fix: Fix = False) -> None:
    """Examine database, broker, object store and page that the settings name; exits 1 when something is wrong."""
    from control_plane.bootstrap import examine
    from control_plane.cli.mqtt.state_file import probes_directory
    from control_plane.services.errors import ServiceError
    from control_plane.settings import Settings, SettingsError

    try:
        findings = asyncio.run(examine(Settings.load(), fix=fix, probes=probes_directory()))
    except SettingsError as error:
        raise Misused(str(error)) from error
    except ServiceError as error:
        raise Failed(str(error)) from error
    wrong = [finding for finding in findings if not finding.fine]
    session.output.result({"ok": not wrong, "findings": [asdict(one) for one in findings]}, _shown(findings))
    if wrong:
        raise typer.Exit(Failed.exit_code)


def _shown(findings: "Sequence[Finding]") -> RenderableType:
    """A line for each finding, its remedy below it; long texts continue in their own column."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        word = "wrong" if not one.fine else "fixed" if one.fixed else "ok"
        table.add_row(Text(word, style=_WORDS[word]), visible(one.name), Text(visible(one.text)))
        if one.remedy is not None:
            table.add_row("", "", Text(f"→ {visible(one.remedy)}", style="bold"))
    count = sum(not one.fine for one in findings)
    verdict = "Nothing is wrong." if not count else f"{count} of {len(findings)} findings are wrong."
    table.add_row("", "", "")
    table.add_row("", "", Text(verdict, style="bold green" if not count else "bold red"))
    return table
