"""Arguments and options that several commands take.

Rule: one spelling and one help text for one thing, and what completes it.
"""

from typing import Annotated

import typer

from control_plane.cli.errors import Misused
from control_plane.cli.shell import candidates
from control_plane.cli.text import duration
from control_plane.domain.clients import ClientState

Client = Annotated[str, typer.Argument(metavar="CLIENT", help="The client's id.", autocompletion=candidates.clients)]
UploadId = Annotated[str, typer.Argument(metavar="UPLOAD", help="The upload's id.", autocompletion=candidates.uploads)]
DevicePath = Annotated[
    str | None,
    typer.Argument(
        metavar="[PATH]",
        help="The file on the device; left out: the device's default file.",
        autocompletion=candidates.device_paths,
    ),
]
Pattern = Annotated[
    str,
    typer.Argument(
        metavar="[PATTERN]",
        help="A glob of absolute paths, such as '/data/*.bin'.",
        autocompletion=candidates.device_paths,
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", autocompletion=candidates.jobs)]
ScheduleId = Annotated[
    str, typer.Argument(metavar="SCHEDULE", help="The schedule's id.", autocompletion=candidates.schedules)
]
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="The group's name.", autocompletion=candidates.groups)]
WebhookId = Annotated[
    str, typer.Argument(metavar="WEBHOOK", help="The webhook's id.", autocompletion=candidates.webhooks)
]
Label = Annotated[
    str,
    typer.Argument(
        metavar="LABEL=VALUE",
        help="The label of the clients, such as site=berlin.",
        autocompletion=candidates.budgets,
    ),
]
EncryptTo = Annotated[
    list[str] | None,
    typer.Option(
        "--encrypt-to",
        metavar="RECIPIENT",
        help="Seal the file on the device for age1…, or for a file of recipients. Repeatable.",
    ),
]
After = Annotated[
    str | None,
    typer.Option(
        "--after",
        metavar="ACT",
        help="What the device does with a file once it is proven: keep, delete or move:/FOLDER. \\[keep]",
    ),
]
OfClient = Annotated[
    str | None,
    typer.Option("--client", "-c", metavar="CLIENT", help="Of this client only.", autocompletion=candidates.clients),
]
Selector = Annotated[
    str | None,
    typer.Option(
        "--selector",
        "-l",
        metavar="SELECTOR",
        help="Only clients with these labels: 'site=berlin,model in (a,b),!old'.",
    ),
]
IdPattern = Annotated[
    str | None, typer.Option("--id", metavar="PATTERN", help="Only clients whose id matches: 'till-*'.")
]
ClientInState = Annotated[
    ClientState | None,
    typer.Option("--state", "-s", help="Only clients that are in this state.", case_sensitive=False),
]
Selected = Annotated[
    list[str] | None,
    typer.Option(
        "--client",
        "-c",
        metavar="CLIENT",
        help="An id, a pattern such as 'till-*', or group:NAME. Repeatable.",
        autocompletion=candidates.selections,
    ),
]
Most = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")]
Timeout = Annotated[
    str | None, typer.Option(metavar="TIME", help="With --wait: stay at most so long, 90s or 10m; then exit with 124.")
]


def read_seconds(text: str | None) -> float | None:
    """Seconds in `90s`, `10m`; `Misused` for what is no time."""
    if text is None:
        return None
    seconds = duration(text)
    if seconds is None:
        message = f"{text!r} is no time: write 90s, 10m or 2h"
        raise Misused(message)
    return seconds
