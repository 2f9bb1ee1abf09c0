"""The output of a command: its result to standard output, everything else to standard error.

Rule: with `--json` standard output gets JSON and nothing else; without a terminal nothing moves, wraps or is coloured.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from control_plane.cli.errors import CliError, OutputLost
from control_plane.cli.streams import discard_stdout
from control_plane.cli.text import visible

_UNBOUNDED: Final = 10_000
"""Columns of an output that is not a terminal: in a pipe, lines are not wrapped."""


class _Console(Console):
    """A console that raises on a closed pipe, so that the caller chooses the exit code."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class CliOutput:
    """The two streams of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.stdout = _console(sys.stdout)
        self.stderr = _console(sys.stderr)

    @property
    def live(self) -> bool:
        """Whether a progress bar may be drawn: only standard error ever shows one."""
        return self.stderr.is_terminal and not self.stderr.is_dumb_terminal

    def result(self, document: object, view: RenderableType) -> None:
        """Print the result of the command: `document` with `--json`, else `view`."""
        if self.as_json:
            self.document(document)
        else:
            self.show(view)

    def document(self, document: object) -> None:
        """Print one JSON document as one line."""
        with _written():
            sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
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
        """Print a line for a person on standard error. Where that is closed or full, the command goes on."""
        with suppress(OSError):
            self.stderr.print(Text(text, style=style), soft_wrap=True)

    def error(self, error: CliError) -> None:
        """Print the error that ends the command."""
        if self.as_json:
            with suppress(OSError, OutputLost):
                self.document(error.document())
        self.note(f"backhaul: {_lines(str(error))}", "red")


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.splitlines())


def _console(stream: TextIO) -> Console:
    # A terminal that cannot show a character shows its number; the command must not fail.
    reconfigure: Any = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return _Console(file=stream, width=None if stream.isatty() else _UNBOUNDED)


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
