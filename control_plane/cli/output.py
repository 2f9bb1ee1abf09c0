"""The output of a command: its result to standard output, everything else to standard error.

Rule: with `--json` standard output gets JSON and nothing else; without a terminal nothing moves, wraps or is coloured.
"""

import json
import os
import sys
from contextlib import suppress
from typing import Any, Final, NoReturn, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from control_plane.cli.errors import CliError
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
        sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()

    def show(self, view: RenderableType) -> None:
        """Print for a person on standard output."""
        self.stdout.print(view, markup=False, highlight=False, crop=False, soft_wrap=isinstance(view, str))
        sys.stdout.flush()

    def note(self, text: str, style: str = "") -> None:
        """Print a line for a person on standard error."""
        self.stderr.print(Text(text, style=style), soft_wrap=True)

    def error(self, error: CliError) -> None:
        """Print the error that ends the command."""
        if self.as_json:
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


def discard_stdout() -> None:
    """Discard what is still buffered: the interpreter flushes once more at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
