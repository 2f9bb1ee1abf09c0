"""What the database keeps of a fleet beside its clients: groups.

Rule: as `ports/database.py`.
"""

from typing import Protocol

from control_plane.domain.groups import Group


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
