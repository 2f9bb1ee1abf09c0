"""An open file of the user, opened safely, from which parts are read.

Rule: the only module that opens user files. The opened file is checked, not its name: a regular file, beneath a root,
reached through no link.
"""

import binascii
import errno
import hashlib
import os
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self

from device_agent.errors import FileRefused
from device_agent.files.file_call import FILE_CALL
from device_agent.files.own_files import identity_of
from device_agent.files.roots import CheckedFolder, Roots
from device_agent.files.safe_open import O_PATH, READ, open_beneath
from device_agent.transfer.source_change import Sameness, compare, granularity, is_racy
from schemas.file_names import unspelled
from schemas.parts import MAX_FILE_SIZE
from schemas.values import DigestName, ErrorCode, Fingerprint, nearest_int64

BLOCK_SIZE: Final = 256 * 1024
"""Bytes to read at once: larger blocks are not faster, and every worker holds one."""

_LOOKS: Final = 3
"""A file that is written all the time is looked at so often when it is opened, and then taken as it is."""

_CODES: Final = {
    errno.ELOOP: ErrorCode.PATH_NOT_ALLOWED,
    errno.EXDEV: ErrorCode.PATH_NOT_ALLOWED,
    errno.ENOENT: ErrorCode.FILE_NOT_FOUND,
    errno.ENOTDIR: ErrorCode.FILE_NOT_FOUND,
    errno.ENAMETOOLONG: ErrorCode.FILE_NOT_FOUND,
    errno.EACCES: ErrorCode.PERMISSION_DENIED,
    errno.EPERM: ErrorCode.PERMISSION_DENIED,
    errno.ENXIO: ErrorCode.NOT_A_FILE,
    errno.ENODEV: ErrorCode.NOT_A_FILE,
    # The agent has too many files open, or too little memory: no fault of the file.
    errno.EMFILE: ErrorCode.INTERNAL,
    errno.ENFILE: ErrorCode.INTERNAL,
    errno.ENOMEM: ErrorCode.INTERNAL,
}
"""Every other error is `source_unreadable`."""


_ENVIRONMENT: Final = "environ"
"""/proc/<pid>/environ, whose size is 0: that of the agent has its password, and each of its threads has a copy."""


