"""Files that survive a power cut: whole or absent.

Rule: a file is replaced by write, fsync, rename, fsync of the folder; only that makes a rename durable.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700


def replace_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace `path` by a new file; after `OSError` the old or the new file is there, whole."""
    rename_durably(write_temporary(path, chunks), path)


def write_temporary(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write the replacement of `path` under a temporary name, durable; after `OSError` it is deleted."""
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
        try:
            for chunk in chunks:
                write_all(descriptor, chunk)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def rename_durably(temporary: Path, path: Path) -> None:
    """Rename a file over another. After `OSError` the rename may have happened, and a power cut may undo it."""
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte: on a disk that fills up, write(2) first accepts a part of them."""
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
