"""Secrets that a command takes: from a file, from standard input, or from the environment.

Rule: never from an argument, which every user of the machine can read while the command runs; and no part of a secret
is in an error's text.
"""

import os
import sys
from pathlib import Path
from typing import Final

from control_plane.cli.errors import Misused

STDIN: Final = Path("-")


def secret_from(path: Path | None, variable: str) -> str | None:
    """The secret in the file `path` (`-` is standard input), else in the environment; None when there is none.

    Line breaks around it do not count, since editors and `echo` add one. `Misused` for a file that cannot be read, and
    for control characters within.
    """
    text = os.environ.get(variable) if path is None else _read(path)
    if text is None:
        return None
    secret = text.strip("\r\n")
    if not secret.isprintable():
        place = variable if path is None else path
        text = f"{place}: the secret has a line break or another control character in it"
        raise Misused(text)
    return secret or None


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if path == STDIN else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        text = f"{path}: the secret cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"
        raise Misused(text) from None
