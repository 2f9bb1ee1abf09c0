"""A disk that keeps fsynced bytes through a power cut, and a random part of the rest.

Rule: the shipped journal reads and writes it, through an `os` and a `Path` that lead here. A power cut may come at any
fsync, before or after it; any fsync, and any opening, may fail.
"""

import errno
import io
import os as real_os
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from tests.simulation.world import World

BLOCK: Final = 4096


class PowerCut(BaseException):
    """The device loses power at this instruction. Not an `Exception`, so that no handler catches it."""


@dataclass(eq=False)
class Blob:
    """A file: `data` as a reader sees it, and `synced` as a power cut leaves it."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    dirty: bool = False
    """Changed since the last fsync, failed or not: the kernel does not write a page again whose fsync failed."""


@dataclass(eq=False)
class Handle:
    """An open descriptor."""

    blob: Blob | None
    position: int = 0


class Disk:
    """One device's state folder. `dies_at` counts down fsyncs to a power cut; `room` are the bytes left, if few.

    `flaky` is how often an opening or an fsync fails.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.names: dict[str, Blob] = {}
        self.synced_names: dict[str, Blob] = {}
        self.handles: dict[int, Handle] = {}
        self.room: int | None = None
        self.dies_at: int | None = None
        self.flaky = 0.0
        self._next = 3

    def open(self, path: str, flags: int) -> int:
        """A descriptor; 3 and up, never the same twice."""
        blob = self.names.get(path)
        self._may_fail(errno.EMFILE)
        if flags & real_os.O_DIRECTORY:
            blob = None
        elif blob is None:
            if not flags & real_os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, real_os.strerror(errno.ENOENT), path)
            blob = self.names[path] = Blob()
        elif flags & real_os.O_TRUNC:
            blob.data.clear()
            blob.dirty = True
        self._next += 1
        self.handles[self._next] = Handle(blob)
        return self._next

    def write(self, descriptor: int, data: bytes) -> int:
        """All of it. A full disk takes what lies where bytes lay before, the little that is left, then nothing."""
        handle = self.handles[descriptor]
        assert handle.blob is not None
        if self.room is not None:
            inside = max(0, len(handle.blob.data) - handle.position)
            taken = data[: inside + self.room]
            if data and not taken:
                raise OSError(errno.ENOSPC, real_os.strerror(errno.ENOSPC))
            self.room -= max(0, len(taken) - inside)
            data = taken
        handle.blob.data[handle.position : handle.position + len(data)] = data
        handle.position += len(data)
        handle.blob.dirty = True
        return len(data)

    def sync(self, descriptor: int) -> None:
        """After it a power cut does not lose the data."""
        doomed = self._counts_down()
        if doomed and self._world.chance.random() < 0.5:
            raise PowerCut
        blob = self.handles[descriptor].blob
        try:
            self._may_fail(errno.EIO)
        except OSError:
            if blob is not None:
                blob.dirty = False
            raise
        if blob is None:
            self.synced_names = dict(self.names)
        elif blob.dirty:
            blob.synced, blob.dirty = bytes(blob.data), False
            # ext4 keeps the name under which a new file was made once that file is synced.
            fresh = {name: one for name, one in self.names.items() if one is blob and name not in self.synced_names}
            self.synced_names.update(fresh)
        if doomed:
            raise PowerCut

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut or lengthen."""
        blob = self.handles[descriptor].blob
        assert blob is not None
        del blob.data[size:]
        blob.data.extend(bytes(size - len(blob.data)))
        blob.dirty = True

    def lose_power(self) -> None:
        """Keep all, nothing or a part of what was not synced."""
        chance = self._world.chance
        if chance.random() < 0.5:
            self.names = dict(self.synced_names)
        for blob in self.names.values():
            kept = len(blob.synced)
            if bytes(blob.data[:kept]) == blob.synced:
                torn = chance.randint(kept, len(blob.data))
                junk = bytes(len(blob.data) - torn) if chance.random() < 0.3 else b""
                blob.data = bytearray(blob.data[:torn]) + junk
            else:
                blob.data = bytearray(blob.synced)
            blob.synced, blob.dirty = bytes(blob.data), False
        self.synced_names = dict(self.names)
        self.forget_handles()

    def forget_handles(self) -> None:
        """The process that held them has ended."""
        self.handles.clear()
        self.dies_at = None

    def wipe(self) -> None:
        """An empty disk."""
        self.names.clear()
        self.synced_names.clear()

    def durable(self, text: bytes) -> bool:
        """Whether the platter holds this text in the journal."""
        blob = self.synced_names.get("/state/journal")
        return blob is not None and text in blob.synced

    def _may_fail(self, code: int) -> None:
        if self.flaky and self._world.chance.random() < self.flaky:
            raise OSError(code, real_os.strerror(code))

    def _counts_down(self) -> bool:
        if self.dies_at is None:
            return False
        self.dies_at -= 1
        return self.dies_at <= 0


class DiskPath:
    """The little of `pathlib.Path` that the journal and the identity use."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.disk = disk
        self.text = name

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.disk, f"{self.text}/{name}")

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """The last level."""
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The folder."""
        return type(self)(self.disk, self.text.rpartition("/")[0])

    def with_name(self, name: str) -> Self:
        """A neighbour."""
        return self.parent / name

    def mkdir(self, **_: object) -> None:
        """Folders are always there."""

    def exists(self) -> bool:
        """Whether a file has this name."""
        return self.text in self.disk.names

    def open(self, _mode: str) -> "_Stream":
        """For reading."""
        return _Stream(self.read_bytes())

    def read_bytes(self) -> bytes:
        """The whole file."""
        blob = self.disk.names.get(self.text)
        if blob is None:
            raise FileNotFoundError(errno.ENOENT, real_os.strerror(errno.ENOENT), self.text)
        return bytes(blob.data)

    def stat(self) -> real_os.stat_result:
        """The size, and which file it is."""
        self.read_bytes()
        return _stat_of(self.disk.names[self.text])

    def replace(self, target: "DiskPath") -> None:
        """Rename."""
        self.disk.names[target.text] = self.disk.names.pop(self.text)

    def unlink(self, *, missing_ok: bool) -> None:
        """Remove."""
        assert missing_ok
        self.disk.names.pop(self.text, None)


def _stat_of(blob: Blob) -> real_os.stat_result:
    """A result in which only the size and the inode are set: no other file that is open or has a name has this one."""
    return real_os.stat_result((0, id(blob), 0, 0, 0, 0, len(blob.data), 0, 0, 0))


class _Stream(io.BytesIO):
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class DiskOs:
    """The little of `os` that the journal and the identity use, for all disks of a history."""

    O_RDWR, O_CREAT, O_CLOEXEC, O_WRONLY = real_os.O_RDWR, real_os.O_CREAT, real_os.O_CLOEXEC, real_os.O_WRONLY
    O_TRUNC, O_RDONLY, O_DIRECTORY, SEEK_END = real_os.O_TRUNC, real_os.O_RDONLY, real_os.O_DIRECTORY, real_os.SEEK_END
    path = real_os.path

    def __init__(self) -> None:
        self.disk: Disk | None = None
        """The disk of the process that runs now."""

    @property
    def _at(self) -> Disk:
        assert self.disk is not None
        return self.disk

    def open(self, path: DiskPath, flags: int, _mode: int = 0) -> int:
        """A descriptor."""
        return self._at.open(str(path), flags)

    def write(self, descriptor: int, data: bytes) -> int:
        """How many bytes were taken."""
        return self._at.write(descriptor, bytes(data))

    def lseek(self, descriptor: int, offset: int, _whence: int) -> int:
        """Seek to the end; no other use occurs."""
        handle = self._at.handles[descriptor]
        assert handle.blob is not None
        handle.position = len(handle.blob.data) + offset
        return handle.position

    def fstat(self, descriptor: int) -> real_os.stat_result:
        """Of an open file, which may have lost its name."""
        blob = self._at.handles[descriptor].blob
        assert blob is not None
        return _stat_of(blob)

    def ftruncate(self, descriptor: int, size: int) -> None:
        """Cut."""
        self._at.truncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        """Make durable."""
        self._at.sync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        """Make durable."""
        self._at.sync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close; a descriptor of a dead process is already gone."""
        self._at.handles.pop(descriptor, None)


class NoLocks:
    """`fcntl` for a folder that no other process uses."""

    LOCK_EX = LOCK_NB = 0

    @staticmethod
    def flock(_descriptor: int, _how: int) -> None:
        """Granted."""
