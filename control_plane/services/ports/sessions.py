"""Signed-in browsers, and tokens that were used or revoked, in the database.

Rule: as `services/ports/database.py`. A row has a digest: who reads the database can sign in with nothing in it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from control_plane.services.ports.database import Page


class SessionKind(StrEnum):
    """A browser that is signed in, or a code that signs one in, once."""

    BROWSER = "browser"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One row. A code `expires_at` soon; what it begins lasts to `valid_until` (both s since the epoch).

    `scopes`, `clients` and `token_id` are the rights of the token that it began with, as `domain.access` writes them.
    """

    digest: str
    kind: SessionKind
    subject: str
    expires_at: float
    valid_until: float
    scopes: str | None = None
    clients: str | None = None
    token_id: str | None = None


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


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token that this fleet's control planes saw, or that is revoked; the token itself is not kept.

    Instants are s since the epoch. `subject` is empty for one that was revoked before it was ever seen.
    """

    token_id: str
    subject: str
    scopes: str | None
    clients: str | None
    expires_at: float
    used_at: float | None = None
    address: str | None = None
    revoked_at: float | None = None
    revoked_by: str | None = None
    reason: str | None = None


class TokenRecords(Protocol):
    """Tokens by their id (`jti`)."""

    def get(self, token_id: str) -> StoredToken | None:
        """One row."""

    def saw(self, token: StoredToken) -> None:
        """Insert a token, or update when and from where it was used; whether it is revoked stays as it is."""

    def revoke(self, token: StoredToken) -> None:
        """Insert a revoked token, or set the revocation of the one that is there."""

    def revoked(self, now: float) -> frozenset[str]:
        """The ids of those that are revoked and have not expired."""

    def list(self, now: float, page: Page) -> tuple[list[StoredToken], str | None]:
        """Those that have not expired, the one that expires first at the front; `BadInput` for a malformed cursor."""

    def prune(self, now: float) -> int:
        """Delete what has expired; returns the number deleted."""
