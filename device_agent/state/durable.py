"""Files that survive a power cut: whole, or not there at all.

Rule: a file is replaced by write, fsync, rename, fsync of the folder; nothing else makes a rename durable.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700


def replace_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Put a new file in the place of `path`; after `OSError` either of the two is there, whole."""
    rename_durably(write_temporary(path, chunks), path)


def write_temporary(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write what is to take the place of `path`, durable under a name of its own; `OSError` leaves nothing of it."""
    fresh = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
        try:
            for chunk in chunks:
                write_all(descriptor, chunk)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return fresh


def rename_durably(fresh: Path, path: Path) -> None:
    """Give a file the name of another. After `OSError` that may have happened, and a power cut may take it back."""
    try:
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: a disk that fills up takes some first, and refuses only the rest."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
