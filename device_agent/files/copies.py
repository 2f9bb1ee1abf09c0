"""Copies of files: what is sent in place of a file that is to be compressed, or that has not the size it claims.

Rule: a copy has its final name only when it is whole and durable, so a file with that name can be sent after a crash.
All copies together stay within a quota, and the last bytes of the disk are reserved for the journal.

A file below /proc or /sys is made when it is read, and its size is 0 or one page. It has no version that could be read
twice, so one reading to its end is its content.
"""

import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from device_agent.errors import FileRefused
from device_agent.files.roots import Roots
from device_agent.files.source import BLOCK_SIZE, Source, open_source
from device_agent.policy.rules import NO_RULES, RefusedByPolicy
from device_agent.state.atomic_file import PRIVATE, PRIVATE_FOLDER, sync_folder, write_all
from device_agent.transfer.records import Order
from device_agent.transfer.source_change import Sameness, compare
from schemas.file_names import spelled
from schemas.values import ErrorCode

RESERVE: Final = 16 * 1024 * 1024
"""Bytes of free disk that a copy leaves to the journal."""

_GZIP: Final = 16 + zlib.MAX_WBITS
"""Selects a gzip header in zlib; it holds neither name nor time, so equal files give equal copies."""


class _Format(Protocol):
    def compress(self, data: memoryview, /) -> bytes | memoryview: ...

    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: memoryview) -> memoryview:
        return data

    def flush(self) -> bytes:
        return b""


class Copies:
    """The folder of copies, one for each attempt that needs one.

    Together they take at most `max_bytes`, and at most `max_percent` of the disk space that would be free without them.
    """

    def __init__(self, folder: Path, roots: Roots, *, max_bytes: int, max_percent: int) -> None:
        # `Roots` accepts only absolute paths, and STATE_DIR may be relative.
        self._folder = folder.absolute()
        self._roots = roots
        self._max_bytes = max_bytes
        self._max_percent = max_percent

    def open(self, order: Order, stopped: Callable[[], bool]) -> Source:
        """Open what is sent for an order: its file, or the copy, which is made if it does not exist.

        `FileRefused` as for the file itself, with `no_space` on a full disk or over the quota, `source_changed` when
        the file changes while it is copied, and `internal` when `stopped`.
        """
        path = self._path(order)
        if path.exists():
            # What this start allows counts, also for a copy that an earlier one has made.
            self._roots.decide(order.file_path)
            self._require_allowed(order.file_path)
            return _open_copy(path)
        source = open_source(order.file_path, self._roots)
        if order.options.compression == "none" and source.has_its_size():
            return source
        with source:
            try:
                self._make(source, order, path, stopped)
            except OSError as error:
                raise FileRefused(
                    ErrorCode.NO_SPACE, f"the copy of the file cannot be kept: {error.strerror}"
                ) from error
        return _open_copy(path)

    def _require_allowed(self, path: str) -> None:
        """`RefusedByPolicy` for a file that the policy refuses for its size, owner or names, as far as it is there."""
        if not self._roots.policy.judges_files:
            return
        try:
            open_source(path, self._roots).close()
        except RefusedByPolicy:
            raise
        except FileRefused:
            # It is gone, or cannot be read any more: nothing is judged, and the copy is what was allowed.
            pass

    def measure(self, order: Order) -> int:
        """Bytes in the file of an order; `FileRefused` as for `open`."""
        with open_source(order.file_path, self._roots) as source:
            return source.size

    def discard(self, order: Order) -> None:
        """Delete an order's copy, if there is one."""
        self._path(order).unlink(missing_ok=True)

    def sweep(self, orders: list[Order]) -> None:
        """Delete the copies that belong to none of these orders: those of a crash, and of uploads that are over."""
        if self._folder.is_dir():
            kept = {self._path(order) for order in orders}
            for path in self._folder.iterdir():
                if path not in kept:
                    path.unlink(missing_ok=True)

    def _path(self, order: Order) -> Path:
        suffix = "copy" if order.options.compression == "none" else "gz"
        return self._folder / f"{order.upload_id}.{order.attempt}.{suffix}"

    def _make(self, source: Source, order: Order, path: Path, stopped: Callable[[], bool]) -> None:
        self._folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
        try:
            self._copy(source, order, descriptor, stopped)
            os.fsync(descriptor)
            # The upload may have ended, and its copy may have been discarded.
            _require_running(stopped)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        partial.replace(path)
        sync_folder(self._folder)

    def _copy(self, source: Source, order: Order, descriptor: int, stopped: Callable[[], bool]) -> None:
        form: _Format = _Plain() if order.options.compression == "none" else zlib.compressobj(wbits=_GZIP)

        def write(data: memoryview) -> None:
            self._require_room()
            write_all(descriptor, form.compress(data))

        limit = source.size if source.has_its_size() else None
        first = _read(source, limit, stopped, write)
        write_all(descriptor, form.flush())
        if limit is None:
            return
        prefix = order.options.on_change == "prefix"
        verdict = compare(source.fingerprint, source.now(), prefix=prefix, racy=source.racy)
        if verdict is Sameness.DOUBTFUL:
            same = _read(source, limit, stopped, lambda _data: None) == first
            verdict = Sameness.SAME if same else Sameness.CHANGED
        if verdict is Sameness.CHANGED or not (prefix or source.ends_at(limit)):
            raise FileRefused(ErrorCode.SOURCE_CHANGED, "the file changed while it was copied")

    def _require_room(self) -> None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        used = sum(_size(path) for path in self._folder.iterdir())
        allowed = min(self._max_bytes, (free + used) * self._max_percent // 100)
        if used > allowed:
            text = f"the copies of files may take {allowed} bytes on this device (SPOOL_MAX_BYTES, SPOOL_MAX_PERCENT)"
            raise FileRefused(ErrorCode.NO_SPACE, text)
        if free < RESERVE:
            raise FileRefused(ErrorCode.NO_SPACE, "the disk has no room for a copy of the file")


def _open_copy(path: Path) -> Source:
    copy = open_source(spelled(str(path)), Roots(exact=str(path), policy=NO_RULES))
    # Its times are of this moment, but only the agent writes in its folder, and a copy is never written again.
    copy.racy = False
    return copy


def _read(source: Source, limit: int | None, stopped: Callable[[], bool], use: Callable[[memoryview], None]) -> bytes:
    """Read the first `limit` bytes, or up to the end, and use each block; a digest of them all."""
    view, offset, running = memoryview(bytearray(BLOCK_SIZE)), 0, hashlib.blake2b(usedforsecurity=False)
    while limit is None or offset < limit:
        _require_running(stopped)
        count = source.read_into(view if limit is None else view[: min(BLOCK_SIZE, limit - offset)], offset)
        if count == 0 and limit is not None:
            raise FileRefused(ErrorCode.SOURCE_CHANGED, "the file became shorter while it was copied")
        if count == 0:
            break
        offset += count
        running.update(view[:count])
        use(view[:count])
    return running.digest()


def _require_running(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise FileRefused(ErrorCode.INTERNAL, "stopped while the file was copied")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
