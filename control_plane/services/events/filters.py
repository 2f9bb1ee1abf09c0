"""Which changes a reader of the change log wants.

Rule: pure. All parts of a filter that are given must match; a change without the fact that a part names does not match.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, get_args

from control_plane.domain.changes import Change
from control_plane.services.errors import BadInput

CHANGE_NAMES: Final = tuple(kind.name for kind in get_args(Change))
PROGRESS: Final = "upload.progress"
"""Progress is no change: it has no number, and only a stream whose filter names the upload gets it."""

_FAMILY: Final = ".*"


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """The wanted types (`upload.created`, `upload.*`), clients, jobs and upload ids; an empty part matches all."""

    types: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    uploads: frozenset[str] = frozenset()

    def matches(self, change: Change) -> bool:
        """Whether all parts match."""
        return (
            self.wants(change.name)
            and _among(change, "client_id", self.clients)
            and _among(change, "job_id", self.jobs)
            and _among(change, "upload_id", self.uploads)
        )

    def wants(self, name: str) -> bool:
        """Whether the type matches."""
        return not self.types or name in self.types or name.partition(".")[0] + _FAMILY in self.types


def _among(change: Change, fact: str, wanted: frozenset[str]) -> bool:
    return not wanted or getattr(change, fact, None) in wanted


def require_types(names: Iterable[str], *, also: tuple[str, ...] = ()) -> frozenset[str]:
    """These types; `BadInput` for one that no change, and none of `also`, has."""
    known = (*CHANGE_NAMES, *also)
    families = {name.partition(".")[0] + _FAMILY for name in known}
    types = frozenset(names)
    for name in sorted(types):
        if name not in known and name not in families:
            message = f"no event has the type {name!r}: there are {', '.join(sorted({*known, *families}))}"
            raise BadInput(message)
    return types
