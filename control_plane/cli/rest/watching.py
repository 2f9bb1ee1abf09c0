"""`--watch`: a list or one thing, shown again whenever it changes, until Ctrl-C.

Rule: what changes is pushed by `GET /events`; nothing is read without a change. A terminal gets a table that is drawn
over itself, a pipe gets a JSON line for each row that is new or changed.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from control_plane.cli.errors import Failed, Unavailable, Unreachable
from control_plane.cli.formats import Form, FormChoice, Shape, queried
from control_plane.cli.layout import raw_listing
from control_plane.cli.output import CliOutput
from control_plane.cli.rest.events import Filters, Wakes
from control_plane.cli.session import CliSession
from control_plane.cli.text import visible

Read = Callable[[], dict[str, Any]]
View = Callable[[dict[str, Any]], RenderableType]

Watch = Annotated[
    bool, typer.Option("--watch", help="Show it again whenever it changes, until Ctrl-C; a pipe gets JSON lines.")
]

BUSY: Final = 1.0
"""Seconds between two readings while changes follow one another."""

REDRAW: Final = 10.0
"""Seconds after which ages are drawn anew, from what is known."""


def show_or_watch(
    session: CliSession, read: Read, view: View, shape: Shape | None, *filters: Filters, watch: bool, none: str = ""
) -> None:
    """Print the result once, or with `watch` at each change that passes one of the filters."""
    if not watch:
        document = read()
        session.output.result(document, view(document), none)
        return
    with Wakes(session, *filters) as wakes:
        if session.output.redraws:
            _on_terminal(session.output, read, view, shape, wakes)
        else:
            _as_lines(session.output, read, shape, wakes)


def _on_terminal(output: CliOutput, read: Read, view: View, shape: Shape | None, wakes: Wakes) -> None:
    document = read()
    with Live(console=output.stdout, auto_refresh=False) as live:
        trouble: RenderableType | None = None
        while True:
            shown = output.drawn(_chosen(output.choice, shape, document) or view(document))
            live.update(Group(shown, *([trouble] if trouble else [])), refresh=True)
            if wakes.wait(REDRAW, BUSY):
                _require_stream(wakes)
                try:
                    document, trouble = read(), None
                except (Unreachable, Unavailable) as error:
                    trouble = Text(f"trying again: {visible(error)}", style="red")


def _as_lines(output: CliOutput, read: Read, shape: Shape | None, wakes: Wakes) -> None:
    printed = _Printed(output, shape or Shape("", ()))
    printed.show(read())
    while True:
        if wakes.wait(REDRAW, BUSY):
            _require_stream(wakes)
            try:
                document = read()
            except (Unreachable, Unavailable) as error:
                output.note(f"trying again: {error}")
            else:
                printed.show(document)


def _require_stream(wakes: Wakes) -> None:
    if wakes.missing:
        text = "--watch needs the event stream of a newer control plane"
        raise Failed(text)


def _chosen(choice: FormChoice, shape: Shape | None, document: dict[str, Any]) -> RenderableType | None:
    return raw_listing(shape.of(document), choice.wanted) if shape and choice.wanted else None


class _Printed:
    """The rows that were printed, by name; prints those that differ, and `removed` for those that are gone."""

    def __init__(self, output: CliOutput, shape: Shape) -> None:
        self._output = output
        self._shape = shape
        self._known: dict[str, dict[str, Any]] = {}
        self._found: object = None

    def show(self, document: dict[str, Any]) -> None:
        """Print what changed."""
        choice = self._output.choice
        if choice.query is not None:
            found = queried(document, choice.query)
            if found != self._found:
                self._output.document(found)
            self._found = found
            return
        rows = {self._key(row): self._row(row) for row in self._shape.of(document)}
        for key, row in rows.items():
            if self._known.get(key) != row:
                self._print(key, row)
        for key in self._known.keys() - rows.keys():
            self._print(key, {**{name: self._known[key].get(name) for name in self._names}, "removed": True})
        self._known = rows

    @property
    def _names(self) -> list[str]:
        return self._shape.name.split("=")

    def _key(self, row: dict[str, Any]) -> str:
        # A client has many files of a job, and a name alone would take them for one.
        return "\0".join([self._shape.title(row), str(row.get("client_id")), str(row.get("number"))])

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        wanted = self._output.choice.wanted
        return {name: row.get(name) for name in dict.fromkeys((*self._names, *wanted))} if wanted else row

    def _print(self, key: str, row: dict[str, Any]) -> None:
        if self._output.choice.form is Form.NAME:
            self._output.lines([f"{key.partition(chr(0))[0]}\n"])
        else:
            self._output.document(row)
