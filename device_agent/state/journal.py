"""The journal: uploads, tombstones and the ids of accepted commands, as records in one file.

Rule: records are appended and fsynced; reading stops at the first record that is not whole; a compaction replaces the
file by a rename. A full disk rejects new records, and never damages those that are written.
"""

import contextlib
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

import msgspec
from msgspec import Struct, field

from device_agent.errors import JournalError
from device_agent.state.atomic_file import (
    PRIVATE,
    PRIVATE_FOLDER,
    rename_durably,
    sync_folder,
    write_all,
    write_temporary,
)
from device_agent.transfer.model import Transfer
from device_agent.transfer.records import AfterStep, Began, Floor, Record, Remembered, Spent, Tombstone, TransferRecord
from device_agent.transfer.replay import replay, snapshot

MAGIC: Final = b"backhaul journal 1\n"
MAX_RECORD: Final = 1024 * 1024
MIN_TOMBSTONES: Final = 4_096
MAX_TOMBSTONES: Final = 16_384
TOMBSTONE_AGE: Final = 7 * 86_400
MAX_UNFINISHED: Final = 4_096
"""Files that wait to be deleted or moved."""

MAX_RECEIPTS: Final = 1_024
"""Receipts that wait for their owners; of further uploads the owner signs alone."""

MAX_REMEMBERED: Final = 4_096
COMPACT_ABOVE: Final = 256 * 1024
_GROWTH: Final = 4
_MAX_GROWTH: Final = 4 * 1024 * 1024
"""Bytes by which a journal grows at most before it is rewritten: its size is bounded by what it must hold."""

_HEAD: Final = struct.Struct("<II")
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)

log = logging.getLogger(__name__)


class Memory(Struct):
    """The result of all records except those of transfers, which the agent's loop owns."""

    tombstones: dict[str, Tombstone] = field(default_factory=dict)
    remembered: dict[str, int] = field(default_factory=dict)
    floor: int = 0
    spent: Spent | None = None
    unfinished: set[str] = field(default_factory=set)
    """The tombstones with a file that is to be deleted or moved, and may be hidden by now."""
    receipts: set[str] = field(default_factory=set)
    """The tombstones with a receipt that an owner waits for."""

    def apply(self, record: Record) -> str:
        """Apply a record that is not a transfer's; returns the upload that the record is about, "" for none."""
        match record:
            case Tombstone():
                self.add_tombstone(record)
                return record.upload_id
            case Remembered():
                self.remember(record)
            case Floor(epoch=epoch):
                self.floor = max(self.floor, epoch)
            case Spent():
                self.spent = record
            case _:
                return upload_of(record)
        return ""

    def add_tombstone(self, tombstone: Tombstone) -> None:
        """Add a tombstone, and drop those beyond the number and the age that the protocol requires.

        One that is unfinished stays, or its file would stay hidden.
        """
        self.tombstones.pop(tombstone.upload_id, None)
        self.tombstones[tombstone.upload_id] = tombstone
        if tombstone.after is not None and tombstone.after.step is not AfterStep.REPORTED:
            self.unfinished.add(tombstone.upload_id)
        else:
            self.unfinished.discard(tombstone.upload_id)
        (self.receipts.discard if tombstone.receipt is None else self.receipts.add)(tombstone.upload_id)
        while len(self.tombstones) > MIN_TOMBSTONES:
            oldest = next((one for key, one in self.tombstones.items() if key not in self.unfinished), None)
            if oldest is None:
                return
            if len(self.tombstones) <= MAX_TOMBSTONES and tombstone.at - oldest.at < TOMBSTONE_AGE:
                return
            del self.tombstones[oldest.upload_id]
            self.receipts.discard(oldest.upload_id)

    def remember(self, remembered: Remembered) -> None:
        """Add an id. Dropping the oldest ids raises the floor above their epochs."""
        self.remembered[remembered.message_id] = remembered.epoch
        while len(self.remembered) > MAX_REMEMBERED:
            oldest = next(iter(self.remembered))
            self.floor = max(self.floor, self.remembered.pop(oldest) + 1)


class _Pending(NamedTuple):
    """A record that waits for `commit`; `upload_id` is "" for a record that is about no upload."""

    upload_id: str
    kind: type[Record]
    frame: bytes


