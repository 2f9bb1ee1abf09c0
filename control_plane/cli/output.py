"""Where a command's words go: its result to standard output, everything else to standard error.

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
"""Columns of an output that is no terminal: a reader of a pipe wants whole lines."""


class _Paper(Console):
    """A console that lets its caller decide what a reader who went away means."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class Output:
    """The two streams of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.paper = _console(sys.stdout)
        self.notes = _console(sys.stderr)

    @property
    def live(self) -> bool:
        """Whether a progress bar may be drawn: only standard error ever shows one."""
        return self.notes.is_terminal and not self.notes.is_dumb_terminal

    def result(self, document: object, view: RenderableType) -> None:
        """Print what the command found: as it came with `--json`, else as `view`."""
        if self.as_json:
            self.document(document)
        else:
            self.show(view)

    def document(self, document: object) -> None:
        """Print one JSON document on a line of its own."""
        sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()

    def show(self, view: RenderableType) -> None:
        """Print something for a person on standard output."""
        self.paper.print(view, markup=False, highlight=False, crop=False, soft_wrap=isinstance(view, str))
        sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """Print a line for a person on standard error."""
        self.notes.print(Text(text, style=style), soft_wrap=True)

    def complain(self, error: CliError) -> None:
        """Print what went wrong."""
        if self.as_json:
            self.document(error.document())
        self.say(f"backhaul: {_lines(str(error))}", "red")


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.splitlines())


def _console(stream: TextIO) -> Console:
    # A terminal that cannot show a letter shows its number; it must not end the command.
    reconfigure: Any = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return _Paper(file=stream, width=None if stream.isatty() else _UNBOUNDED)


def forget_stdout() -> None:
    """Send what is still to be written to nowhere: the interpreter flushes once more as it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
