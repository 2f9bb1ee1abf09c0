"""The standard streams of a command, also when some are closed, full or missing.

Rule: imports nothing but the standard library, so that a missing extra can still be reported.
"""

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


def open_streams() -> None:
    """Give a program that was started without streams (`>&-`) some that fail, or discard.

    Otherwise the first file that is opened gets the number of one, and what is printed goes into that file.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        # Opened for reading, so that a write fails as it does on a closed stream.
        os.open(os.devnull, os.O_RDONLY)
        sys.stdout = os.fdopen(1, "w", closefd=False)
    elif isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        # PYTHONUNBUFFERED: without a buffer Python drops what one write(2) did not take, and a closed pipe is no error.
        sys.stdout = os.fdopen(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)
    if sys.stderr is None:
        os.open(os.devnull, os.O_WRONLY)
        sys.stderr = os.fdopen(2, "w", closefd=False)


def discard_stdout() -> None:
    """Discard what is still buffered: the interpreter flushes once more at its end."""
    _discard(sys.stdout)


def flush_stderr() -> None:
    """Discard what standard error does not take: the flush at the interpreter's end would make the exit code 120."""
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())


def print_error(text: str) -> None:
    """Print the one line of an error, without rich."""
    with suppress(OSError):
        sys.stderr.write(f"backhaul: {text}\n")
