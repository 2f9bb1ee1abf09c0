"""The shapes of the fleet's answers.

Rule: as `api/models.py`.
"""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import ConfigDict, Field

from control_plane.api import examples
from control_plane.api.models import Instant, Output
from control_plane.domain.groups import Group
from control_plane.presentation import known_instant
from control_plane.services.clients.targeting import Resolved, set_hash


class EnlistedClients(Output):
    """What a list of expected clients came to: how many it names, and how many of them were new or were changed."""

    clients: int
    created: int
    changed: int


class GroupRow(Output):
    """A group in a list. `entries` counts its client ids and patterns."""

    name: str
    entries: int
    selector: str | None
    note: str
    created_at: Instant
    updated_at: Instant

    @classmethod
    def of(cls, group: Group) -> Self:
        """The group in short."""
        return cls(
            name=group.name,
            entries=len(group.clients),
            selector=group.selector,
            note=group.note,
            created_at=known_instant(group.created_at),
            updated_at=known_instant(group.updated_at),
        )


class GroupList(Output):
    """Every group, by name."""

    groups: list[GroupRow]

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Self:
        """The groups in short."""
        return cls(groups=[GroupRow.of(group) for group in groups])


class GroupDocument(GroupRow):
    """One group in full: what it selects, and how many clients that are now; `set` is a hash of their ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.GROUP]})

    clients: Annotated[list[str], Field(description="Client ids, and patterns with `*`.")]
    count: int
    set: str
    warnings: Annotated[list[str], Field(description="What the operator may not have meant, a sentence each.")]

    @classmethod
    def found(cls, group: Group, selected: Resolved) -> Self:
        """The group, and the clients that it selects now."""
        return cls(
            **GroupRow.of(group).model_dump(),
            clients=list(group.clients),
            count=len(selected.client_ids),
            set=set_hash(selected.client_ids),
            warnings=list(selected.warnings),
        )