class Source:
    """One open regular file. Reads are positional, so any number of threads may share it.

    `looked_at` is the device's clock just before `fingerprint` was taken, in ns since 1970.
    `racy`: the file changed so short a time before `fingerprint` that a later change may leave its times as they are.
    """

    def __init__(self, path: str, resolved: str, descriptor: int, fingerprint: Fingerprint, looked_at: int) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.racy = is_racy(fingerprint, looked_at)
        self._resolved = resolved
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes in the file when it was opened."""
        return self.fingerprint.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it after the last running read; may be repeated."""
        with self._lock:
            last = not self._closed and not self._users
            self._closed = True
        if last:
            with FILE_CALL:
                os.close(self._descriptor)

    def now(self) -> Fingerprint:
        """The present fingerprint of the open file; `FileRefused` as in `read_into`."""
        return _fingerprint(self._stat())

    def linked(self) -> bool:
        """Whether the path still leads to this file; `FileRefused` as in `read_into`."""
        try:
            with FILE_CALL:
                there = os.lstat(self._resolved)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unreadable(self.path, error) from error
        here = self._stat()
        return here.st_nlink > 0 and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def gone(self) -> bool:
        """Whether the path leads nowhere."""
        with FILE_CALL:
            return not os.path.lexists(unspelled(self.path))

    def ends_at(self, size: int) -> bool:
        """Whether exactly `size` bytes can be read, found by a read of the last one and of the next."""
        last = max(0, size - 1)
        return self.read_into(memoryview(bytearray(2)), last) == size - last

    def has_its_size(self) -> bool:
        """Whether the file ends at its size: a file below /proc or /sys does not.

        To be called before the file is read: at a file that grew since it was opened, the fingerprint is taken anew.
        `FileRefused` as in `read_into`.
        """
        for _ in range(_LOOKS):
            size = self.size
            if self.ends_at(size):
                return True
            if self.now().size == size:
                return False
            self._look()
        return True

    def wait_until_not_racy(self, wait: Callable[[float], object]) -> None:
        """Wait until every later change shows in the times; a file that changes meanwhile may stay racy.

        `wait` is called with seconds. It decides without the device's clock, which may be wrong: while one granularity
        passes and the times stay, the clock of the file system passes them.
        """
        for _ in range(_LOOKS):
            if not self.racy:
                return
            before = self.fingerprint
            wait(granularity(before) / 1e9)
            self._look()
            if self.fingerprint == before:
                self.racy = False

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer than it holds only at the end of the file.

        `FileRefused` with `source_unreadable` when the system cannot read it, with `source_changed` after `close`.
        """
        done = 0
        with self._using() as descriptor:
            while done < len(buffer):
                try:
                    with FILE_CALL:
                        count = os.preadv(descriptor, [buffer[done:]], offset + done)
                except OSError as error:
                    raise _unreadable(self.path, error) from error
                if count == 0:
                    break
                done += count
        return done

    def send_to(self, descriptor: int, offset: int, size: int) -> int:
        """Make the kernel send up to `size` bytes from `offset` to a socket; returns the bytes sent, 0 only at the end.

        `OSError` as in sendfile(2), `FileRefused` after `close`.
        """
        with self._using() as source, FILE_CALL:
            return os.sendfile(descriptor, source, offset, size)

    def digest(self, offset: int, size: int, name: DigestName) -> str | None:
        """The digest of a range as base64 of the raw digest, exactly the header's value; None for `none`.

        `FileRefused` with `source_changed` when the file ends before the range does, and as in `read_into`.
        """
        return digest_of(self.read_into, self.path, offset, size, name)

    def whole_digest(self, name: DigestName) -> str | None:
        """The digest of one version of the whole file; None for `none`, and when no single version was read.

        `FileRefused` as in `digest`.
        """
        size = self.size
        if not self.ends_at(size):
            return None
        first = self.digest(0, size, name)
        verdict = compare(self.fingerprint, self.now(), prefix=False, racy=self.racy)
        if verdict is Sameness.DOUBTFUL:
            verdict = Sameness.SAME if self.digest(0, size, name) == first else Sameness.CHANGED
        return first if verdict is Sameness.SAME and self.ends_at(size) else None

    def _look(self) -> None:
        """Take the fingerprint anew."""
        now = time.time_ns()
        self.fingerprint = self.now()
        self.racy = is_racy(self.fingerprint, now)

    def _stat(self) -> os.stat_result:
        with self._using() as descriptor:
            try:
                with FILE_CALL:
                    return os.fstat(descriptor)
            except OSError as error:
                raise _unreadable(self.path, error) from error

    @contextmanager
    def _using(self) -> Iterator[int]:
        """The descriptor, kept open during the use: the number of a closed one may belong to another file."""
        with self._lock:
            if self._closed:
                raise _changed(self.path, "is closed")
            self._users += 1
        try:
            yield self._descriptor
        finally:
            with self._lock:
                self._users -= 1
                last = self._closed and not self._users
            if last:
                with FILE_CALL:
                    os.close(self._descriptor)


class _Crc32:
    """CRC-32 with the shape of a hashlib digest: four bytes, the most significant first, as S3 expects it."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def digest_of(
    read_into: Callable[[memoryview, int], int], path: str, offset: int, size: int, name: DigestName
) -> str | None:
    """As `Source.digest`, of what `read_into` reads; `path` is for the texts of errors."""
    if name is DigestName.NONE:
        return None
    running = _Crc32() if name is DigestName.CRC32 else hashlib.new(name, usedforsecurity=False)
    view = memoryview(bytearray(min(BLOCK_SIZE, size)))
    while size:
        count = read_into(view[: min(len(view), size)], offset)
        if count == 0:
            raise _changed(path, "became shorter while it was read")
        running.update(view[:count])
        offset, size = offset + count, size - count
    return binascii.b2a_base64(running.digest(), newline=False).decode()


