"""Records that the database in memory does not keep.

Rule: it serves single uploads. What belongs to a whole fleet needs SQL.
"""

from collections.abc import Sequence
from typing import Final, Never

from control_plane.domain.audit.model import AuditEntry, AuditRecord, ChainHead
from control_plane.services.audit.ports import AuditFilter, AuditSigned, RecordPage, StoredCheckpoint
from control_plane.services.errors import UnsupportedRecords
from control_plane.services.ports.database import Page


class Unsupported:
    """An attribute that raises `UnsupportedRecords` whenever it is read."""

    def __init__(self, kind: str) -> None:
        self._kind: Final = kind

    def __get__(self, _instance: object, _owner: type) -> Never:
        raise UnsupportedRecords(self._kind)


class UnkeptAudit:
    """The audit of a process that serves one person at a terminal: nothing is kept."""

    def add(self, entry: AuditEntry) -> None:
        """Drop it."""

    def list(self, where: AuditFilter, page: Page) -> RecordPage:  # noqa: ARG002 - the port's arguments
        """Empty."""
        return [], None

    def after(self, writer: str, number: int, limit: int) -> Sequence[AuditRecord]:  # noqa: ARG002 - as above
        """Empty."""
        return []

    def unsigned(self) -> Sequence[ChainHead]:
        """Empty."""
        return ()

    def checkpoint(self, writer: str) -> StoredCheckpoint | None:  # noqa: ARG002 - as above
        """None."""
        return None

    def add_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Drop it."""

    def checkpoints(self, writer: str, number: int, limit: int) -> Sequence[StoredCheckpoint]:  # noqa: ARG002
        """Empty."""
        return ()

    def signed(self) -> AuditSigned:
        """Nothing is."""
        return AuditSigned(None, None, 0)

    def unsent(self, limit: int) -> Sequence[StoredCheckpoint]:  # noqa: ARG002 - as above
        """Empty."""
        return ()

    def sent(self, checkpoint: StoredCheckpoint, at: float) -> None:
        """Drop it."""

    def prune(self, before: float, limit: int, *, unsent: bool) -> int:  # noqa: ARG002 - as above
        """Nothing."""
        return 0
