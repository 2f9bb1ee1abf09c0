"""Exit codes, and text as a terminal shows it.

Rule: no line is wider than the terminal, and nothing that was read moves its cursor.
"""

import os
import sys
from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""As a shell reports a program that ended by Ctrl-C."""

_UNBOUNDED: Final = 10_000
"""Columns of an output that is no terminal."""

_NARROWEST: Final = 20


def columns() -> int:
    """The columns of the output."""
    try:
        return max(_NARROWEST, os.get_terminal_size(sys.stdout.fileno()).columns) if sys.stdout.isatty() else _UNBOUNDED
    except (OSError, ValueError):
        return _UNBOUNDED


def printable(text: str) -> str:
    """The text without what moves a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in text)


def wrapped(text: str, indent: str = "", first: str | None = None) -> str:
    """The text in lines of the terminal's width; `first` starts the first line, `indent` each other one."""
    # The agent itself shows no text: it needs this in no memory.
    import textwrap  # noqa: PLC0415

    start = indent if first is None else first
    # A path or a command is copied whole.
    lines = textwrap.wrap(
        printable(text),
        columns(),
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines or [start.rstrip()])


def show(text: str) -> None:
    """One output of a subcommand."""
    print(text, flush=True)  # noqa: T201 (the output of a subcommand)


def complain(text: str) -> None:
    """One line about what went wrong."""
    print(f"backhaul-agent: {printable(text)}", file=sys.stderr)  # noqa: T201 (the one line that a person needs)
