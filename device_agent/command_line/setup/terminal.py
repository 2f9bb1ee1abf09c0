"""Reads a line from the person, shown or hidden.

Rule: Ctrl-C is seen at any moment. A read alone would sleep through one that comes just before it begins.
"""

import select
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

_LOOK: Final = 0.2
"""Seconds between two moments at which Ctrl-C is seen."""

_LOCAL_MODES: Final = 3
"""The place of c_lflag in what tcgetattr(3) returns in Python."""


def read_line(prompt: str, *, hidden: bool = False) -> str:
    """The line that is typed after `prompt`; `EOFError` for Ctrl-D."""
    with _without_echo() if hidden else nullcontext():
        sys.stdout.write(prompt)
        sys.stdout.flush()
        while not select.select([sys.stdin], [], [], _LOOK)[0]:
            pass
        line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


@contextmanager
def _without_echo() -> Iterator[None]:
    before = termios.tcgetattr(sys.stdin)
    silent = list(before)
    silent[_LOCAL_MODES] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)
        sys.stdout.write("\n")
        sys.stdout.flush()
