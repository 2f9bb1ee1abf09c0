"""`backhaul receipt UPLOAD`, and `backhaul verify`: of one upload, of a job, of all.

Rule: the object's bytes are read here, from the object store; what they are compared with is the control plane's.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from control_plane.cli.errors import PARTIAL, CliError, Failed, Misused, NotAllowed, Unreachable
from control_plane.cli.formats import Shape
from control_plane.cli.layout import Column, Listing, Row
from control_plane.cli.rest.answers.shapes import RECEIPT
from control_plane.cli.rest.arguments import OfClient, UploadId
from control_plane.cli.rest.client import ControlPlane, Document, read_object, segment
from control_plane.cli.rest.receipts.reading import measure, statement_of
from control_plane.cli.session import CliSession, Tree, rest_command
from control_plane.cli.shell import candidates
from control_plane.cli.text import visible

MaybeUpload = Annotated[
    str | None,
    typer.Argument(metavar="[UPLOAD]", help="Only this one.", autocompletion=candidates.uploads),
]
OfJob = Annotated[
    str | None,
    typer.Option("--job", "-j", metavar="JOB", help="Each upload of this job.", autocompletion=candidates.jobs),
]
All = Annotated[bool, typer.Option("--all", help="Each completed upload that is not pruned yet.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="INSTANT", help="With --all or --job: that ended since then: 2026-11-20T03:00:00Z."),
]
Bytes = Annotated[bool, typer.Option("--bytes", help="Read each object, whole.")]

VERIFIED = Shape(
    "upload_id",
    ("upload_id", "client_id", "s3_key", "verdict", "content", "signed_by_device", "differs", "notes"),
    "uploads",
)


def register(app: Tree, panel: str) -> None:
    """Add the commands."""
    app.command("receipt", rich_help_panel=panel)(rest_command(receipt, RECEIPT))
    app.command("verify", rich_help_panel=panel)(rest_command(verify, VERIFIED))


def receipt(session: CliSession, upload_id: UploadId, *, client: OfClient = None) -> None:
    """Show who has signed for an upload's object; --json has the envelope."""
    with session.connect() as plane:
        answer = _receipt(plane, upload_id, client)
    predicate, subject = statement_of(answer).predicate, statement_of(answer).subject[0]
    (digest,) = subject.digest.items()
    signers = ", ".join(f"{key['of']} ({key['keyid']})" for key in answer["keys"])
    lines = [
        f"object   {visible(subject.name)}",
        f"{digest[0]}   {digest[1]}",
        f"client   {visible(predicate.client_id)}",
        f"path     {visible(predicate.path)}",
        f"size     {predicate.size}",
        f"proof    {visible(predicate.proof)}",
        f"signed   {signers}",
    ]
    session.output.result(answer, Text("\n".join(lines)), shape=RECEIPT)
    if not answer["signed_by_device"]:
        session.output.note("not signed by the device: the control plane alone vouches for it", "yellow")


def verify(
    session: CliSession,
    upload_id: MaybeUpload = None,
    *,
    client: OfClient = None,
    job: OfJob = None,
    every: All = False,
    since: Since = None,
    read: Bytes = False,
) -> None:
    """Compare objects with their receipts; exits with 1 when one differs, with 5 when one could not be verified."""
    if sum((upload_id is not None, job is not None, every)) != 1:
        message = "name one UPLOAD, or --job JOB, or --all"
        raise Misused(message)
    with session.connect() as plane:
        rows = [_verified(plane, one, of, read=read) for one, of in _wanted(plane, upload_id, client, job, since)]
    wrong = [row for row in rows if row["verdict"] == "mismatch"]
    unsure = [row for row in rows if row["verdict"] not in {"mismatch", "verified"}]
    summary = f"{len(rows)} objects: {len(rows) - len(wrong) - len(unsure)} verified, {len(wrong)} differ"
    summary += f", {len(unsure)} not verified" if unsure else ""
    columns = (
        Column("upload", lambda row: row["upload_id"], whole=True),
        Column("client", lambda row: row["client_id"]),
        Column("result", _result),
        Column("by", lambda row: row["content"]),
        Column("device", lambda row: "signed" if row["signed_by_device"] else "-"),
        Column("detail", lambda row: visible("; ".join([*row["differs"], *row["notes"]]))),
    )
    style = "red" if wrong else "yellow" if unsure else "green"
    session.output.result({"uploads": rows}, Group(Listing(columns, rows), Text(summary, style=style)), shape=VERIFIED)
    if wrong or unsure:
        # The table, or the document, has shown it already.
        raise typer.Exit(Failed.exit_code if wrong else PARTIAL)


def _wanted(
    plane: ControlPlane, upload_id: str | None, client: str | None, job: str | None, since: str | None
) -> Iterator[tuple[str, str | None]]:
    """The uploads that are meant, with their clients."""
    if upload_id is not None:
        yield upload_id, client
        return
    for one in plane.uploads(client_id=client, status="completed", job_id=job, ended_since=since)["uploads"]:
        yield one["upload_id"], one["client_id"]


def _verified(plane: ControlPlane, upload_id: str, client: str | None, *, read: bool) -> Document:
    """The result for one upload; one that could not be looked at stops no other."""
    try:
        body: dict[str, Any] = {}
        if read:
            statement = statement_of(_receipt(plane, upload_id, client))
            body = {"json": measure(statement, read_object(plane.url(upload_id, client)["url"]))}
        path = f"/uploads/{segment(upload_id)}/verify"
        return plane.call("POST", path, params={} if client is None else {"client_id": client}, repeatable=True, **body)
    except (NotAllowed, Unreachable):
        raise
    except CliError as error:
        if client is None:
            raise
        return {
            "upload_id": upload_id,
            "client_id": client,
            "s3_key": None,
            "verdict": "failed",
            "content": None,
            "signed_by_device": False,
            "differs": [],
            "notes": [str(error)],
        }


def _receipt(plane: ControlPlane, upload_id: str, client: str | None) -> Document:
    params = {} if client is None else {"client_id": client}
    return plane.call("GET", f"/uploads/{segment(upload_id)}/receipt", params=params)


def _result(row: Row) -> Text:
    return Text(row["verdict"], style={"verified": "green", "mismatch": "red"}.get(row["verdict"], "yellow"))
