"""The state file of a direct upload, with which `backhaul mqtt resume` continues after any end.

Rule: one file for one upload, locked by one process at a time; `FileDatabase` replaces it at every commit.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.program import command_line


def default_directory() -> Path:
    """The folder for the state of this user's programs (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(state).expanduser() / "backhaul"
    except RuntimeError as error:
        text = "this user has no home folder: set XDG_STATE_HOME"
        raise Misused(text) from error


def probes_directory() -> Path:
    """The folder for what the last probe of each object store found; `backhaul doctor` replaces it."""
    return default_directory() / "probes"


def state_step(verb: str, upload_id: str, path: Path) -> str:
    """The command line that continues the upload of this file, or cancels it."""
    state = () if path == state_path(upload_id, None) else ("--state", str(path))
    return command_line("mqtt", verb, *state, about=[upload_id])


def state_path(upload_id: str, given: Path | None) -> Path:
    """The file of one upload: the given one, else one with the id of the upload in the default folder."""
    return given if given is not None else default_directory() / f"{upload_id}.json"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock the file, which need not exist yet; `Failed` when another process holds the lock."""
    lock_path = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_path.open("a")
    except OSError as error:
        text = f"{error.filename}: {error.strerror}: name another file with --state"
        raise Misused(text) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"another command continues {path}"
            raise Failed(text) from error
        try:
            yield
        finally:
            if not path.exists():
                lock_path.unlink(missing_ok=True)
