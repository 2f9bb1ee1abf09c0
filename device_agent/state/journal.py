"""What must not be forgotten, on disk: uploads, tombstones, the ids of accepted commands.

Rule: appended and fsynced before anybody is told; read up to the first record that is not whole; rewritten by a rename.
A disk that is full costs what is new, never what is written.
"""

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Self

import msgspec

from device_agent.errors import JournalError
from device_agent.state.durable import PRIVATE, PRIVATE_FOLDER, rename_durably, sync_folder, write_all, write_temporary
from device_agent.transfer.model import Transfer
from device_agent.transfer.records import Began, Floor, Record, Remembered, Tombstone, TransferRecord
from device_agent.transfer.replay import replay, snapshot

MAGIC: Final = b"backhaul journal 1\n"
MAX_RECORD: Final = 1024 * 1024
MIN_TOMBSTONES: Final = 4_096
MAX_TOMBSTONES: Final = 16_384
TOMBSTONE_AGE: Final = 7 * 86_400
MAX_REMEMBERED: Final = 4_096
COMPACT_ABOVE: Final = 256 * 1024
_GROWTH: Final = 4

_HEAD: Final = struct.Struct("<II")
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)


@dataclass(slots=True)
class Memory:
    """What the records so far amount to, but for transfers, whose owner is the agent's loop."""

    tombstones: dict[str, Tombstone] = field(default_factory=dict)
    remembered: dict[str, int] = field(default_factory=dict)
    floor: int = 0

    def take(self, record: Record) -> str:
        """Remember what is not a transfer's; the upload that the record is about, "" for none."""
        match record:
            case Tombstone():
                self.bury(record)
                return record.upload_id
            case Remembered():
                self.remember(record)
            case Floor(epoch=epoch):
                self.floor = max(self.floor, epoch)
            case _:
                return upload_of(record)
        return ""

    def bury(self, tombstone: Tombstone) -> None:
        """Add a tombstone, and drop those beyond the number and the age that the protocol asks for."""
        self.tombstones.pop(tombstone.upload_id, None)
        self.tombstones[tombstone.upload_id] = tombstone
        while len(self.tombstones) > MIN_TOMBSTONES:
            oldest = next(iter(self.tombstones.values()))
            if len(self.tombstones) <= MAX_TOMBSTONES and tombstone.at - oldest.at < TOMBSTONE_AGE:
                return
            del self.tombstones[oldest.upload_id]

    def remember(self, remembered: Remembered) -> None:
        """Add an id. Forgetting the oldest ones raises the floor above the epochs they were meant for."""
        self.remembered[remembered.message_id] = remembered.epoch
        while len(self.remembered) > MAX_REMEMBERED:
            oldest = next(iter(self.remembered))
            self.floor = max(self.floor, self.remembered.pop(oldest) + 1)


