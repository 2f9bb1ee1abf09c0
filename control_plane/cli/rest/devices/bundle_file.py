"""The file of a bundle, or of the token of a batch.

Rule: it is secret, so it is made once, for its owner alone, and never shown on a terminal.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from control_plane.cli.errors import Failed, Misused

STDOUT: Final = Path("-")
_PRIVATE: Final = 0o600


def require_place(out: Path) -> None:
    """`Misused` before anything is enrolled: for a terminal, for a file that is there, for a folder that is not."""
    if out == STDOUT:
        if sys.stdout.isatty():
            text = "a terminal keeps what it shows, and this is secret: name a file with --out, or send it to a program"
            raise Misused(text)
        return
    if out.exists() or out.is_symlink():
        text = f"{out} is there already: a secret never replaces a file"
        raise Misused(text)
    if not os.access(out.absolute().parent, os.W_OK | os.X_OK):
        text = f"{out.absolute().parent}: no file can be made there"
        raise Misused(text)


def write_bundle(out: Path, bundle: dict[str, Any]) -> None:
    """Write it, 0600 and durable; `Failed` when it cannot be."""
    content = (json.dumps(bundle, indent=2, ensure_ascii=False) + "\n").encode()
    write_secret(out, content, "The device is enrolled: `device rotate` makes another bundle for it")


def write_secret(out: Path, content: bytes, then: str) -> None:
    """The same for any secret; `then` says what to do when it cannot be written."""
    if out == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        text = f"{out}: {error.strerror}. {then}"
        raise Failed(text) from error
