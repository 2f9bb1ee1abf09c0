"""The in-memory database with a file behind it: the state of one direct upload.

Rule: a commit counts once the file holds it. The file is replaced as a whole, so it never holds half a commit.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from broker.atomic_file import replace_file
from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.database import Records

T = TypeVar("T")


class FileDatabase(MemoryDatabase):
    """A `Database` in memory that writes each commit to `path`; while `path` is None, nothing is written.

    It waits for the disk on the event loop: a process with one upload has nothing else to do until the commit.
    """

    path: Path | None = None
    _written: bytes = b""

    async def write(self, work: Callable[[Records], T]) -> T:
        """Run `work`; it is undone when it raises, or when the file cannot be written."""
        return await super().write(lambda records: self._committed(records, work))

    def _committed(self, records: Records, work: Callable[[Records], T]) -> T:
        result = work(records)
        data = self.dump()
        if self.path is not None and data != self._written:
            try:
                replace_file(self.path, data)
            except OSError as error:
                message = f"{self.path}: {error.strerror}"
                raise DatabaseUnavailable(message) from error
            self._written = data
        return result
