"""The files that are requested of the agent.

Rule: the kit writes them below one folder that the agent may read, and removes them. Without such a folder there is one
file of the device, of unknown content.
"""

import math
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.parts import MIB

THREE_PARTS: Final = 11 * MIB
"""Bytes that make two parts of 5 MiB and one of 1 MiB."""

_BLOCK: Final = os.urandom(64 * 1024)


@dataclass(frozen=True, slots=True)
class Sample:
    """One file: its path as the protocol spells it; `local` is None when the kit cannot read it."""

    path: str
    local: Path | None

    def read(self, offset: int, size: int) -> bytes | None:
        """A piece of its content; None when the kit cannot read it."""
        if self.local is None:
            return None
        with self.local.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class Samples:
    """Makes files below `folder`; without one, `device_file` is the only file."""

    def __init__(self, folder: Path | None, device_file: str | None) -> None:
        self.folder = folder
        self._device_file = device_file
        self._made: list[Path] = []
        self._standing: Sample | None = None

    def any(self) -> Sample:
        """A file of three parts that no check changes; the device's own file where the kit can make none."""
        if self.folder is None:
            return Sample(self._device_file or "", None)
        if self._standing is None:
            self._standing = self.make("kit-standing.bin", THREE_PARTS)
            self._made.pop()
        return self._standing

    def age(self, sample: Sample) -> float:
        """Seconds since the last change of a file, by its times; infinite where the kit cannot read it."""
        return math.inf if sample.local is None else time.time() - sample.local.stat().st_ctime

    def make(self, name: str, size: int, *, spelled: str | None = None) -> Sample:
        """A new file of blocks that all differ. `spelled` is the name as the protocol has it."""
        assert self.folder is not None  # noqa: S101 - checks that make files need the folder
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._made.append(path)
        with path.open("wb") as file:
            for at in range(0, size, len(_BLOCK)):
                file.write((os.urandom(16) + _BLOCK[16:])[: size - at])
        return Sample(str(self.folder / (spelled or name)), path)

    def hole(self, name: str, size: int) -> Sample:
        """A new file of zeros that takes no place on the disk."""
        sample = self.make(name, 1)
        assert sample.local is not None  # noqa: S101 - it was made here
        os.truncate(sample.local, size)
        return sample

    def link(self, name: str, target: str) -> Sample:
        """A symbolic link."""
        assert self.folder is not None  # noqa: S101 - checks that make files need the folder
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        self._made.append(path)
        return Sample(str(path), path)

    def clear(self) -> None:
        """Remove what was made."""
        while self._made:
            with suppress(OSError):
                self._made.pop().unlink()
        if self.folder is not None:
            for entry in self.folder.iterdir():
                if entry.is_dir() and entry.name.startswith("kit-"):
                    shutil.rmtree(entry, ignore_errors=True)
