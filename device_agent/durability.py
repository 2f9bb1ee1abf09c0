"""Which effect needs what to be durable before it runs, and when the journal is committed.

Rule: journal first. Nothing is published, acknowledged or started before the records it depends on are fsynced. Records
that arrive within `LINGER` share one fsync, unless something waits for them.
"""

import logging
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final

from device_agent.errors import JournalError
from device_agent.mqtt.session import AckToken
from device_agent.state.journal import Journal
from device_agent.transfer.events import DigestParts, MeasureSource, OpenSource, PublishResponse, PutPart
from device_agent.transfer.records import Began, Order, PartKept, Spent
from device_agent.uploads import CloseSource, DeferredEffect, DiscardCopy

LINGER: Final = 0.05
"""Seconds for which a record may wait for the next ones, and their fsync, while nothing depends on it."""

FAILED_PAUSE: Final = 5.0
"""Seconds between two tries of a journal that cannot be written."""

log = logging.getLogger(__name__)


class Need(Enum):
    """What must be durable before an effect runs."""

    NOTHING = auto()
    STORED_PARTS = auto()
    """The command of this upload, and every part that was stored: after a crash only parts in flight are sent again.

    And the bytes that it will count.
    """
    EVERYTHING = auto()
    """Every record appended so far."""


class CommitResult(Enum):
    """What `Durability.commit` did."""

    LINGERS = auto()
    """Nothing yet: only acknowledgements wait, and more records may follow soon."""
    DONE = auto()
    FAILED = auto()
    """The disk did not take the records; `Durability.failure` has the system's text."""


NEEDS: Final[Mapping[type[DeferredEffect], Need]] = {
    MeasureSource: Need.NOTHING,
    OpenSource: Need.NOTHING,
    DigestParts: Need.NOTHING,
    PutPart: Need.STORED_PARTS,
    PublishResponse: Need.EVERYTHING,
    DiscardCopy: Need.EVERYTHING,
    CloseSource: Need.NOTHING,
}


def need_of(effect: DeferredEffect, order: Order) -> Need:
    """What must be durable before this effect of this order runs: `NEEDS`, and its two exceptions."""
    if isinstance(effect, OpenSource) and order.options.compression != "none":
        # A compressed copy costs disk and time, so its command is durable first. Whether another file needs a copy is
        # known once it is open; that copy is deleted if the command is refused.
        return Need.EVERYTHING
    if isinstance(effect, PutPart) and order.pregranted:
        # These parts are sent in the turn in which the source is opened, and its fingerprint must be durable.
        return Need.EVERYTHING
    return NEEDS[type(effect)]


class Durability:
    """Commits the journal when something depends on it; `ack` acknowledges one command to the broker."""

    def __init__(self, journal: Journal, ack: Callable[[AckToken], None]) -> None:
        self._journal = journal
        self._ack = ack
        self._waiting: list[tuple[AckToken, frozenset[str]]] = []
        """Commands to be acknowledged, and the uploads whose records each depends on."""
        self._commit_at: float | None = None
        """The latest moment at which lingering records are committed."""
        self._retry_at: float | None = None
        """When the journal is tried again; None while the disk takes it."""
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why the last commit failed, in the system's text: nothing new is accepted. None while the disk works."""
        return self._failure

    @property
    def retry_at(self) -> float | None:
        """When a failed commit is tried again; None while the disk takes the journal."""
        return self._retry_at

    @property
    def commit_at(self) -> float | None:
        """When lingering records are committed; None when none linger."""
        return self._commit_at

    def must_wait(self, now: float) -> bool:
        """Whether the pause after a failed commit is not over."""
        return self._retry_at is not None and now < self._retry_at

    def may_run_early(self, order: Order, effect: DeferredEffect) -> bool:
        """Whether an effect may run before the next commit."""
        match need_of(effect, order):
            case Need.NOTHING:
                return True
            case Need.STORED_PARTS:
                journal = self._journal
                if journal.has_pending(Spent) or journal.pending_uploads(PartKept):
                    return False
                return order.upload_id not in journal.pending_uploads(Began)
            case Need.EVERYTHING:
                return False

    def commit(self, now: float, *, demanded: bool) -> CommitResult:
        """Commit, unless nothing demands it and the records may linger.

        `demanded`: an effect or a message waits for the commit. A stored part demands it as well, because a crash
        would have it sent again.
        """
        if not (demanded or self._retry_at is not None) and self._lingers(now):
            return CommitResult.LINGERS
        try:
            self._journal.commit()
        except JournalError as error:
            log.error("%s", error)  # noqa: TRY400 (the disk's fault, not a bug)
            self._commit_at = None
            self._retry_at = now + FAILED_PAUSE
            self._failure = f"the device cannot keep its state: {error}"
            return CommitResult.FAILED
        self._commit_at = self._retry_at = self._failure = None
        return CommitResult.DONE

    def _lingers(self, now: float) -> bool:
        if not self._journal.pending or self._journal.pending_uploads(PartKept):
            return False
        self._commit_at = now + LINGER if self._commit_at is None else self._commit_at
        return now < self._commit_at

    def acknowledge_later(self, token: AckToken, records_before: int) -> None:
        """Acknowledge a command after the records that it appended: those behind the first `records_before` pending.

        A command without records on a disk that fails is acknowledged at once: the broker sends at most sixteen
        unacknowledged ones, and then no other command arrives.
        """
        if self.failure is not None and self._journal.pending == records_before:
            self._ack(token)
        else:
            self._waiting.append((token, self._journal.pending_uploads(since=records_before)))

    def acknowledge_durable(self) -> None:
        """Acknowledge every command that depends on no pending record."""
        pending = self._journal.pending_uploads()
        for token, uploads in self._waiting:
            if not uploads & pending:
                self._ack(token)
        self._waiting = [(token, uploads) for token, uploads in self._waiting if uploads & pending]
