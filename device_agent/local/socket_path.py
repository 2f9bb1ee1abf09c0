"""Where the agent's socket is, and its address however long that path is.

Rule: the kernel takes a path of at most 107 bytes (unix(7)); a longer one is addressed through an open folder.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NAME: Final = "agent.sock"
DECISIONS: Final = "decisions.sock"
"""Where a person's decisions are taken, on a device with classes in its policy."""

SYSTEM_FOLDER: Final = Path("/run/backhaul-agent")
"""`RuntimeDirectory=` of the packaged unit; a person's shell does not have the variable."""

_LONGEST: Final = 100


def local_folders(state_dir: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders for the socket, the first usable one counts: that of systemd (systemd.exec(5)), the state folder."""
    of_systemd = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return (*((Path(of_systemd),) if of_systemd else ()), state_dir)


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """What bind(2) and connect(2) take for this path, usable inside the block; `OSError` without its folder."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
