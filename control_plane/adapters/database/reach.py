"""The reach of a caller in SQL: that the client of a row is one of those that a selector matches.

Rule: a row of a client that is not known is outside of every reach, also of one that names no label.
"""

import time
from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Select, exists, func, select

from control_plane.adapters.database.sql import is_one_of
from control_plane.adapters.database.tables import CLIENTS, LABELS
from control_plane.domain.selectors import Relation, Selector, Term

NAMING: Final = (Relation.IN, Relation.EXISTS)
"""The relations that name a label which the client has."""

_NAMED_BY: Final = {Relation.NOT_IN: Relation.IN, Relation.ABSENT: Relation.EXISTS}
"""For a relation that excludes clients, the one that names them."""

FEW: Final = 2_000
"""Clients of a reach up to which a query begins with them; it takes 2 ms to find that there are more."""

_KNOWN_FOR: Final = 60.0
_MOST_KNOWN: Final = 256
_known: Final[WeakKeyDictionary[Engine, dict[tuple[Selector, int], tuple[float, bool]]]] = WeakKeyDictionary()
"""Of each database, until when it is known whether a reach has few clients."""

_COUNTED_FOR: Final = 1.0
_counted: Final[WeakKeyDictionary[Engine, dict[Selector, tuple[float, int]]]] = WeakKeyDictionary()
"""Of each database, how many clients a large reach has, and until when that is good enough."""

_MANY: Final = 10_000
"""Clients at which counting stops, after half a millisecond: a label of so many does not narrow a search."""


def inside(
    connection: Connection, client_id: ColumnElement[str], reach: Selector | None, few: int | None = None
) -> list[ColumnElement[bool]]:
    """The condition that a row is of a client of the reach; none without one.

    A query begins with the clients of a reach that has at most `few` (`FEW`) of them; of another one it looks up each
    row that it reads. To find all clients of a large reach first would take longer than any page.
    """
    if reach is None:
        return []
    return within(client_id, reach) if is_few(connection, reach, few) else checked(client_id, reach)


def throughout(connection: Connection, reach: Selector | None) -> list[ColumnElement[bool]]:
    """The condition for a query that reads every client: sets that are found once, in place of lookups for each row."""
    client_id = CLIENTS.c.client_id
    if reach is None:
        return []
    if is_few(connection, reach):
        return within(client_id, reach)
    return [
        client_id.in_(bearers(term)) if term.relation in NAMING else client_id.not_in(bearers(term))
        for term in reach.terms
    ]


def is_few(connection: Connection, reach: Selector, most: int | None = None) -> bool:
    """Whether a reach had at most `most` clients (`FEW`) when it was measured, up to `_KNOWN_FOR` seconds ago.

    It decides how a query is made, never what it finds: to measure a reach takes as long as to read a page of it.
    """
    most = FEW if most is None else most
    known, now = _known.setdefault(connection.engine, {}), time.monotonic()
    until, few = known.get((reach, most), (now, False))
    if until <= now:
        few = measured(connection, reach, most)
        if len(known) >= _MOST_KNOWN:
            known.clear()
        known[reach, most] = now + _KNOWN_FOR, few
    return few


def measured(connection: Connection, reach: Selector, most: int) -> bool:
    """Whether a reach has at most `most` clients.

    One that only excludes a few clients is counted by them: else the first `most` would be looked up one by one.
    """
    if len(reach.terms) == 1 and reach.terms[0].relation not in NAMING:
        excluded = _bearing(connection, reach.terms[0])
        if excluded < _MANY:
            return connection.execute(select(func.count()).select_from(CLIENTS)).scalar_one() - excluded <= most
    some = selected(narrowest_first(connection, reach.terms)).limit(most + 1).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one() <= most


