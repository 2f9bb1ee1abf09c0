"""Who this installation is, and which of its lives this is: `install_id` and `epoch`.

Rule: an epoch is never used twice. A ceiling far above is durable before any epoch below it is used, so that a
connection costs no write.
"""

import logging
import os
import threading
import uuid
from pathlib import Path
from typing import Annotated, Final, Self

from msgspec import Meta, MsgspecError, Struct, json

from device_agent.errors import JournalError
from device_agent.state.durable import PRIVATE, replace_file, sync_folder, write_all

STEP: Final = 1_000
_SIZE: Final = 256
"""The file is padded to this, so that on a full disk it can be rewritten where it lies."""

log = logging.getLogger(__name__)


class _Stored(Struct, frozen=True):
    install_id: Annotated[str, Meta(min_length=1, max_length=64)]
    ceiling: Annotated[int, Meta(ge=0)]


class Installation:
    """The identity kept in a state folder. `next_epoch` may be called from any thread."""

    def __init__(self, path: Path, stored: _Stored, *, kept: bool = True) -> None:
        self.install_id = stored.install_id
        self._path = path
        self._kept = kept
        """Whether a file with our `install_id` may be found one day, whose ceiling is to be believed."""
        self._lock = threading.Lock()
        self._epoch = stored.ceiling
        self._ceiling = stored.ceiling

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the identity, or make one. Nothing of the file left whole means a new installation.

        `JournalError` when it is there and cannot be read: it may be whole, and must not be given up for that.
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
        """An epoch greater than every one before, on this run and all earlier ones.

        `JournalError` when that cannot be sure: a disk that takes nothing, in an installation that was kept before.
        """
        with self._lock:
            if self._epoch >= self._ceiling:
                self._raise_ceiling(self._epoch + STEP)
            self._epoch += 1
            return self._epoch

    def _raise_ceiling(self, ceiling: int) -> None:
        try:
            self._save(json.encode(_Stored(self.install_id, ceiling)).ljust(_SIZE))
        except OSError as error:
            if self._kept:
                text = f"the identity cannot be kept: {error.strerror}"
                raise JournalError(text) from error
            log.warning("the identity cannot be kept (%s): this installation may look like a new one", error.strerror)
            # Tried again with the next connection. What the file may hold by now is not below the epoch in use.
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
        """The last resort on a full disk: the file keeps its place, and one block is written whole or not at all."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # It may be the new file, put in place a moment ago under a name that a power cut takes back.
        sync_folder(self._path.parent)


def _new() -> _Stored:
    return _Stored(str(uuid.uuid4()), 0)
