"""`backhaul upload`: request, look at, follow, cancel; and the short verbs of the same.

Rule: an upload belongs to the control plane; leaving a command never ends it.
"""

import uuid
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from control_plane.cli.errors import CliError, Failed, Misused
from control_plane.cli.parsing import read_after, read_deadline, read_key, read_key_values, read_upload_options
from control_plane.cli.rest.answers.shapes import OBJECT_URL, TIMELINE, TRIGGERED, UPLOAD, UPLOADS
from control_plane.cli.rest.arguments import (
    After,
    Client,
    ClientInState,
    DevicePath,
    EncryptTo,
    IdPattern,
    Most,
    OfClient,
    Selector,
    Timeout,
    UploadId,
    read_seconds,
)
from control_plane.cli.rest.client import ControlPlane, Document, segment
from control_plane.cli.rest.events import Wakes
from control_plane.cli.rest.many import chosen_clients
from control_plane.cli.rest.progress import ENDED, display_for, failures, follow, read_patiently
from control_plane.cli.rest.tables import reason_code, timeline_table, upload_view, uploads_table
from control_plane.cli.rest.watching import Watch, show_or_watch
from control_plane.cli.session import CliSession, Tree, VerbOrId, new_app, rest_command
from control_plane.cli.shell import candidates
from control_plane.cli.text import instant, visible

Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", "-w", help="Stay until the upload has ended; 1 unless it completed.")
]
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
Sign = Annotated[
    bool,
    typer.Option(
        "--sign", help="Publish it from here, signed with OPERATOR_KEY_FILE, for a device that wants such a signature."
    ),
]
OfStatus = Annotated[
    str | None,
    typer.Option("--status", "-s", metavar="STATUS", help="queued, in_progress, completed, failed or cancelled."),
]
OfState = Annotated[
    str | None,
    typer.Option(metavar="STATE", help="The exact state: queued, dispatched, in_progress, completing, rejected, …"),
]
OfError = Annotated[
    str | None, typer.Option("--error", metavar="CODE", help="With this error, such as file_not_found.")
]
OfJob = Annotated[
    str | None, typer.Option("--job", "-j", metavar="JOB", help="Of this job only.", autocompletion=candidates.jobs)
]
OfReason = Annotated[str | None, typer.Option("--reason", metavar="CODE", help="That wait for this reason.")]
Since = Annotated[str | None, typer.Option(metavar="INSTANT", help="Created since then: 2026-11-20T03:00:00Z.")]
EndedSince = Annotated[str | None, typer.Option(metavar="INSTANT", help="That ended since then.")]
MaybeUpload = Annotated[
    str | None,
    typer.Argument(metavar="[UPLOAD]", help="Show only this one, in full.", autocompletion=candidates.uploads),
]

_OFFLINE: Final = frozenset({"client_offline", "client_never_seen", "client_unknown"})


def register(app: Tree, panel: str) -> None:
    """Add the short verbs."""
    for name, function, shape in (
        ("trigger", trigger, TRIGGERED),
        ("uploads", uploads, UPLOADS),
        ("cancel", cancel, UPLOAD),
        ("retry", retry, TRIGGERED),
        ("url", url, OBJECT_URL),
    ):
        app.command(name, rich_help_panel=panel)(rest_command(function, shape))


def build() -> Tree:
    """`backhaul upload …`; `backhaul upload ID` shows one."""
    app = new_app("Request, look at, follow and cancel uploads.", VerbOrId)
    for name, function, shape in (
        ("list", list_uploads, UPLOADS),
        ("show", show, UPLOAD),
        ("trigger", trigger, TRIGGERED),
        ("cancel", cancel, UPLOAD),
        ("retry", retry, TRIGGERED),
        ("url", url, OBJECT_URL),
        ("timeline", timeline, TIMELINE),
        ("cancel-many", cancel_many, None),
    ):
        app.command(name)(rest_command(function, shape))
    return app


