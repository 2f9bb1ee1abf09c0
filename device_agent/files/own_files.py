"""The agent's own files: its state folder, and the files and folders of its settings.

Rule: known by device and inode, so neither another name nor a hard link makes one of them a file of the user.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from device_agent.files.safe_open import O_PATH

Identity = tuple[int, int]
"""Device and inode."""


class OwnFiles:
    """Files that are never read for an upload, and never listed: all beneath `folder`, and `files`.

    One of `files` may be a folder, with all that is beneath it by then; it need not be there yet.
    """

    def __init__(self, folder: Path | None = None, files: Iterable[Path] = ()) -> None:
        self._folder = None if folder is None else folder.absolute()
        self._files = tuple(file.absolute() for file in files)
        # Open while the agent runs: an editor gives the file that was read another name, and its inode stays refused.
        self._held = tuple(descriptor for file in self._files for descriptor in _held(file))

    def __del__(self) -> None:
        for descriptor in getattr(self, "_held", ()):
            os.close(descriptor)

    def identities(self) -> frozenset[Identity]:
        """The device and inode of each present file, and of the folders."""
        found = {identity_of(os.fstat(descriptor)) for descriptor in self._held}
        for file in self._files:
            with contextlib.suppress(OSError):
                found.add(identity_of(os.lstat(file)))
        for folder in (self._folder, *self._files):
            with contextlib.suppress(OSError):
                if folder is not None and folder.is_dir():
                    found.add(identity_of(folder.stat()))
                    found.update(_beneath(str(folder)))
        return frozenset(found)


def identity_of(found: os.stat_result) -> Identity:
    """The device and inode of a file or a folder."""
    return found.st_dev, found.st_ino


def _held(file: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield os.open(file, O_PATH | os.O_CLOEXEC)


def _beneath(folder: str) -> Iterator[Identity]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # It was renamed or deleted meanwhile; the others are still needed.
            yield identity_of(found)
            if stat.S_ISDIR(found.st_mode):
                yield from _beneath(entry.path)


NO_FILES: Final = OwnFiles()
