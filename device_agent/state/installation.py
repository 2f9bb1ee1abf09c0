"""The identity of this installation and of its connections: `install_id` and `epoch`.

Rule: an epoch is never used twice. A ceiling far above is durable before any epoch below it is used, so that a
connection needs no write. A state folder may go back to an older copy: `rise_above` continues above the epoch that the
broker remembers.
"""

import logging
import os
import threading
import uuid
from pathlib import Path
from typing import Annotated, Final, Self

from msgspec import Meta, MsgspecError, Struct, json

from device_agent.errors import JournalError
from device_agent.state.atomic_file import PRIVATE, replace_file, sync_folder, write_all

STEP: Final = 1_000
_SIZE: Final = 256
"""The file is padded to this many bytes, so that it can be overwritten in place on a full disk."""

log = logging.getLogger(__name__)


class _Stored(Struct, frozen=True):
    install_id: Annotated[str, Meta(min_length=1, max_length=64)]
    ceiling: Annotated[int, Meta(ge=0)]


class Installation:
    """The identity in a state folder. `next_epoch` may be called from any thread."""

    def __init__(self, path: Path, stored: _Stored, *, kept: bool = True) -> None:
        self.install_id = stored.install_id
        self._path = path
        self._kept = kept
        """Whether a file with this `install_id` may exist, whose ceiling a later run uses."""
        self._lock = threading.Lock()
        self._epoch = stored.ceiling
        self._ceiling = stored.ceiling

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the identity, or make one: a missing or damaged file means a new installation.

        `JournalError` when the file exists and cannot be read: it may be whole, and must not be replaced.
        """
        path, kept = folder / "identity", True
        try:
            stored = json.decode(path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            stored, kept = _new(), False
        except MsgspecError:
            stored, kept = _new(), False
            log.warning("%s is damaged: this is a new installation, install_id=%s", path, stored.install_id)
        except OSError as error:
            text = f"{path} cannot be read: {error.strerror}"
            raise JournalError(text) from error
        return cls(path, stored, kept=kept)

    @property
    def epoch(self) -> int:
        """The epoch of the latest connection; 0 before the first."""
        return self._epoch

    def next_epoch(self) -> int:
        """An epoch greater than all earlier ones, of this run and of those before.

        `JournalError` when that is not certain: the disk fails, and the installation was stored before.
        """
        with self._lock:
            if self._epoch >= self._ceiling:
                self._raise_ceiling(self._epoch + STEP)
            self._epoch += 1
            return self._epoch

    def rise_above(self, epoch: int) -> None:
        """Make the next epoch greater than `epoch`, which another copy of this state has used."""
        with self._lock:
            self._epoch = max(self._epoch, epoch)

    def renew(self) -> None:
        """Take a new `install_id`: another device has this one. On a disk that fails the old one stays."""
        with self._lock:
            fresh = _new()
            try:
                self._save(json.encode(_Stored(fresh.install_id, self._ceiling)).ljust(_SIZE))
            except OSError as error:
                log.warning("%s cannot be written, the install_id stays: %s", self._path, error.strerror)
            else:
                self.install_id = fresh.install_id

    def save_again(self) -> None:
        """Write the file again, after its folder was removed; `OSError` when the disk fails."""
        with self._lock:
            self._save(json.encode(_Stored(self.install_id, self._ceiling)).ljust(_SIZE))

    def _raise_ceiling(self, ceiling: int) -> None:
        try:
            self._save(json.encode(_Stored(self.install_id, ceiling)).ljust(_SIZE))
        except OSError as error:
            if self._kept:
                text = f"{self._path} cannot be written: {error.strerror}"
                raise JournalError(text) from error
            text = "%s cannot be written (%s): this installation may look like a new one"
            log.warning(text, self._path, error.strerror)
            # The next connection tries again. A ceiling that the file may hold by now is not below the epoch in use.
            ceiling = self._epoch + 1
        else:
            self._kept = True
        self._ceiling = ceiling

    def _save(self, data: bytes) -> None:
        try:
            replace_file(self._path, [data])
        except OSError:
            self._overwrite(data)

    def _overwrite(self, data: bytes) -> None:
        """For a full disk: overwrite in place; one block is written whole or not at all."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # It may be the new file, whose rename a power cut may still undo.
        sync_folder(self._path.parent)


def _new() -> _Stored:
    return _Stored(str(uuid.uuid4()), 0)