def trigger(  # noqa: PLR0913 - one for each option
    session: CliSession,
    client: Client,
    path: DevicePath = None,
    *,
    wait: Wait = False,
    timeout: Timeout = None,
    metadata: Metadata = None,
    option: Options = None,
    deadline: Deadline = None,
    after: After = None,
    encrypt_to: EncryptTo = None,
    idempotency_key: Key = None,
    sign: Sign = False,
) -> None:
    """Request a file of a client."""
    wanted: dict[str, object] = {
        "file_path": path,
        "metadata": read_key_values(metadata or ()),
        "options": read_upload_options(option, encrypt_to),
        "deadline": read_deadline(deadline),
        "after": read_after(after),
    }
    body = {key: value for key, value in wanted.items() if value}
    limit = read_seconds(timeout)
    key = read_key(idempotency_key)
    if sign and deadline is not None:
        text = "--sign publishes a command that has no deadline: leave --deadline out"
        raise Misused(text)
    with session.connect() as plane:
        if sign:
            # Behind the option: only it needs a broker.
            from control_plane.cli.mqtt.adoption import trigger_signed

            answer = trigger_signed(plane, client, body, session.output.note, key)
        else:
            answer = plane.trigger(client, body, key or uuid.uuid4().hex)
        _answer(session, plane, answer, wait=wait, timeout=limit)


def list_uploads(  # noqa: PLR0913 - one for each option
    session: CliSession,
    *,
    client: OfClient = None,
    status: OfStatus = None,
    state: OfState = None,
    error: OfError = None,
    job: OfJob = None,
    reason: OfReason = None,
    since: Since = None,
    ended_since: EndedSince = None,
    limit: Most = 50,
    watch: Watch = False,
) -> None:
    """List uploads, newest first."""
    short = session.output.stdout.is_terminal
    changes = {"type": ["upload.*", "client.*"], **({"client": client} if client else {})}
    where = {
        "client_id": client,
        "status": status,
        "state": state,
        "error": error,
        "job_id": job,
        "reason_code": reason,
        "since": since,
        "ended_since": ended_since,
    }
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: plane.uploads(most=limit, **where),
            lambda answer: uploads_table(answer["uploads"], short=short),
            UPLOADS,
            changes,
            watch=watch,
            none=f"no uploads; `{session.step('trigger', '--help')}` shows how to request one",
        )


def uploads(  # noqa: PLR0913 - one for each option
    session: CliSession,
    upload_id: MaybeUpload = None,
    *,
    client: OfClient = None,
    status: OfStatus = None,
    state: OfState = None,
    error: OfError = None,
    job: OfJob = None,
    reason: OfReason = None,
    since: Since = None,
    ended_since: EndedSince = None,
    limit: Most = 50,
    watch: Watch = False,
) -> None:
    """List uploads, newest first, or show one."""
    if upload_id is None:
        list_uploads(
            session,
            client=client,
            status=status,
            state=state,
            error=error,
            job=job,
            reason=reason,
            since=since,
            ended_since=ended_since,
            limit=limit,
            watch=watch,
        )
        return
    with session.connect() as plane:
        answer = plane.upload(upload_id, client)
    session.output.result(answer, upload_view(answer), shape=UPLOAD)


def show(
    session: CliSession,
    upload_id: UploadId,
    *,
    client: OfClient = None,
    wait: Wait = False,
    timeout: Timeout = None,
    watch: Watch = False,
) -> None:
    """Show one upload, with --wait until it has ended, with --watch whenever it changes."""
    limit = read_seconds(timeout)
    with session.connect() as plane:
        if wait:
            _wait_for(session, plane, upload_id, client, limit)
            return
        filters: list[dict[str, Any]] = [{"upload": upload_id}]
        if watch:
            # That its client comes and goes is no change of the upload.
            owner = client or plane.upload(upload_id, client)["client_id"]
            filters.append({"client": owner, "type": "client.*"})
        show_or_watch(session, lambda: plane.upload(upload_id, client), upload_view, UPLOAD, *filters, watch=watch)


def cancel(session: CliSession, upload_id: UploadId, *, client: OfClient = None) -> None:
    """End an upload; what was sent is removed."""
    with session.connect() as plane:
        answer = plane.cancel(upload_id, client)
    session.output.result(answer, f"upload {visible(upload_id)} is cancelled")