def open_source(path: str, roots: Roots) -> Source:
    """Open one file for reading; `path` is spelled as on the wire.

    `FileRefused` with `path_not_allowed`, `not_a_file`, `file_not_found`, `permission_denied`, `file_too_large`,
    `source_unreadable` when the system fails, or `internal` when the agent has too many files open. Never waits for a
    pipe; a mount that does not answer blocks it, as any call.
    """
    own = roots.own.identities()
    try:
        with FILE_CALL:
            folder, relative = roots.locate(path)
            descriptor = _open_located(path, folder, relative)
            # The clock first: the file may change between the two.
            looked_at = time.time_ns()
            found = os.fstat(descriptor)
    except OSError as error:
        code = _CODES.get(error.errno or 0, ErrorCode.SOURCE_UNREADABLE)
        why = "a symbolic link is in the way" if code is ErrorCode.PATH_NOT_ALLOWED else error.strerror
        raise FileRefused(code, f"{path!r} cannot be opened: {why}") from error
    # Looked up again after the open: the agent may have written one of its files in between.
    if identity_of(found) in own | roots.own.identities():
        os.close(descriptor)
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, f"{path!r} is a file of the agent itself")
    if found.st_size == 0 and relative.rpartition("/")[2] == _ENVIRONMENT:
        os.close(descriptor)
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, f"{path!r} may be the environment of a process")
    try:
        roots.policy.require_file(path, found)
    except FileRefused:
        os.close(descriptor)
        raise
    if found.st_size > MAX_FILE_SIZE:
        os.close(descriptor)
        raise FileRefused(ErrorCode.FILE_TOO_LARGE, f"{path!r} is larger than the {MAX_FILE_SIZE} bytes that S3 takes")
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    place = f"{(folder.place or '').rstrip('/')}/{relative}"
    return Source(path, place, descriptor, _fingerprint(found), looked_at)


def open_in(folder: int, name: str, path: str) -> Source:
    """Open the file `name` of an open folder; `path` is for the texts of errors.

    `FileRefused` with `not_a_file`; `OSError` as in open(2), `ELOOP` for a link.
    """
    with FILE_CALL:
        descriptor = _open_regular(path, folder, name)
        looked_at = time.time_ns()
        found = os.fstat(descriptor)
    return Source(path, path, descriptor, _fingerprint(found), looked_at)


def _open_located(path: str, folder: CheckedFolder, relative: str) -> int:
    above = folder.open()
    try:
        return _open_regular(path, above, relative)
    finally:
        os.close(above)


def _open_regular(path: str, folder: int, relative: str) -> int:
    # Checked before it is opened: opening a device can have an effect (a watchdog, a tape).
    _require_regular(path, open_beneath(folder, relative, O_PATH | os.O_CLOEXEC), keep=False)
    return _require_regular(path, open_beneath(folder, relative, READ), keep=True)


def _require_regular(path: str, descriptor: int, *, keep: bool) -> int:
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not (keep and regular):
        os.close(descriptor)
    if not regular:
        raise FileRefused(ErrorCode.NOT_A_FILE, f"{path!r} is not a regular file")
    return descriptor


def _fingerprint(found: os.stat_result) -> Fingerprint:
    return Fingerprint(
        size=found.st_size,
        mtime_ns=nearest_int64(found.st_mtime_ns),
        ctime_ns=nearest_int64(found.st_ctime_ns),
        device=found.st_dev,
        inode=found.st_ino,
    )


def _changed(path: str, what: str) -> FileRefused:
    return FileRefused(ErrorCode.SOURCE_CHANGED, f"{path!r} {what}")


def _unreadable(path: str, error: OSError) -> FileRefused:
    """A failing disk or an unreachable file server does not change the file, so the attempt may be resumed."""
    return FileRefused(ErrorCode.SOURCE_UNREADABLE, f"{path!r} cannot be read: {error.strerror}")
