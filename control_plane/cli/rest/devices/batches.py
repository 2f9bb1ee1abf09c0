"""Commands for batches: one token for many devices of one image.

Rule: as the commands beside: the token goes into a file, never onto a terminal.
"""

from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli.errors import Misused
from control_plane.cli.layout import Column, Listing
from control_plane.cli.rest.answers.shapes import BATCHES
from control_plane.cli.rest.client import segment
from control_plane.cli.rest.devices.bundle_file import STDOUT, require_place, write_secret
from control_plane.cli.rest.devices.wanted import DefaultFile, Hosts, Labels, Note, RootFolders, wanted
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import duration, moment, visible

Count = Annotated[int | None, typer.Option("--count", min=1, help="How many devices; with --serials all of the list.")]
Names = Annotated[str, typer.Option("--name", "-n", metavar="PATTERN", help="Such as till-{n:03}, or till-{serial}.")]
Expires = Annotated[str, typer.Option("--expires", metavar="TIME", help="Until then devices may join: 30d, 12h.")]
Serials = Annotated[
    Path | None, typer.Option("--serials", metavar="FILE", help="The serials that may join, one a line.")
]
Auto = Annotated[bool, typer.Option("--auto", help="They join without an approval: whoever has the token joins.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Takes the token; - is standard output.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the batch.")]


def build() -> Tree:
    """The group `device batch`."""
    app = new_app("Batches: many devices of one image, which join with one token.")
    app.command("create")(rest_command(create))
    app.command("list")(rest_command(list_batches, BATCHES))
    app.command("revoke")(rest_command(revoke))
    return app


def create(  # noqa: PLR0913 - one for each option
    session: CliSession,
    *,
    name: Names,
    expires: Expires,
    out: Out,
    count: Count = None,
    serials: Serials = None,
    auto: Auto = False,
    roots: RootFolders = None,
    hosts: Hosts = None,
    file: DefaultFile = None,
    label: Labels = None,
    note: Note = "",
) -> None:
    """Make a batch: its token goes into a file, for the image."""
    require_place(out)
    seconds, listed = duration(expires), _listed(serials)
    if seconds is None:
        text = f"--expires {expires}: write 12h or 30d"
        raise Misused(text)
    if count is None and not listed:
        text = "how many devices? Give --count, or --serials"
        raise Misused(text)
    body = {"names": name, "count": count or len(listed), "expires_in": seconds, "auto": auto, "serials": listed}
    with session.connect() as plane:
        answer = plane.call("POST", "/batches", json={**body, **wanted(roots, hosts, file, label, note)})
    batch_id = answer["batch_id"]
    if out == STDOUT and session.output.as_json:
        session.output.document(answer)
        return
    write_secret(out, f"{answer['token']}\n".encode(), f"The token is lost: `device batch revoke {batch_id}`")
    if out != STDOUT:
        facts = {key: value for key, value in answer.items() if key != "token"}
        session.output.result({**facts, "file": str(out)}, f"batch {batch_id}: its token is in {visible(str(out))}")


def list_batches(session: CliSession) -> None:
    """List the batches, and how many of their names were given."""
    with session.connect() as plane:
        answer = plane.call("GET", "/batches")
    columns = (
        Column("batch", lambda row: row["batch_id"], whole=True),
        Column("names", lambda row: row["names"], whole=True),
        Column("given", lambda row: f"{row['taken']} of {row['count']}"),
        Column("joins", lambda row: "alone" if row["auto"] else "approved"),
        Column("until", lambda row: "revoked" if row["revoked_at"] else moment(row["expires_at"])),
        Column("by", lambda row: row["created_by"]),
    )
    session.output.result(answer, Listing(columns, answer["batches"]), "no batches")


def revoke(session: CliSession, batch: Id) -> None:
    """Take the token of a batch no more. Devices that have joined stay."""
    session.output.confirm(f"Revoke batch {batch}? Devices that have joined stay.")
    with session.connect() as plane:
        plane.call("POST", f"/batches/{segment(batch)}/revoke", repeatable=True, empty=True)
    session.output.result({"batch_id": batch, "revoked": True}, f"batch {visible(batch)} is revoked")


def _listed(serials: Path | None) -> list[str]:
    try:
        return [] if serials is None else serials.read_text("utf-8").split()
    except (OSError, ValueError) as error:
        text = f"--serials {serials}: it cannot be read as text"
        raise Misused(text) from error
