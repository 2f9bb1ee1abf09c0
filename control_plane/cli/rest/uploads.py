"""Commands that start, follow and cancel uploads, over REST.

Rule: an upload belongs to the control plane; leaving a command never ends it.
"""

import uuid
from typing import Annotated

import typer
from rich.text import Text

from control_plane.cli.errors import Failed
from control_plane.cli.parsing import read_deadline, read_key, read_key_values, read_options
from control_plane.cli.program import program
from control_plane.cli.rest.client import ControlPlane, Document
from control_plane.cli.rest.progress import display_for, failures, follow
from control_plane.cli.rest.tables import upload_view, uploads_table
from control_plane.cli.session import CliSession, rest_command

Client = Annotated[str, typer.Argument(metavar="CLIENT", help="The client's id.")]
UploadId = Annotated[str, typer.Argument(metavar="UPLOAD", help="The upload's id.")]
Path = Annotated[
    str | None, typer.Argument(metavar="[PATH]", help="The file on the device; left out: the device's default file.")
]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Stay until the upload has ended; 1 unless it completed.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Kept with the upload. Repeatable.")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="KEY=VALUE",
        help="priority, max_bytes_per_second, on_change, compression, give_up_after. Repeatable.",
    ),
]
Deadline = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Give up then: 2h, 7d or 2025-11-01T10:00:00Z. \\[7d]")
]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", metavar="KEY", help="The same key asks for the same upload again.")
]
OfClient = Annotated[str | None, typer.Option("--client", "-c", metavar="CLIENT", help="Of this client only.")]
OfStatus = Annotated[
    str | None,
    typer.Option("--status", "-s", metavar="STATUS", help="queued, in_progress, completed, failed or cancelled."),
]
Most = Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (
        ("trigger", trigger),
        ("uploads", uploads),
        ("upload", upload),
        ("cancel", cancel),
        ("retry", retry),
        ("url", url),
    ):
        app.command(name)(rest_command(function))


def trigger(
    session: CliSession,
    client: Client,
    path: Path = None,
    *,
    wait: Wait = False,
    metadata: Metadata = None,
    option: Options = None,
    deadline: Deadline = None,
    idempotency_key: Key = None,
) -> None:
    """Tell a client to upload a file."""
    wanted: dict[str, object] = {
        "file_path": path,
        "metadata": read_key_values(metadata or ()),
        "options": read_options(option or ()),
        "deadline": read_deadline(deadline),
    }
    body = {key: value for key, value in wanted.items() if value}
    with session.connect() as plane:
        answer = plane.trigger(client, body, read_key(idempotency_key) or uuid.uuid4().hex)
        if wait:
            _wait_for(session, plane, answer["upload_id"])
            return
    session.output.result(answer, _triggered(answer))


def uploads(
    session: CliSession,
    upload_id: Annotated[str | None, typer.Argument(metavar="[UPLOAD]", help="Show only this one, in full.")] = None,
    *,
    client: OfClient = None,
    status: OfStatus = None,
    limit: Most = 50,
) -> None:
    """List uploads, newest first, or show one."""
    with session.connect() as plane:
        if upload_id is not None:
            _show(session, plane.upload(upload_id, client))
            return
        answer = plane.uploads(most=limit, client_id=client, status=status)
    session.output.result(answer, uploads_table(answer["uploads"], short=session.output.stdout.is_terminal))


def upload(session: CliSession, upload_id: UploadId, *, client: OfClient = None, wait: Wait = False) -> None:
    """Show one upload, with --wait until it has ended."""
    with session.connect() as plane:
        if wait:
            _wait_for(session, plane, upload_id, client)
        else:
            _show(session, plane.upload(upload_id, client))


def cancel(session: CliSession, upload_id: UploadId, *, client: OfClient = None) -> None:
    """End an upload; what was sent is removed."""
    with session.connect() as plane:
        answer = plane.cancel(upload_id, client)
    session.output.result(answer, f"upload {upload_id} is cancelled")


def retry(session: CliSession, upload_id: UploadId, *, client: OfClient = None, wait: Wait = False) -> None:
    """Begin an upload that ended badly again, under a new id."""
    with session.connect() as plane:
        answer = plane.retry(upload_id, client)
        if wait:
            _wait_for(session, plane, answer["upload_id"])
            return
    session.output.result(answer, _triggered(answer))


def url(session: CliSession, upload_id: UploadId, *, client: OfClient = None) -> None:
    """Print a URL that reads the object, for as long as it lives."""
    with session.connect() as plane:
        answer = plane.url(upload_id, client)
    session.output.result(answer, str(answer["url"]))


def _wait_for(session: CliSession, plane: ControlPlane, upload_id: str, client: str | None = None) -> None:
    """Show the upload until it ends; `Failed` unless it completed."""
    try:
        with display_for(session.output) as display:
            ended = follow(lambda one: plane.upload(one, client), [upload_id], display)
    except KeyboardInterrupt:
        session.output.note(f"the upload goes on; `{program()} cancel {upload_id}` ends it")
        raise
    _show(session, ended[0])
    if failures(ended):
        # The view, or the document, has shown it already.
        raise typer.Exit(Failed.exit_code)


def _show(session: CliSession, document: Document) -> None:
    session.output.result(document, upload_view(document))


def _triggered(answer: Document) -> Text:
    lines = (answer.get("message"), f"upload {answer.get('upload_id')}", f"object {answer.get('s3_key')}")
    return Text("\n".join(str(line) for line in lines if line))
