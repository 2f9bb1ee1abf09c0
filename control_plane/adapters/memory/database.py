"""The database in memory: for the direct MQTT CLI, which saves it in one file, and for tests of services.

Rule: it behaves like `SqlDatabase`; one suite of tests runs on both.
"""

from collections.abc import Callable
from typing import Self, TypeVar

import msgspec

from control_plane.adapters.memory import saved_state
from control_plane.adapters.memory.records import MemoryRecords, Tables
from control_plane.services.errors import BadInput, KeyTaken
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
