"""What the database keeps of a fleet beside its clients: groups, and the last listings of their files.

Rule: as `ports/database.py`.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from control_plane.domain.groups import Group
from schemas.messages import FileList

KEPT_LISTINGS: Final = 100
"""Listings that are kept of one client, the newest."""


@dataclass(frozen=True, slots=True)
class KeptListing:
    """A page of files as a client listed it at `as_of` (s since the epoch); `request` names what was requested."""

    client_id: str
    request: str
    as_of: float
    files: FileList


class ListingRecords(Protocol):
    """The last listings of each client. A client that is deleted takes its own with it."""

    def get(self, client_id: str, request: str) -> KeptListing | None:
        """The answer to this request, if it is kept."""

    def put(self, listing: KeptListing) -> None:
        """Insert, or replace the one of this request; of more than `KEPT_LISTINGS` the oldest go.

        Nothing is kept of a client that does not exist.
        """

    def prune(self, before: float, limit: int) -> int:
        """Delete up to `limit` listings from before this instant, oldest first; returns the number deleted."""


class GroupRecords(Protocol):
    """Groups by name."""

    def get(self, name: str) -> Group | None:
        """One group."""

    def save(self, group: Group) -> None:
        """Insert, or replace the one of this name."""

    def delete(self, name: str) -> bool:
        """Delete a group; False when it does not exist."""

    def list(self) -> list[Group]:
        """Every group, by name in the order of code points."""
