"""Which clients a filter matches, and which a bulk act is about.

Rule: a bulk act names a filter with the count and the hash of the set that was shown for it, and is refused when the
set has changed since; or it names its clients one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.clients import ClientState
from control_plane.domain.selectors import EVERYTHING, Selector, both, parse
from control_plane.services.clients.beats import Beats
from control_plane.services.clients.sets import ShownSet, ShownSets
from control_plane.services.errors import BadInput, UnknownClient
from control_plane.services.ports.database import Records

MAX_NAMED: Final = 1_000
"""Clients that a bulk act may name one by one."""


@dataclass(frozen=True, slots=True)
class ClientFilter:
    """Which clients; None means any. `pattern` is an id, or a pattern of ids with `*`."""

    pattern: str | None = None
    selector: str | None = None
    state: ClientState | None = None


@dataclass(frozen=True, slots=True)
class ClientChoice:
    """The clients of a bulk act: these, or those of a filter, of which the caller was shown a set."""

    where: ClientFilter = ClientFilter()
    client_ids: tuple[str, ...] | None = None
    shown: ShownSet | None = None


class ClientChooser:
    """Resolves filters and choices, by the latest beats. `sets` remembers what callers were shown."""

    def __init__(self, beats: Beats, sets: ShownSets) -> None:
        self.beats = beats
        self.sets = sets

    def matching(self, records: Records, where: ClientFilter, now: float, reach: Selector | None = None) -> list[str]:
        """The ids, sorted, of the clients that match every part of the filter at `now` (s); `SelectorError`.

        With `reach`, only those that it selects too.
        """
        selector = both(EVERYTHING if where.selector is None else parse(where.selector), reach)
        if where.pattern is None:
            found = records.clients.matching((), selector)
        else:
            found = records.clients.matching([where.pattern], None)
            if selector.terms:
                found = [*records.clients.selected(found, selector)]
        if where.state is None:
            return found
        known = records.clients.presences(found)
        return [one for one in found if one in known and self.beats.latest(known[one]).state(now) == where.state]

    def chosen(
        self, records: Records, choice: ClientChoice, now: float, reach: Selector | None = None
    ) -> Sequence[str]:
        """The clients of a bulk act, sorted; `SetChanged`, `UnknownClient`, `BadInput`, `SelectorError`.

        With `reach`, those that it does not select are as if they were not known.
        """
        if choice.client_ids is None:
            found = self.matching(records, choice.where, now, reach)
            if choice.shown is None:
                message = "a filter needs the count and the set that the list of clients showed for it"
                raise BadInput(message)
            self.sets.require(choice.shown, found, reach)
            return found
        wanted = sorted(set(choice.client_ids))
        if len(wanted) > MAX_NAMED:
            message = f"names {len(wanted)} clients, at most {MAX_NAMED} are allowed: use a filter"
            raise BadInput(message)
        known = frozenset(records.clients.selected(wanted, EVERYTHING if reach is None else reach))
        if unknown := [client_id for client_id in wanted if client_id not in known]:
            raise UnknownClient(*unknown)
        return wanted
