"""The database in memory: for the direct MQTT CLI, which saves it in one file, and for tests of services.

Rule: it behaves like `SqlDatabase`; one suite of tests runs on both.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from broker.atomic_file import replace_file
from control_plane.adapters.memory import saved_state
from control_plane.adapters.memory.records import MemoryRecords, Tables
from control_plane.services.errors import BadInput, DatabaseUnavailable, KeyTaken
from control_plane.services.ports.database import Records

T = TypeVar("T")


class MemoryDatabase:
    """A `Database` that ends with the process, unless the caller saves what `dump` returns."""

    def __init__(self) -> None:
        self._tables = Tables()

    @classmethod
    def load(cls, data: bytes) -> Self:
        """The database that `dump` described; `BadInput` when it is damaged or of a later version."""
        database = cls()
        try:
            database._fill(saved_state.decode(data))
        except (ValueError, msgspec.MsgspecError, KeyTaken) as error:
            message = f"the saved state cannot be read: {error}"
            raise BadInput(message) from error
        return database

    def dump(self) -> bytes:
        """Everything but the change log, as JSON. The caller writes it to a file atomically."""
        return saved_state.encode(self._tables)

    def _fill(self, state: saved_state.SavedState) -> None:
        records = MemoryRecords(self._tables)
        for upload in state.uploads:
            records.uploads.add(upload)
            self._tables.uploads[upload.key] = upload
        for entry in state.outbox:
            records.outbox.put(entry)
        records.clients.save(state.clients)
        for record in state.idempotency:
            records.idempotency.add(record)

    async def write(self, work: Callable[[Records], T]) -> T:
        """Run `work`; roll back when it raises."""
        records = MemoryRecords(self._tables)
        try:
            return work(records)
        except BaseException:
            records.undo()
            raise

    async def read(self, work: Callable[[Records], T]) -> T:
        """Run `work`; roll back what it wrote."""
        records = MemoryRecords(self._tables)
        try:
            return work(records)
        finally:
            records.undo()

    async def check(self) -> None:
        """Memory can always be used."""

    async def close(self) -> None:
        """There is nothing to close."""


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
