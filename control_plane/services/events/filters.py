"""Which changes a reader of the change log wants.

Rule: all parts of a filter that are given must match; a change without the fact that a part names does not match.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, get_args

from control_plane.domain.changes import Change, NumberedChange
from control_plane.domain.selectors import EVERYTHING, Selector, both
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Records

CHANGE_NAMES: Final = tuple(kind.name for kind in get_args(Change))
PROGRESS: Final = "upload.progress"
"""Progress is no change: it has no number, and only a stream with a filter that names the upload gets it."""

_FAMILY: Final = ".*"

Labels = Mapping[str, Mapping[str, str]]
"""The labels of clients that exist, by client id."""


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """The wanted types (`upload.created`, `upload.*`), clients, jobs, upload ids and labels; an empty part matches all.

    A client is selected by the labels that it has when the log is read. With `reach`, that of the reader, only changes
    of known clients that it selects match: none of a job, a schedule, or a client that was forgotten.
    """

    types: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    uploads: frozenset[str] = frozenset()
    selector: Selector = EVERYTHING
    reach: Selector | None = None

    def matches(self, change: Change, labels: Labels) -> bool:
        """Whether all parts match."""
        return (
            self.wants(change.name)
            and _among(change, "client_id", self.clients)
            and _among(change, "job_id", self.jobs)
            and _among(change, "upload_id", self.uploads)
            and self._selects(change, labels)
        )

    def wants(self, name: str) -> bool:
        """Whether the type matches."""
        return not self.types or name in self.types or name.partition(".")[0] + _FAMILY in self.types

    @property
    def needs_labels(self) -> bool:
        """Whether the labels of clients decide what matches."""
        return self.reach is not None or self.selector != EVERYTHING

    def reaches(self, client_id: str, labels: Labels) -> bool:
        """Whether the reader may see this client; one without known labels is outside of every reach."""
        return self.reach is None or (client_id in labels and self.reach.matches(labels[client_id]))

    def _selects(self, change: Change, labels: Labels) -> bool:
        if not self.needs_labels:
            return True
        client_id = getattr(change, "client_id", "")
        return client_id in labels and both(self.selector, self.reach).matches(labels[client_id])


def _among(change: Change, fact: str, wanted: frozenset[str]) -> bool:
    return not wanted or getattr(change, fact, None) in wanted


class ChangePage:
    """Consecutive changes, and the labels that filters need beside them."""

    def __init__(self, changes: Sequence[NumberedChange], labels: Labels) -> None:
        self.changes = changes
        self._labels = labels

    def wanted(self, where: ChangeFilter) -> list[NumberedChange]:
        """The changes that match, in their order."""
        return [one for one in self._candidates(where) if where.matches(one.change, self._labels)]

    def _candidates(self, where: ChangeFilter) -> Sequence[NumberedChange]:
        """Those that the narrowest part of the filter names: each of a thousand filters need not look at all."""
        for fact, names in (("upload_id", where.uploads), ("client_id", where.clients), ("job_id", where.jobs)):
            if names:
                found = [one for name in names for one in self._about.get((fact, name), ())]
                return found if len(names) == 1 else sorted(found, key=lambda one: one.number)
        return self.changes

    @cached_property
    def _about(self) -> Mapping[tuple[str, str], Sequence[NumberedChange]]:
        about: dict[tuple[str, str], list[NumberedChange]] = {}
        for one in self.changes:
            for fact in ("upload_id", "client_id", "job_id"):
                if (name := getattr(one.change, fact, None)) is not None:
                    about.setdefault((fact, name), []).append(one)
        return about


def read_page(records: Records, after: int, limit: int, filters: Iterable[ChangeFilter]) -> ChangePage:
    """Changes after a number; the labels of their clients only if one of the filters has a selector."""
    changes = records.changes.after(after, limit)
    if not any(where.needs_labels for where in filters):
        return ChangePage(changes, {})
    clients = records.clients.among({getattr(one.change, "client_id", "") for one in changes} - {""})
    return ChangePage(changes, {client_id: client.effective_labels for client_id, client in clients.items()})


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
