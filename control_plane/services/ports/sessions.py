"""Signed-in browsers in the database.

Rule: as `services/ports/database.py`. A row has a digest: who reads the database can sign in with nothing in it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class SessionKind(StrEnum):
    """A browser that is signed in, or a code that signs one in, once."""

    BROWSER = "browser"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One row. A code `expires_at` soon; what it begins lasts to `valid_until` (both s since the epoch)."""

    digest: str
    kind: SessionKind
    subject: str
    expires_at: float
    valid_until: float


class SessionRecords(Protocol):
    """Sessions and codes."""

    def get(self, digest: str) -> StoredSession | None:
        """One row."""

    def add(self, session: StoredSession) -> None:
        """Insert a row."""

    def take(self, digest: str) -> StoredSession | None:
        """Delete one row and return it; of several transactions one gets it."""

    def trim(self, kept: StoredSession, most: int) -> int:
        """Keep this row and the `most - 1` others of its subject and kind that end last; returns the number deleted."""

    def prune(self, now: float) -> int:
        """Delete what has expired; returns the number deleted."""