class Journal:
    """One agent's journal. `open` locks it, so that two agents never share a state folder."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.path = folder / "journal"
        self.memory = Memory()
        self.dropped = 0
        """Bytes behind the last whole record when the journal was opened."""
        self._lock = lock
        self._pending: list[tuple[str, bytes]] = []
        self._size = 0
        self._compacted_size = 0
        self._descriptor: int | None = None
        self._rename_in_doubt = False
        """A rename went wrong: which file has our name is to be found out, and to be made durable."""

    @classmethod
    def open(cls, folder: Path) -> tuple[Self, dict[str, Transfer]]:
        """Lock and read the journal in `folder`, made if missing; the transfers are those not closed yet.

        `JournalError` when another agent holds it, or when what is there cannot be read.
        """
        try:
            folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            journal = cls(folder, _lock(folder / "lock"))
            return journal, journal._load()
        except OSError as error:
            text = f"the state folder {folder} cannot be used: {error.strerror}"
            raise JournalError(text) from error

    def close(self) -> None:
        """Give the lock back; what was not committed is lost."""
        self._close_file()
        os.close(self._lock)

    @property
    def pending(self) -> int:
        """How many records wait for `commit`."""
        return len(self._pending)

    def uncommitted(self, since: int = 0) -> frozenset[str]:
        """The uploads that records waiting for `commit` are about, the first `since` of them left out."""
        return frozenset(about for about, _ in self._pending[since:] if about)

    def append(self, record: Record) -> None:
        """Take a record; it is durable after the next `commit`."""
        about = self.memory.take(record)
        self._pending.append((about, _frame(record)))

    def discard_pending(self, upload_id: str) -> None:
        """Forget what was appended about one upload and is not committed."""
        self._pending = [(about, frame) for about, frame in self._pending if about != upload_id]

    def commit(self) -> None:
        """Make everything appended durable, in one write and one fsync.

        `JournalError` when the disk does not take it: nothing is half written, and the records wait for the next call.
        """
        if not self._pending:
            return
        try:
            descriptor = self._writable()
            data = b"".join(frame for _, frame in self._pending)
            write_all(descriptor, data)
            os.fdatasync(descriptor)
        except OSError as error:
            self._cut()
            text = f"the journal cannot be written: {error.strerror}"
            raise JournalError(text) from error
        self._size += len(data)
        self._pending.clear()

    def compact_if_due(self, transfers: Callable[[], Iterable[Transfer]]) -> bool:
        """Rewrite the journal once it has grown to several times what it has to say; a full disk puts that off."""
        if self._pending or self._size < max(COMPACT_ABOVE, _GROWTH * self._compacted_size):
            return False
        try:
            self.compact(transfers())
        except JournalError:
            self._compacted_size = self._size
            return False
        return True

    def compact(self, transfers: Iterable[Transfer]) -> None:
        """Rewrite the journal with these transfers. `JournalError` when that failed: nothing is lost.

        Once the rename may have happened the old file counts for nothing, and the next `commit` waits for the folder.
        """
        try:
            fresh = write_temporary(self.path, [MAGIC, *(_frame(record) for record in self._all(transfers))])
            self._close_file()
            self._rename_in_doubt = True
            rename_durably(fresh, self.path)
            self._find()
        except OSError as error:
            text = f"the journal cannot be compacted: {error.strerror}"
            raise JournalError(text) from error

    def _all(self, transfers: Iterable[Transfer]) -> Iterator[Record]:
        yield Floor(self.memory.floor)
        for message_id, epoch in self.memory.remembered.items():
            yield Remembered(message_id, epoch)
        yield from self.memory.tombstones.values()
        for transfer in transfers:
            yield from snapshot(transfer)

    def _load(self) -> dict[str, Transfer]:
        transfers: dict[str, Transfer] = {}
        if not self.path.exists():
            return transfers
        # Whoever wrote it may have been killed before the fsync; from here on others hear of what it says.
        _sync(self.path)
        with self.path.open("rb") as stream:
            self._size = self._compacted_size = _replay_all(stream, self.memory, transfers)
        self.dropped = self.path.stat().st_size - self._size
        if self.dropped and not self._size:
            self.path.replace(self.path.with_name("journal.bad"))
        return transfers

    def _writable(self) -> int:
        """The open journal, positioned behind its last whole record."""
        if self._rename_in_doubt:
            sync_folder(self.path.parent)
            self._find()
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            if not self._size:
                write_all(self._descriptor, MAGIC)
                sync_folder(self.path.parent)
                self._size = len(MAGIC)
        return self._descriptor

    def _find(self) -> None:
        """Find the end of the journal whose name was just made durable."""
        with self.path.open("rb") as stream:
            stream.seek(len(MAGIC))
            self._size = self._compacted_size = len(MAGIC) + sum(length for _, length in _records(stream))
        self._rename_in_doubt = False

    def _cut(self) -> None:
        """Take back what a failed write left; the next write opens the file anew and cuts it again."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            self._close_file()

    def _close_file(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _sync(path: Path) -> None:
    """Make a file and its name durable, whoever wrote it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def _replay_all(stream: BinaryIO, memory: Memory, transfers: dict[str, Transfer]) -> int:
    """Replay every whole record; how many bytes they take, header included."""
    if stream.read(len(MAGIC)) != MAGIC:
        return 0
    size = len(MAGIC)
    for record, length in _records(stream):
        size += length
        upload_id = memory.take(record)
        if isinstance(record, Tombstone):
            transfers.pop(upload_id, None)
        elif not isinstance(record, Remembered | Floor):
            _replay_one(record, transfers)
    return size


def _replay_one(record: TransferRecord, transfers: dict[str, Transfer]) -> None:
    upload_id = upload_of(record)
    transfer = replay(transfers.get(upload_id), record)
    if transfer is not None:
        transfers[upload_id] = transfer


def upload_of(record: TransferRecord) -> str:
    """The upload that a record is about."""
    return record.order.upload_id if isinstance(record, Began) else record.upload_id


def _records(stream: BinaryIO) -> Iterator[tuple[Record, int]]:
    while len(head := stream.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        body = stream.read(length) if length <= MAX_RECORD else b""
        if not body or len(body) < length or zlib.crc32(body) != checksum:
            return
        try:
            yield _decoder.decode(body), _HEAD.size + length
        except msgspec.MsgspecError:
            return


def _frame(record: Record) -> bytes:
    body = _encoder.encode(record)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        text = f"another agent uses the state folder {path.parent}"
        raise JournalError(text) from error
    return descriptor
