"""Compressed copies: with `compression` an upload sends a copy of its file, and the copy counts as its source.

Rule: a copy has its final name only when it is whole and durable, so a file with that name can be sent after a crash.
The last bytes of the disk are reserved for the journal.
"""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from device_agent.errors import FileRefused
from device_agent.files.roots import Roots
from device_agent.files.source import BLOCK_SIZE, Source, open_source
from device_agent.state.atomic_file import PRIVATE, PRIVATE_FOLDER, sync_folder, write_all
from device_agent.transfer.records import Order
from schemas.file_names import spelled
from schemas.values import ErrorCode

RESERVE: Final = 16 * 1024 * 1024
"""Bytes of free disk that a copy leaves to the journal."""

_GZIP: Final = 16 + zlib.MAX_WBITS
"""Selects a gzip header in zlib; it holds neither name nor time, so equal files give equal copies."""


class CompressedCopies:
    """The folder of copies, one for each attempt."""

    def __init__(self, folder: Path, roots: Roots) -> None:
        # `Roots` accepts only absolute paths, and STATE_DIR may be relative.
        self._folder = folder.absolute()
        self._roots = roots

    def open(self, order: Order, stopped: Callable[[], bool]) -> Source:
        """Open the order's copy, which is made if it does not exist.

        `FileRefused` as for the file itself, with `no_space` on a full disk, `source_changed` when the file
        changes meanwhile, and `internal` when `stopped`.
        """
        path = self._path(order)
        if not path.exists():
            try:
                self._make(order, path, stopped)
            except OSError as error:
                raise FileRefused(
                    ErrorCode.NO_SPACE, f"the compressed copy cannot be kept: {error.strerror}"
                ) from error
        return open_source(spelled(str(path)), Roots(exact=str(path)))

    def discard(self, order: Order) -> None:
        """Delete an order's copy, if there is one."""
        self._path(order).unlink(missing_ok=True)

    def sweep(self, orders: list[Order]) -> None:
        """Delete the copies that belong to none of these orders: those of a crash, and of closed uploads."""
        if self._folder.is_dir():
            kept = {self._path(order) for order in orders}
            for path in self._folder.iterdir():
                if path not in kept:
                    path.unlink(missing_ok=True)

    def _path(self, order: Order) -> Path:
        return self._folder / f"{order.upload_id}.{order.attempt}.gz"

    def _make(self, order: Order, path: Path, stopped: Callable[[], bool]) -> None:
        self._folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with open_source(order.file_path, self._roots) as source:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
            try:
                self._compress(source, descriptor, stopped)
                os.fsync(descriptor)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
            if order.options.on_change == "fail" and source.now() != source.fingerprint:
                partial.unlink(missing_ok=True)
                raise FileRefused(ErrorCode.SOURCE_CHANGED, "the file changed while it was compressed")
        partial.replace(path)
        sync_folder(self._folder)

    def _compress(self, source: Source, descriptor: int, stopped: Callable[[], bool]) -> None:
        compressor = zlib.compressobj(wbits=_GZIP)
        view, offset = memoryview(bytearray(BLOCK_SIZE)), 0
        while offset < source.size:
            if stopped():
                raise FileRefused(ErrorCode.INTERNAL, "stopped while compressing")
            count = source.read_into(view[: min(BLOCK_SIZE, source.size - offset)], offset)
            if count == 0:
                raise FileRefused(ErrorCode.SOURCE_CHANGED, "the file became shorter while it was compressed")
            offset += count
            self._require_room()
            write_all(descriptor, compressor.compress(view[:count]))
        write_all(descriptor, compressor.flush())

    def _require_room(self) -> None:
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < RESERVE:
            raise FileRefused(ErrorCode.NO_SPACE, "the disk has no room for a compressed copy")
