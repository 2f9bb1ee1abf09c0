"""The file in which a direct upload keeps its state, so that `backhaul mqtt resume` goes on after any end.

Rule: one file for one upload, replaced as a whole and forced to disk at every commit; one process at a time holds it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane.cli.errors import Failed, Misused


def default_directory() -> Path:
    """Where the state of this user's programs belongs (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "backhaul"


def state_path(upload_id: str, given: Path | None) -> Path:
    """The file of one upload: the one that was named, else one of the upload's own name."""
    return given if given is not None else default_directory() / f"{upload_id}.json"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the file, which need not exist yet; `Failed` when another process does."""
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
            text = f"another command goes on with {path}"
            raise Failed(text) from error
        try:
            yield
        finally:
            if not path.exists():
                lock_path.unlink(missing_ok=True)