def counted(connection: Connection, reach: Selector) -> tuple[int, bool]:
    """How many clients a reach has, and whether they are few (`FEW`): for who needs the number in any case.

    That of many is up to `_COUNTED_FOR` seconds old: to count half of 100,000 takes as long as a page of them, and who
    reads all pages would count at each.
    """
    known, now = _counted.setdefault(connection.engine, {}), time.monotonic()
    until, count = known.get(reach, (now, 0))
    if until <= now:
        count = how_many(connection, reach.terms)
        if count > FEW:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[reach] = now + _COUNTED_FOR, count
    return count, count <= FEW


def how_many(connection: Connection, terms: Sequence[Term]) -> int:
    """How many clients match all terms.

    Clients that one term excludes are taken off those without it: they are the few, and the rest is an index.
    """
    excluding = [term for term in terms if term.relation not in NAMING]
    if len(excluding) == 1:
        (out,) = excluding
        others = [term for term in terms if term is not out]
        named = replace(out, relation=_NAMED_BY[out.relation])
        return how_many(connection, others) - how_many(connection, [*others, named])
    every = selected(narrowest_first(connection, terms)).subquery()
    return connection.execute(select(func.count()).select_from(every)).scalar_one()


def narrowest_first(connection: Connection, terms: Sequence[Term]) -> list[Term]:
    """The terms that name a label before those that exclude one, the one of the fewest clients at the front.

    A scan of the first leaves the fewest lookups of the others.
    """

    def bearing(term: Term) -> int:
        return _bearing(connection, term)

    naming = [term for term in terms if term.relation in NAMING]
    others = [term for term in terms if term.relation not in NAMING]
    return [*(sorted(naming, key=bearing) if len(naming) > 1 else naming), *others]


def _bearing(connection: Connection, term: Term) -> int:
    """How many clients have a label that the term names, or `_MANY`."""
    return connection.execute(select(func.count()).select_from(bearers(term).limit(_MANY).subquery())).scalar_one()


def within(client_id: ColumnElement[str], reach: Selector | None) -> list[ColumnElement[bool]]:
    """The condition, none without a reach, from which a query may begin: for rows that are found by their client."""
    if reach is None:
        return []
    naming = [term for term in reach.terms if term.relation in NAMING]
    others = [term for term in reach.terms if term.relation not in NAMING]
    return [client_id.in_(selected([*naming, *others]))]


def checked(client_id: ColumnElement[str], reach: Selector | None) -> list[ColumnElement[bool]]:
    """The same as lookups for each row, in a query that reads its rows in another order: by time, or by state."""
    if reach is None:
        return []
    found: list[ColumnElement[bool]] = []
    for term in reach.terms:
        label = LABELS.alias()
        borne = exists().where(label.c.client_id == client_id, *_is_borne(term, label))
        found.append(borne if term.relation in NAMING else ~borne)
    if client_id is not CLIENTS.c.client_id and not any(term.relation in NAMING for term in reach.terms):
        client = CLIENTS.alias()
        found.append(exists().where(client.c.client_id == client_id))
    return found


def selected(terms: Sequence[Term]) -> Select[str]:
    """Clients that match all terms: a scan of the first term's labels, a lookup of the others for each client.

    If the first term names no label, a scan of all clients.
    """
    scanned = terms[:1] if terms and terms[0].relation in NAMING else []
    query = bearers(scanned[0]) if scanned else select(CLIENTS.c.client_id)
    client_id = LABELS.c.client_id if scanned else CLIENTS.c.client_id
    for term in terms[len(scanned) :]:
        label = LABELS.alias()
        borne = exists().where(label.c.client_id == client_id, *_is_borne(term, label))
        query = query.where(borne if term.relation in NAMING else ~borne)
    return query.correlate(None)


def bearers(term: Term) -> Select[str]:
    """The clients with a label that the term names."""
    return select(LABELS.c.client_id).where(*_is_borne(term, LABELS))


def _is_borne(term: Term, label: FromClause) -> list[ColumnElement[bool]]:
    """That a row is the label that the term names, or excludes."""
    values = [is_one_of(label.c.value, term.values)] if term.values else []
    return [label.c.name == term.key, *values]