class Journal:
    """The journal of one agent. `open` locks it, so that two agents never share a state folder."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.path = folder / "journal"
        self.memory = Memory()
        self.dropped = 0
        """Bytes behind the last whole record when the journal was opened."""
        self.on_gone: Callable[[], Iterable[Transfer]] | None = None
        """Called when the file has vanished from the state folder: the uploads that a new one must hold."""
        self._lock = lock
        self._pending: list[_Pending] = []
        self._size = 0
        self._compacted_size = 0
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        """Device and inode of the file that has the records."""
        self._found_other = False
        """The name led to another file, or to none, and the journal is not written again yet."""
        self._rename_in_doubt = False
        """A rename failed: the name may lead to the old or the new file, and is not durable."""

    @classmethod
    def open(cls, folder: Path) -> tuple[Self, dict[str, Transfer]]:
        """Lock and read the journal in `folder`, made if missing; the transfers are those that are not closed.

        `JournalError` when another agent has locked it, or when it cannot be read.
        """
        try:
            folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            journal = cls(folder, _lock(folder / "lock"))
            return journal, journal._load()
        except OSError as error:
            text = f"the state folder {folder} cannot be used: {error.strerror}"
            raise JournalError(text) from error

    def close(self) -> None:
        """Release the lock; records that were not committed are lost."""
        self._close_file()
        os.close(self._lock)

    @property
    def size(self) -> int:
        """Bytes of the records that are durable."""
        return self._size

    @property
    def pending(self) -> int:
        """How many records wait for `commit`."""
        return len(self._pending)

    def pending_uploads(self, kind: type[Record] | None = None, *, since: int = 0) -> frozenset[str]:
        """The uploads of the records that wait for `commit`, without the first `since` of them.

        With `kind` only records of this class count.
        """
        waiting = self._pending[since:] if since else self._pending
        return frozenset(one.upload_id for one in waiting if one.upload_id and kind in {None, one.kind})

    def has_pending(self, kind: type[Record]) -> bool:
        """Whether a record of this class waits for `commit`."""
        return any(one.kind is kind for one in self._pending)

    def append(self, record: Record) -> None:
        """Append a record; it is durable after the next `commit`."""
        self._pending.append(_Pending(self.memory.apply(record), type(record), _frame(record)))

    def discard_pending(self, upload_id: str) -> None:
        """Drop the records of one upload that wait for `commit`."""
        self._pending = [one for one in self._pending if one.upload_id != upload_id]

    def commit(self) -> None:
        """Make all pending records durable, in one write and one fsync.

        `JournalError` when the disk does not accept them: none is half written, and they wait for the next call.
        """
        if not self._pending:
            return
        try:
            if self.on_gone is not None and self._is_gone():
                self._start_again(self.on_gone)
                return
            descriptor = self._writable()
            data = b"".join(one.frame for one in self._pending)
            write_all(descriptor, data)
            os.fdatasync(descriptor)
        except OSError as error:
            self._cut()
            text = f"{self.path} cannot be written: {error.strerror}"
            raise JournalError(text) from error
        self._size += len(data)
        self._pending.clear()

    def compact_if_due(self, transfers: Callable[[], Iterable[Transfer]]) -> bool:
        """Rewrite the journal once it has grown several times, or by 4 MiB, since the last; a full disk delays that."""
        due = min(_GROWTH * self._compacted_size, self._compacted_size + _MAX_GROWTH)
        if self._pending or self._size < max(COMPACT_ABOVE, due):
            return False
        try:
            self.compact(transfers())
        except JournalError:
            self._compacted_size = self._size
            return False
        return True

    def compact(self, transfers: Iterable[Transfer]) -> None:
        """Rewrite the journal with these transfers. `JournalError` when that failed: nothing is lost.

        After a rename that may have happened the old file is never written again, and the next `commit` first makes
        the folder durable.
        """
        try:
            temporary = write_temporary(self.path, [MAGIC, *(_frame(record) for record in self._all(transfers))])
            self._close_file()
            self._rename_in_doubt = True
            rename_durably(temporary, self.path)
            self._find_end()
        except OSError as error:
            text = f"{self.path} cannot be rewritten: {error.strerror}"
            raise JournalError(text) from error

    def _all(self, transfers: Iterable[Transfer]) -> Iterator[Record]:
        yield Floor(self.memory.floor)
        if self.memory.spent is not None:
            yield self.memory.spent
        for message_id, epoch in self.memory.remembered.items():
            yield Remembered(message_id, epoch)
        yield from self.memory.tombstones.values()
        for transfer in transfers:
            yield from snapshot(transfer)

    def _load(self) -> dict[str, Transfer]:
        transfers: dict[str, Transfer] = {}
        if not self.path.exists():
            return transfers
        # The process that wrote it may have been killed before its fsync; from here on its records are relied on.
        _sync(self.path)
        with self.path.open("rb") as stream:
            self._size = self._compacted_size = _replay_all(stream, self.memory, transfers)
        found = self.path.stat()
        self._identity = _identity_of(found)
        self.dropped = found.st_size - self._size
        if self.dropped and not self._size:
            self.path.replace(self.path.with_name("journal.bad"))
        return transfers

    def _writable(self) -> int:
        """The open journal, positioned behind its last whole record."""
        if self._rename_in_doubt:
            sync_folder(self.path.parent)
            self._find_end()
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            self._identity = _identity_of(os.fstat(self._descriptor))
            os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            if not self._size:
                write_all(self._descriptor, MAGIC)
                sync_folder(self.path.parent)
                self._size = len(MAGIC)
        return self._descriptor

    def _is_gone(self) -> bool:
        """Whether the name leads to another file than the one that was written, to a shorter one, or to none."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return self._size > 0
        if self._rename_in_doubt:
            return self._found_other
        return self._size > 0 and (found.st_size < self._size or _identity_of(found) != self._identity)

    def _start_again(self, on_gone: Callable[[], Iterable[Transfer]]) -> None:
        """Make the state folder again, from memory, which has every record that waits too."""
        folder = self.path.parent
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        self._lock_again(folder / "lock")
        self._found_other = True
        self._save_other()
        transfers = on_gone()
        temporary = write_temporary(self.path, [MAGIC, *(_frame(record) for record in self._all(transfers))])
        self._close_file()
        self._identity = _identity_of(temporary.stat())
        self._rename_in_doubt = True
        rename_durably(temporary, self.path)
        self._found_other = False
        self._find_end()
        sync_folder(folder.parent)
        self._pending.clear()
        log.warning("%s was removed while the agent ran: it is written again from memory", self.path)

    def _save_other(self) -> None:
        """Keep what another agent or a restore has put in the place of the journal, for a person to look at."""
        with contextlib.suppress(OSError):
            found = self.path.stat()
            if found.st_size and _identity_of(found) != self._identity:
                other = self.path.with_name("journal.replaced")
                os.link(self.path, other)
                log.warning("another journal was found at %s: it is kept as %s", self.path, other)

    def _lock_again(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(self._lock)):
                return
        before, self._lock = self._lock, _lock(path)
        os.close(before)

    def _find_end(self) -> None:
        """Find the end of the journal whose name was just made durable."""
        with self.path.open("rb") as stream:
            stream.seek(len(MAGIC))
            self._identity = _identity_of(self.path.stat())
            self._size = self._compacted_size = len(MAGIC) + sum(length for _, length in _records(stream))
        self._rename_in_doubt = False

    def _cut(self) -> None:
        """Cut off what a failed write left; the next write opens the file again and repeats the cut."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            self._close_file()

    def _close_file(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _identity_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _sync(path: Path) -> None:
    """Make a file and its name durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def _replay_all(stream: BinaryIO, memory: Memory, transfers: dict[str, Transfer]) -> int:
    """Replay every whole record; returns their size in bytes, header included."""
    if stream.read(len(MAGIC)) != MAGIC:
        return 0
    size = len(MAGIC)
    for record, length in _records(stream):
        size += length
        if record is None:
            continue
        upload_id = memory.apply(record)
        if isinstance(record, Tombstone):
            transfers.pop(upload_id, None)
        elif not isinstance(record, Remembered | Floor | Spent):
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


def _records(stream: BinaryIO) -> Iterator[tuple[Record | None, int]]:
    """Every whole record and its size; None for one of a kind that a later version wrote: it is kept, and not read."""
    while len(head := stream.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        body = stream.read(length) if length <= MAX_RECORD else b""
        if not body or len(body) < length or zlib.crc32(body) != checksum:
            return
        yield _known(body), _HEAD.size + length


def _known(body: bytes) -> Record | None:
    try:
        record: Record = _decoder.decode(body)
    except msgspec.MsgspecError:
        return None
    return record


def recorded_size(transfer: Transfer) -> int:
    """Bytes of the journal that a transfer needs after a rewrite."""
    return sum(_HEAD.size + len(_encoder.encode(record)) for record in snapshot(transfer))


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
