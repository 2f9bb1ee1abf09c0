"""The sets of clients that callers were shown, so that a bulk act can report what changed since.

Rule: a set is named by the hash of its ids, so what is remembered is never out of date. This process forgets the oldest
ones; of a set that it does not know, an act that is refused names no difference, only the counts. What was shown to
callers of one reach is not known to those of another: the ids of a set can be guessed, and its hash with them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.selectors import Selector
from control_plane.services.clients.targeting import set_hash
from control_plane.services.errors import SetChanged

MAX_IDS: Final = 300_000
"""Ids of all sets that are remembered."""

NAMED: Final = 10
"""Ids that a refusal names of those that were added, and of those that were removed."""


@dataclass(frozen=True, slots=True)
class ShownSet:
    """How many clients a caller was shown, and the hash of their ids."""

    count: int
    set: str


class ShownSets:
    """Remembers the last sets that were shown."""

    def __init__(self) -> None:
        self._sets: OrderedDict[tuple[Selector | None, str], tuple[str, ...]] = OrderedDict()
        """By the reach of those who saw it, and its hash."""
        self._ids = 0

    def shown(self, client_ids: Sequence[str], reach: Selector | None) -> ShownSet:
        """Remember a set that a caller with this reach is shown, and name it."""
        name = set_hash(client_ids)
        if (reach, name) not in self._sets:
            self._sets[reach, name] = tuple(client_ids)
            self._ids += len(client_ids)
        self._sets.move_to_end((reach, name))
        while self._ids > MAX_IDS and len(self._sets) > 1:
            _, forgotten = self._sets.popitem(last=False)
            self._ids -= len(forgotten)
        return ShownSet(len(client_ids), name)

    def require(self, expected: ShownSet, client_ids: Sequence[str], reach: Selector | None) -> None:
        """`SetChanged` unless the clients are those that a caller with this reach was shown."""
        if ShownSet(len(client_ids), set_hash(client_ids)) == expected:
            return
        before = self._sets.get((reach, expected.set))
        if before is None:
            raise SetChanged(expected.count, len(client_ids))
        added = sorted(set(client_ids) - set(before))[:NAMED]
        removed = sorted(set(before) - set(client_ids))[:NAMED]
        raise SetChanged(expected.count, len(client_ids), added, removed)
