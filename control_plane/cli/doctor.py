"""`backhaul doctor`: what is wrong with the database and the object store, and how to mend it.

Rule: it reads the settings of `serve`, and changes nothing without `--fix`.
"""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.session import CliSession

Fix = Annotated[
    bool, typer.Option("--fix", help="Add the lifecycle rule by which the store aborts what stays incomplete.")
]


def doctor(session: CliSession, *, fix: Fix = False) -> None:
    """Examine the database and the object store that the settings name; exits 1 when something is wrong."""
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
    labels = {True: "ok   ", False: "wrong"}
    lines = [f"{labels[one.fine]}  {one.name}: {one.text}" for one in findings]
    session.output.result({"ok": not wrong, "findings": [asdict(one) for one in findings]}, "\n".join(lines))
    if wrong:
        raise typer.Exit(Failed.exit_code)
