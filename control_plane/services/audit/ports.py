"""The rows of the audit, as the services use them.

Rule: as `services.ports.database`. Records are appended only; a record goes when its time is over, with all before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from control_plane.domain.audit.model import Act, AuditEntry, AuditRecord, ChainHead, Outcome
from control_plane.services.ports.database import Page

RecordPage = tuple[list[AuditRecord], str | None]
"""Records, and the cursor of the next page."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records; None means any. Instants are s since the epoch; `since` is inclusive, `until` is not."""

    subject: str | None = None
    act: Act | None = None
    outcome: Outcome | None = None
    client_id: str | None = None
    target: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed checkpoint: `note` is the signed text, `key` the key that verifies it."""

    writer: str
    number: int
    at: float
    note: str
    key: str


@dataclass(frozen=True, slots=True)
class AuditSigned:
    """How far the audit is signed. `checkpoint` is the newest one, and `sent_at` (s) when the bucket has it.

    `unsigned` counts the chains with records that no checkpoint signs yet: a minute's work, at most.
    """

    checkpoint: StoredCheckpoint | None
    sent_at: float | None
    unsigned: int


class AuditRecords(Protocol):
    """Records in chains, and their checkpoints."""

    def add(self, entry: AuditEntry) -> None:
        """Append the entry to the chain of this writer: one thread of one process has one chain."""

    def list(self, where: AuditFilter, page: Page) -> RecordPage:
        """The records that match, newest first; `BadInput` for a malformed cursor."""

    def after(self, writer: str, number: int, limit: int) -> Sequence[AuditRecord]:
        """Records in the order of writer and number, after this place; "" and 0 begin at the first."""

    def unsigned(self) -> Sequence[ChainHead]:
        """The head of every chain that has records after its last checkpoint."""

    def checkpoint(self, writer: str) -> StoredCheckpoint | None:
        """The last checkpoint of a chain."""

    def add_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Store a checkpoint; one of the same place stays as it is."""

    def checkpoints(self, writer: str, number: int, limit: int) -> Sequence[StoredCheckpoint]:
        """Checkpoints in the order of writer and number, after this place."""

    def signed(self) -> AuditSigned:
        """How far the audit is signed."""

    def unsent(self, limit: int) -> Sequence[StoredCheckpoint]:
        """Checkpoints that are not in the bucket yet, oldest first."""

    def sent(self, checkpoint: StoredCheckpoint, at: float) -> None:
        """Note that a checkpoint is in the bucket since this instant (s)."""

    def prune(self, before: float, limit: int, *, unsent: bool) -> int:
        """Delete records from before this instant (s) up to a checkpoint of their chain, at most about `limit`.

        The checkpoint stays: what is left of the chain begins after it. Older ones go; without `unsent` only those that
        are in the bucket. Returns the number of records.
        """
