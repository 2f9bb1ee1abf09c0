"""`backhaul context`: name a control plane once, and change between several.

Rule: a token is never typed: it comes from a file, the environment or standard input, and is never printed.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli.contexts.store import (
    DEFAULT_SERVER,
    Contexts,
    KnownPlane,
    Target,
    config_file,
    load,
    require_name,
    save,
    target_of,
)
from control_plane.cli.errors import Misused
from control_plane.cli.formats import Shape
from control_plane.cli.layout import Column, Listing, facts
from control_plane.cli.rest.client import require_url
from control_plane.cli.secret_files import STDIN, secret_from
from control_plane.cli.session import CliSession, Tree, local_command, new_app
from control_plane.cli.shell import candidates
from control_plane.cli.text import visible

_FIELDS = ("name", "server", "token", "current")
CONTEXTS = Shape("name", _FIELDS, "contexts")
CONTEXT = CONTEXTS.one()

NewName = Annotated[str, typer.Argument(metavar="NAME", help="Its name, such as staging.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name.", autocompletion=candidates.contexts)]
MaybeName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="Its name. \\[what is used now]", autocompletion=candidates.contexts),
]
Url = Annotated[str | None, typer.Option("--server", metavar="URL", help="Its URL. \\[env var: BACKHAUL_URL]")]
Token = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Holds its token, and is read at each command; -: keep the token that standard input has.",
    ),
]
KeepToken = Annotated[bool, typer.Option("--from-environment", help="Keep the token that BACKHAUL_TOKEN has now.")]
Use = Annotated[bool, typer.Option("--use", help="Use it from now on, as `context use` does.")]


def build() -> Tree:
    """`backhaul context …`."""
    app = new_app("Name control planes, and choose which one the commands call.")
    for name, function, shape in (
        ("add", add, CONTEXT),
        ("use", use, CONTEXT),
        ("list", list_contexts, CONTEXTS),
        ("show", show, CONTEXT),
        ("remove", remove, None),
    ):
        app.command(name)(local_command(function, shape))
    return app


def add(
    session: CliSession,
    name: NewName,
    *,
    server: Url = None,
    token_file: Token = None,
    keep_token: KeepToken = False,
    use: Use = False,
) -> None:
    """Add a context, or replace the one of this name. The first one is used at once."""
    url = require_url(server or os.environ.get("BACKHAUL_URL") or DEFAULT_SERVER)
    if token_file is not None and keep_token:
        text = "--token-file and --from-environment both give the token: choose one"
        raise Misused(text)
    token = secret_from(STDIN, "") if token_file == STDIN else None
    if keep_token:
        token = secret_from(None, "BACKHAUL_TOKEN")
        if token is None:
            text = "BACKHAUL_TOKEN has no token to keep"
            raise Misused(text)
    file = None if token_file in (None, STDIN) else str(Path(str(token_file)).expanduser().absolute())
    if file is not None:
        secret_from(Path(file), "")
    known = load()
    place = KnownPlane(url, file, token)
    current = name if use or not known.places else known.current
    save(Contexts({**known.places, require_name(name): place}, current))
    used = "it is used from now on" if current == name else f"`{session.step('context', 'use', about=[name])}` uses it"
    session.output.result(
        _document(name, place, current), f"context {name} is kept in {visible(config_file())}; {used}"
    )


def use(session: CliSession, name: Name) -> None:
    """Use a context from now on, where nothing else is typed or in the environment."""
    known = load()
    place = known.require(name)
    save(Contexts(known.places, name))
    session.output.result(_document(name, place, name), f"the commands call {visible(place.server)} now")
    for variable in ("BACKHAUL_URL", "BACKHAUL_CONTEXT"):
        if os.environ.get(variable):
            session.output.note(f"{variable} is set in this shell, and comes first", "yellow")


def list_contexts(session: CliSession) -> None:
    """List the contexts."""
    known = load()
    rows = [_document(name, place, known.current) for name, place in known.places.items()]
    columns = (
        Column("", lambda row: "*" if row["current"] else ""),
        Column("context", lambda row: row["name"], whole=True),
        Column("server", lambda row: row["server"]),
        Column("token", lambda row: row["token"] or "-"),
    )
    none = f"no contexts; `{session.step('context', 'add', '--help')}` shows how to add one"
    session.output.result({"contexts": rows}, Listing(columns, rows), none)


def show(session: CliSession, name: MaybeName = None) -> None:
    """Show a context, or which control plane a command calls now and why."""
    if name is not None:
        known = load()
        document = _document(name, known.require(name), known.current)
        session.output.result(document, facts(*((key, value) for key, value in document.items() if key != "current")))
        return
    target = target_of(context=session.context)
    document = {"name": target.context, "server": target.server, "token": _kind(target), "current": True}
    session.output.result(
        document,
        facts(("context", target.context or "none"), ("server", target.server), ("token", document["token"] or "none")),
    )


def remove(session: CliSession, name: Name) -> None:
    """Remove a context."""
    known = load()
    known.require(name)
    session.output.confirm(f"Remove the context {name}?")
    places = {one: place for one, place in known.places.items() if one != name}
    save(Contexts(places, None if known.current == name else known.current))
    session.output.result({"name": name, "removed": True}, f"context {visible(name)} is removed")


def _document(name: str, place: KnownPlane, current: str | None) -> dict[str, object]:
    """A context without its token: where that is."""
    token = place.token_file or ("kept here" if place.token else None)
    return {"name": name, "server": place.server, "token": token, "current": name == current}


def _kind(target: Target) -> str | None:
    return "given" if target.token else None
