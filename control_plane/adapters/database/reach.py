"""The reach of a caller in SQL: that the client of a row is one of those that a selector matches.

Rule: a row of a client that is not known is outside of every reach, also of one that names no label.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, FromClause, Select, exists, select

from control_plane.adapters.database.tables import CLIENTS, LABELS
from control_plane.domain.selectors import Relation, Selector, Term

NAMING: Final = (Relation.IN, Relation.EXISTS)
"""The relations that name a label which the client has."""


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
    if not any(term.relation in NAMING for term in reach.terms):
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
    values = [label.c.value.in_(term.values)] if term.values else []
    return [label.c.name == term.key, *values]
