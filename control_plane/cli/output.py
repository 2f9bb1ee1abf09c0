"""The output of a command: its result to standard output, everything else to standard error.

Rule: with `--json` standard output gets JSON and nothing else; without a terminal nothing moves, wraps or is coloured,
unless CLICOLOR_FORCE requires colours. A question is asked on a terminal only.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from control_plane.cli.errors import CliError, Misused, NotConfirmed, OutputLost
from control_plane.cli.formats import Form, FormChoice, Shape, chosen, csv_lines, json_line, members, plain, queried
from control_plane.cli.layout import Listing, raw_listing
from control_plane.cli.streams import discard_stdout
from control_plane.cli.text import visible

_UNBOUNDED: Final = 10_000
"""Columns of an output that is not a terminal: in a pipe, lines are not wrapped."""


class _Console(Console):
    """A console that raises on a closed pipe, so that the caller chooses the exit code."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class CliOutput:
    """The two streams of one command. `shape` is how its answer is rows, None where it has none.

    `quiet` omits what is not the result: notes, hints, progress. `asks` is False after `--no-input`; `agreed` is True
    after `--yes`.
    """

    def __init__(
        self,
        choice: FormChoice | None = None,
        shape: Shape | None = None,
        *,
        quiet: bool = False,
        asks: bool = True,
        agreed: bool = False,
    ) -> None:
        self.choice = choice or FormChoice()
        self.stdout = _console(sys.stdout)
        self.stderr = _console(sys.stderr)
        self._shape = shape
        self._quiet = quiet
        self.asks = asks
        self.agreed = agreed

    @property
    def as_json(self) -> bool:
        """Whether standard output gets JSON."""
        return self.choice.as_json

    @property
    def live(self) -> bool:
        """Whether a progress bar may be drawn: only standard error ever shows one."""
        return self.stderr.is_terminal and not self.stderr.is_dumb_terminal and not self._quiet

    @property
    def redraws(self) -> bool:
        """Whether a table may be drawn over itself on standard output."""
        return self.for_people and self.stdout.is_terminal and not self.stdout.is_dumb_terminal

    @property
    def for_people(self) -> bool:
        """Whether the result is printed as text for a person."""
        return self.choice.form in (None, Form.TABLE, Form.WIDE) and self.choice.query is None

    def result(self, document: object, view: RenderableType, none: str = "", *, shape: Shape | None = None) -> None:
        """Print the result of the command in the form that was chosen: `view` for a person.

        `none` is what a person reads where there are no rows; `shape` is that of this answer, if not the command's.
        """
        choice, shape = self.choice, shape or self._shape
        if choice.query is not None:
            self._found(queried(document, choice.query))
        elif shape is None or not isinstance(document, dict):
            if choice.form is Form.JSON:
                self.document(document)
            else:
                self.show(view)
        else:
            self._rows(document, shape, view, none)
            self._note_a_cut(document, shape)

    def _rows(self, document: dict[str, Any], shape: Shape, view: RenderableType, none: str) -> None:
        wanted = self.choice.wanted
        match self.choice.form:
            case Form.JSON:
                self.document(chosen(document, shape, wanted) if wanted else document)
            case Form.JSONL:
                rows = shape.of(document)
                self.lines(json_line({name: row.get(name) for name in wanted} if wanted else row) for row in rows)
            case Form.CSV:
                self.lines(csv_lines(shape.of(document), wanted or shape.fields))
            case Form.NAME:
                self.lines(f"{shape.title(row)}\n" for row in shape.of(document))
            case _:
                self._for_people(raw_listing(shape.of(document), wanted) if wanted else view, none)

    def _for_people(self, view: RenderableType, none: str) -> None:
        if isinstance(view, Listing) and not view.rows and none:
            self.note(none)
            if self.stdout.is_terminal:
                return
            # A pipe gets the head of the table.
        self.show(self.drawn(view))

    def drawn(self, view: RenderableType) -> RenderableType:
        """The view as it is shown: with more columns where `-o wide` requests them."""
        return view.widened() if isinstance(view, Listing) and self.choice.form is Form.WIDE else view

    def _note_a_cut(self, document: Mapping[str, Any], shape: Shape) -> None:
        if document.get("cut"):
            self.note(f"only the first {len(shape.of(document))} are shown: --limit shows more", "dim")

    def _found(self, value: object) -> None:
        """Print what `--query` found: without a form, texts as they are and anything else as JSON."""
        rows: list[Any] = value if isinstance(value, list) else [value]
        names = members(rows)
        match self.choice.form:
            case Form.JSON:
                self.document(value)
            case Form.JSONL:
                self.lines(json_line(row) for row in rows)
            case Form.CSV if names:
                self.lines(csv_lines(rows, names))
            case Form.TABLE | Form.WIDE if names:
                self.show(raw_listing(rows, names))
            case Form.CSV:
                cells = [row if isinstance(row, list) else [row] for row in rows]
                width = max(map(len, cells), default=0)
                named = [dict(zip(map(str, range(width)), row, strict=False)) for row in cells]
                self.lines(list(csv_lines(named, [str(one) for one in range(width)]))[1:])
            case None if value is not None and not isinstance(value, dict) and not _nested(rows):
                self.lines(f"{plain(row)}\n" for row in rows)
            case None:
                self.document(value)
            case _:
                self.lines(f"{plain(row)}\n" for row in rows)

    def document(self, document: object) -> None:
        """Print one JSON document as one line."""
        self.lines([json_line(document)])

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines as they are, for a program; each brings its own end."""
        with _written():
            for line in lines:
                sys.stdout.write(line)
            sys.stdout.flush()

    def text(self, line: str) -> None:
        """Print a text as it is, for a program or a file; it brings its own line ends."""
        with _written():
            sys.stdout.write(line)

    def show(self, view: RenderableType) -> None:
        """Print for a person on standard output."""
        with _written():
            self.stdout.print(view, markup=False, highlight=False, crop=False, soft_wrap=isinstance(view, str))
            sys.stdout.flush()

    def note(self, text: str, style: str = "") -> None:
        """Print a line for a person on standard error. Where that is closed or full, the command continues."""
        if not self._quiet:
            self._say(text, style)

    def error(self, error: CliError) -> None:
        """Print the error that ends the command."""
        if self.as_json:
            with suppress(OSError, OutputLost):
                self.document(error.document())
        self._say(f"backhaul: {_lines(str(error))}", "red")

    def confirm(self, question: str) -> None:
        """Require a yes before something is lost; `NotConfirmed` unless the answer is yes.

        Without a terminal a command acts without a question, as what was typed in a script is meant. With `--no-input`
        nothing is asked, so `--yes` is needed.
        """
        if self.agreed:
            return
        if not self.asks:
            text = f"{question} --no-input asks nothing: add --yes"
            raise NotConfirmed(text)
        if not (sys.stdin.isatty() and self.stderr.is_terminal):
            return
        self.stderr.print(Text(f"{visible(question)} [y/N] "), end="")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            text = "nothing was done"
            raise NotConfirmed(text)

    def require_form(self) -> None:
        """`Misused` where the command cannot print what was chosen; before anything is sent."""
        self.choice.require(self._shape)

    def list_fields(self) -> bool:
        """Print the members of a row, if `--fields` was typed alone; whether it was."""
        if not self.choice.lists_fields:
            return False
        if self._shape is None:
            text = "this command prints no rows: it has --json and --query only"
            raise Misused(text)
        self.lines(f"{name}\n" for name in self._shape.fields)
        return True

    def _say(self, text: str, style: str) -> None:
        with suppress(OSError):
            self.stderr.print(Text(text, style=style), soft_wrap=True)


def _nested(rows: Iterable[object]) -> bool:
    return any(isinstance(row, dict | list) for row in rows)


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.splitlines())


def _console(stream: TextIO) -> Console:
    # A terminal that cannot show a character shows its number; the command must not fail.
    reconfigure: Any = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    terminal = stream.isatty()
    return _Console(
        file=stream,
        width=None if terminal else _UNBOUNDED,
        # rich would take FORCE_COLOR for a terminal, and draw bars into a pipe.
        force_terminal=terminal,
        color_system="standard" if _colours_are_forced() and not terminal else "auto",
        no_color=_colours_are_refused(),
    )


def _colours_are_forced() -> bool:
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("CLICOLOR_FORCE", "FORCE_COLOR"))


def _colours_are_refused() -> bool:
    """https://no-color.org; CLICOLOR=0 of https://bixense.com/clicolors, which CLICOLOR_FORCE overrules."""
    if os.environ.get("NO_COLOR"):
        return True
    return os.environ.get("CLICOLOR") == "0" and not _colours_are_forced()


@contextmanager
def _written() -> Iterator[None]:
    """`OutputLost` when standard output cannot be written: closed, or on a full disk. A closed pipe stays as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise OutputLost(error) from error
