"""The published documents of trust in the database.

Rule: as `services/ports/database.py`.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredTrust:
    """The documents as they are published: `document` is the payload. `root` and `version` are of its list of keys."""

    root: int
    version: int
    document: str
    published_at: float
    published_by: str


class TrustRecords(Protocol):
    """The documents of trust of this fleet."""

    def get(self) -> StoredTrust | None:
        """The documents; None before the first were published."""

    def version(self) -> tuple[int, int]:
        """The versions of root and list of keys, (0, 0) before the first."""

    def save(self, stored: StoredTrust) -> None:
        """Replace the documents."""
