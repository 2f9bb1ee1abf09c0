"""The store in memory: for the direct MQTT CLI, which keeps it in one file, and for tests of services.

Rule: it does what `SqlDatabase` does, and one suite of tests runs on both.
"""

from collections.abc import Callable
from typing import Final, Self, TypeVar

import msgspec

from control_plane.adapters.memory.records import MemoryRecords, Tables
from control_plane.domain.clients import Client
from control_plane.domain.uploads.model import Upload
from control_plane.services.errors import BadInput, KeyTaken
from control_plane.services.ports.database import IdempotencyRecord, OutboxEntry, Records

T = TypeVar("T")

_FORMAT: Final = 2


class _Header(msgspec.Struct):
    format: int


class _Dump(_Header):
    uploads: list[Upload] = []
    tasks: list[OutboxEntry] = []
    clients: list[Client] = []
    idempotency: list[IdempotencyRecord] = []


class MemoryDatabase:
    """A `Database` that forgets everything with its process, unless somebody keeps what `dump` gives."""

    def __init__(self) -> None:
        self._tables = Tables()

    @classmethod
    def load(cls, data: bytes) -> Self:
        """The store that `dump` described; `BadInput` when it is damaged or of a later version."""
        store = cls()
        try:
            store._fill(_read(data))
        except (ValueError, msgspec.MsgspecError, KeyTaken) as error:
            message = f"the saved state cannot be read: {error}"
            raise BadInput(message) from error
        return store

    def dump(self) -> bytes:
        """Everything, as JSON; whoever writes it to a file does so atomically."""
        tables = self._tables
        tasks = [task for rows in tables.tasks.values() for task in rows.values()]
        clients, idempotency = list(tables.clients.values()), list(tables.idempotency.values())
        return msgspec.json.encode(_Dump(_FORMAT, list(tables.uploads.values()), tasks, clients, idempotency))

    def _fill(self, dump: _Dump) -> None:
        records = MemoryRecords(self._tables)
        for upload in dump.uploads:
            records.add_upload(upload)
            self._tables.uploads[upload.key] = upload
        for task in dump.tasks:
            records.put_task(task)
        records.save_clients(dump.clients)
        for record in dump.idempotency:
            records.add_idempotency(record)

    async def write(self, work: Callable[[Records], T]) -> T:
        """Run `work`; what it did is undone when it raises."""
        records = MemoryRecords(self._tables)
        try:
            return work(records)
        except BaseException:
            records.undo()
            raise

    async def read(self, work: Callable[[Records], T]) -> T:
        """Run `work`; what it did is undone."""
        records = MemoryRecords(self._tables)
        try:
            return work(records)
        finally:
            records.undo()

    async def check(self) -> None:
        """Memory can always be used."""

    async def close(self) -> None:
        """Nothing is held."""


def _read(data: bytes) -> _Dump:
    version = msgspec.json.decode(data, type=_Header).format
    if version != _FORMAT:
        message = f"the saved state has format {version}, this program reads {_FORMAT}: use the version that wrote it"
        raise BadInput(message)
    return msgspec.json.decode(data, type=_Dump)
