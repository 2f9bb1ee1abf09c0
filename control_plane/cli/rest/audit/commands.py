"""`backhaul audit`: who did what, an export of it, and the check of an export.

Rule: a check trusts a key that a person gives. Without one it takes the keys of the export, and shows a note.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Group
from rich.text import Text

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.formats import Shape
from control_plane.cli.layout import Column, Listing, Row
from control_plane.cli.rest.answers.shapes import AUDIT
from control_plane.cli.rest.arguments import Most, OfClient
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import moment, visible

if TYPE_CHECKING:
    from control_plane.domain.audit.verification import AuditReport

_DAY: Final = 86_400

Subject = Annotated[str | None, typer.Option("--subject", metavar="SUBJECT", help="Of this caller only.")]
Acted = Annotated[str | None, typer.Option("--act", metavar="ACT", help="This act only, such as upload.trigger.")]
Ended = Annotated[str | None, typer.Option("--outcome", metavar="OUTCOME", help="done, denied or failed.")]
Target = Annotated[str | None, typer.Option("--target", metavar="KIND:ID", help="On this only, such as job:nightly.")]
Since = Annotated[str | None, typer.Option("--since", metavar="INSTANT", help="Since then: 2026-11-20T03:00:00Z.")]
Until = Annotated[str | None, typer.Option("--until", metavar="INSTANT", help="Before then.")]
Exported = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="An export; left out: one is read from the control plane.")
]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", "-k", metavar="KEY", help="The key that signs: name+id+base64. Repeatable."),
]
Notes = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", metavar="FILE", help="A checkpoint from the bucket or the log. Repeatable."),
]

Whole = Annotated[
    int | None,
    typer.Option(
        "--history-days", metavar="DAYS", min=1, help="HISTORY_DAYS: records that are not older must be there."
    ),
]

VERIFIED = Shape("writer", ("writer", "first", "last", "signed", "problems", "notes"), "chains")


def build() -> Tree:
    """`backhaul audit …`."""
    app = new_app("See who did what, and check that no record of it was changed.")
    app.command("list")(rest_command(list_records, AUDIT))
    app.command("export")(rest_command(export))
    app.command("verify")(rest_command(verify, VERIFIED))
    return app


def list_records(  # noqa: PLR0913 - one for each option
    session: CliSession,
    *,
    subject: Subject = None,
    act: Acted = None,
    outcome: Ended = None,
    client: OfClient = None,
    target: Target = None,
    since: Since = None,
    until: Until = None,
    limit: Most = 50,
) -> None:
    """List what callers did, newest first."""
    filters = {
        "subject": subject,
        "act": act,
        "outcome": outcome,
        "client_id": client,
        "target": target,
        "since": since,
        "until": until,
    }
    with session.connect() as plane:
        answer = plane.pages("/audit", "records", filters, limit)
    columns = (
        Column("at", lambda row: moment(row["at"])),
        Column("subject", lambda row: row["subject"] or "-"),
        Column("act", lambda row: row["act"]),
        Column("on", _on),
        Column("outcome", _outcome),
        Column("address", lambda row: row["address"], wide=True),
        Column("token", lambda row: row["token_id"], wide=True),
        Column("reason", lambda row: row["reason"], wide=True),
        Column("detail", _detail, wide=True),
    )
    session.output.result(answer, Listing(columns, answer["records"]), "no records")
    if places := answer["unreadable"]:
        session.output.note(f"changed, so that they cannot be read: {', '.join(places)}; run: backhaul audit verify")


def export(session: CliSession, *, since: Since = None) -> None:
    """Print every record and every checkpoint as CloudEvents, one a line."""
    with session.connect() as plane:
        session.output.lines(plane.lines("/audit/export", {} if since is None else {"since": since}))


def verify(
    session: CliSession,
    file: Exported = None,
    *,
    key: Keys = None,
    checkpoint: Notes = None,
    since: Since = None,
    history_days: Whole = None,
) -> None:
    """Check every chain of records and every checkpoint; exits with 1 when something was changed or is missing."""
    # Deferred: it loads PyNaCl.
    from control_plane.cli.rest.audit.exports import Export, checked
    from control_plane.domain.audit.model import instant_text

    if file is not None and since is not None:
        message = "--since chooses what is read from the control plane: a FILE is checked whole"
        raise Misused(message)
    if history_days is not None and since is not None:
        message = "--since leaves out what --history-days looks for"
        raise Misused(message)
    notes = [_text(one) for one in checkpoint or ()]
    if file is not None:
        found = Export.read(_text(file).split("\n"))
    else:
        with session.connect() as plane:
            found = Export.read(plane.lines("/audit/export", {} if since is None else {"since": since}))
    whole_since = None if history_days is None else instant_text(time.time() - history_days * _DAY)
    report = checked(found, key or [], notes, whole_since=whole_since)
    chains = [
        {
            "writer": one.writer,
            "first": one.first,
            "last": one.last,
            "signed": one.signed,
            "problems": list(one.problems),
            "notes": list(one.notes),
        }
        for one in report.chains
    ]
    columns = (
        Column("chain", lambda row: row["writer"], whole=True),
        Column("records", lambda row: f"{row['first']}-{row['last']}" if row["last"] >= row["first"] else "-"),
        Column("signed to", lambda row: row["signed"] or "-", right=True),
        Column("result", _result),
    )
    document = {"sound": report.is_sound, "records": report.records, "chains": chains}
    if not key:
        session.output.note("the keys are those of the export: give --key to trust only yours", "yellow")
    session.output.result(document, Group(Listing(columns, chains), _summary(report)))
    if not report.is_sound:
        wrong = [*report.problems, *(f"chain {one.writer}: {text}" for one in report.chains for text in one.problems)]
        raise Failed("the audit was changed, or is not whole: " + "; ".join(map(visible, wrong[:5])))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misused(f"{file}: {getattr(error, 'strerror', None) or 'it is no text'}") from error  # noqa: EM102, TRY003


def _summary(report: "AuditReport") -> Text:
    if report.is_sound:
        return Text(f"{report.records} records are whole, {report.signed} of them signed", style="green")
    return Text(f"{report.records} records were checked: something is wrong", style="red")


def _result(row: Row) -> Text:
    if row["problems"]:
        return Text("; ".join(map(visible, row["problems"])), style="red")
    return Text("; ".join(["sound", *map(visible, row["notes"])]), style="green" if not row["notes"] else "")


def _on(row: Row) -> str:
    """What the act was on: the target, and the clients beside it."""
    names = row["clients"]
    some = names[0] if row["client_count"] == 1 else f"{row['client_count']} clients" if names else ""
    if not row["target"] and row["act"] == "request":
        return f"{row['detail'].get('method', '')} {row['detail'].get('path', '')}".strip()
    return " ".join(part for part in (row["target"], some) if part) or "-"


def _outcome(row: Row) -> Text:
    return Text(row["outcome"], style={"denied": "red", "failed": "yellow"}.get(row["outcome"], ""))


def _detail(row: Row) -> str:
    return " ".join(f"{name}={value}" for name, value in row["detail"].items())