def retry(
    session: CliSession,
    upload_id: UploadId,
    *,
    client: OfClient = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Begin an upload that ended badly again, under a new id."""
    limit = read_seconds(timeout)
    with session.connect() as plane:
        answer = plane.retry(upload_id, client)
        _answer(session, plane, answer, wait=wait, timeout=limit)


def cancel_many(
    session: CliSession, *, pattern: IdPattern = None, selector: Selector = None, state: ClientInState = None
) -> None:
    """End the uploads of all clients that match; a person is asked, with the number of clients."""
    with session.connect() as plane:
        where = chosen_clients(session, plane, "Cancel the uploads of", pattern, selector, state)
        cancelled, refused, more = 0, 0, True
        while more:
            answer = plane.call("POST", "/uploads/cancel", json={"where": where})
            cancelled, refused = cancelled + answer["cancelled"], refused + answer["refused"]
            more = answer["more"] and bool(answer["cancelled"])
    document = {"clients": where["count"], "cancelled": cancelled, "refused": refused}
    left = f"; {refused} were over, or about to be" if refused else ""
    session.output.result(document, f"{cancelled} uploads of {where['count']} clients are cancelled{left}")


def timeline(session: CliSession, upload_id: UploadId, *, client: OfClient = None) -> None:
    """Show what happened to an upload, in the last seven days."""
    params = {} if client is None else {"client_id": client}
    with session.connect() as plane:
        answer = plane.call("GET", f"/uploads/{segment(upload_id)}/timeline", params=params)
    session.output.result(answer, timeline_table(answer["changes"]), "nothing is known of the last seven days")


def url(session: CliSession, upload_id: UploadId, *, client: OfClient = None) -> None:
    """Print a URL that reads the object until the URL expires."""
    with session.connect() as plane:
        answer = plane.url(upload_id, client)
    session.output.result(answer, str(answer["url"]))


def _answer(session: CliSession, plane: ControlPlane, answer: Document, *, wait: bool, timeout: float | None) -> None:
    """What a new upload is answered with: itself at its end with `wait`, else where it waits and how to follow it."""
    upload_id = str(answer["upload_id"])
    # A retry is answered with the upload in full.
    known = answer if "client_id" in answer else _read(plane, upload_id)
    if wait:
        if known and (waits := _absence(plane, known)):
            session.output.note(f"{waits}; --no-wait to return now")
        _wait_for(session, plane, upload_id, None, timeout)
        return
    session.output.result(answer, _triggered(answer))
    if session.output.for_people:
        if known and (waits := _absence(plane, known)):
            session.output.note(waits)
        session.output.note(f"`{session.step('upload', 'show', '--wait', about=[upload_id])}` follows it", "dim")


def _read(plane: ControlPlane, upload_id: str) -> Document | None:
    """The upload; None where it cannot be read: what was requested is done all the same."""
    try:
        return plane.upload(upload_id)
    except CliError:
        return None


def _absence(plane: ControlPlane, upload: Document) -> str | None:
    """That the upload waits for its client, since when, and until when; None when it does not."""
    if reason_code(upload) not in _OFFLINE or upload.get("status") in ENDED:
        return None
    name = visible(upload["client_id"])
    try:
        heard = instant(plane.status(upload["client_id"]).get("last_heartbeat"))
    except CliError:
        heard = None
    seen = f"{name} is offline since {_short(heard)}" if heard else f"{name} has never connected"
    until = instant(upload.get("deadline"))
    return f"{seen}; queued" + (f" until {until:%Y-%m-%d %H:%M}Z" if until else "")


def _short(at: datetime) -> str:
    """An instant of today without its date."""
    today = datetime.now(at.tzinfo).date() == at.date()
    return f"{at:%H:%M}Z" if today else f"{at:%Y-%m-%d %H:%M}Z"


def _wait_for(
    session: CliSession, plane: ControlPlane, upload_id: str, client: str | None, timeout: float | None
) -> None:
    """Show the upload until it ends; exits with 1 unless it completed."""

    def read(one: str) -> Document:
        return plane.upload(one, client)

    try:
        with display_for(session.output) as display:
            owner = str(read_patiently(read, upload_id, display)["client_id"])
            with Wakes(session, {"upload": upload_id}, {"client": owner, "type": "client.*"}) as wakes:
                ended = follow(read, [upload_id], display, wakes=wakes, timeout=timeout)
    except KeyboardInterrupt:
        session.output.note(f"the upload continues; `{session.step('cancel', about=[upload_id])}` ends it")
        raise
    session.output.result(ended[0], upload_view(ended[0]))
    if failures(ended):
        # The view, or the document, has shown it already.
        raise typer.Exit(Failed.exit_code)


def _triggered(answer: Document) -> Text:
    lines = (answer.get("message"), f"upload {answer.get('upload_id')}", f"object {answer.get('s3_key')}")
    return Text("\n".join(visible(line) for line in lines if line))
