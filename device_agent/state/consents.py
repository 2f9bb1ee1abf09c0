"""The uploads that a person on this device has allowed, one file in the state folder.

Rule: an approval is durable before it counts, and ends with its upload. A denial needs no file: it ends the upload, and
the journal keeps that. A file that cannot be read holds no approval: consent is needed again.
"""

import logging
from collections.abc import Callable, Container
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from device_agent.state.atomic_file import replace_file

FILE_NAME: Final = "consents.json"

log = logging.getLogger(__name__)


class Approval(Struct, frozen=True):
    """An upload that may be sent, and its path: another path under the same id needs a new one."""

    upload_id: str
    path: str


class Consents:
    """The approvals in the state folder; used by the agent's loop only.

    `asks_for` is the class of the policy that needs consent for a path, None without one.
    """

    def __init__(self, folder: Path, asks_for: Callable[[str], str | None]) -> None:
        self.asks_for = asks_for
        self._path = folder / FILE_NAME
        self._approved = frozenset(_read(self._path))

    def holds(self, upload_id: str, path: str) -> bool:
        """Whether a person has allowed this upload."""
        return Approval(upload_id, path) in self._approved

    def approve(self, upload_id: str, path: str, known: Container[str]) -> None:
        """Keep an approval; those of uploads that are not `known` any more go. `OSError`: nothing was changed."""
        kept = self._of(known) | {Approval(upload_id, path)}
        self._write(kept)
        self._approved = kept

    def keep_only(self, known: Container[str]) -> None:
        """Forget the approvals of uploads that are not `known` any more: an id that comes again needs a new one."""
        kept = self._of(known)
        if kept == self._approved:
            return
        self._approved = kept
        try:
            self._write(kept)
        except OSError as error:
            log.warning("%s still has approvals of uploads that are over: %s", self._path, error)

    def _of(self, known: Container[str]) -> frozenset[Approval]:
        return frozenset(one for one in self._approved if one.upload_id in known)

    def _write(self, approved: frozenset[Approval]) -> None:
        replace_file(self._path, (msgspec.json.encode(sorted(approved, key=lambda one: one.upload_id)),))


def _read(path: Path) -> tuple[Approval, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Approval, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("%s cannot be read, so a person is asked again: %s", path, error)
        return ()
