"""Pages of uploads in SQL, newest first.

Rule: the cost of a page depends on its size, not on the length of the history: each query scans an index in page order.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, select, tuple_

from control_plane.adapters.cursors import UploadPosition, check_limit, encode_cursor, upload_position
from control_plane.adapters.database.reach import inside, is_few
from control_plane.adapters.database.rows import UPLOAD_COLUMNS, DriverRow
from control_plane.adapters.database.sql import Statement, Statements, Transaction, Values
from control_plane.adapters.database.tables import UPLOADS
from control_plane.domain.selectors import Selector
from control_plane.services.ports.database import Page, UploadFilter

_U: Final = UPLOADS.c
ROWS: Final = select(*(_U[name] for name in UPLOAD_COLUMNS))
"""Whole uploads, without their parts."""

_CREATED_AT: Final = UPLOAD_COLUMNS.index("created_at")
_FEW: Final = 200
"""Clients of a reach up to which all their uploads are read and put in order."""

_NEWEST: Final = (_U.created_at.desc(), _U.client_id.desc(), _U.upload_id.desc())

Rows = list[DriverRow]

_FILTERS: Final[Mapping[str, ColumnElement[bool]]] = {
    "client_id": _U.client_id == bindparam("client_id"),
    "error": _U.error == bindparam("error"),
    "job_id": _U.job_id == bindparam("job_id"),
    "created_since": _U.created_at >= bindparam("created_since"),
    "created_before": _U.created_at < bindparam("created_before"),
    "ended_since": _U.ended_at >= bindparam("ended_since"),
    "state": _U.state == bindparam("state"),
}
"""By name of a filter, which is also that of its parameter."""

_POSITION: Final = ("last_created_at", "last_client_id", "last_upload_id")
_BEHIND: Final = tuple_(_U.created_at, _U.client_id, _U.upload_id) < tuple_(*map(bindparam, _POSITION))
_pages: Final = Statements()


def page_of_uploads(transaction: Transaction, where: UploadFilter, page: Page) -> tuple[Rows, str | None]:
    """The rows of one page, and the cursor of the next one."""
    check_limit(page)
    position = upload_position(page)
    found: Rows = []
    for wanted in _walks(where):
        statement = _page(transaction.connection, frozenset(wanted), where.reach, behind=position is not None)
        values = {**wanted, "limit": page.limit + 1, **dict(zip(_POSITION, position or (), strict=False))}
        found += transaction.run(statement, values).fetchall()
    found.sort(key=_position, reverse=True)
    cursor = encode_cursor(_position(found[page.limit - 1])) if len(found) > page.limit else None
    return found[: page.limit], cursor


def _walks(where: UploadFilter) -> Iterator[Values]:
    """The values of one query for each state: IN over an index of (state, created_at) would sort the whole history."""
    wanted = {name: value for name in _FILTERS if (value := getattr(where, name, None)) is not None}
    if where.states is None:
        yield wanted
    else:
        for state in sorted(where.states):
            yield {**wanted, "state": str(state)}


def _page(connection: Connection, filters: frozenset[str], reach: Selector | None, *, behind: bool) -> Statement:
    """The query with these filters, for clients of the reach, also behind a position."""
    few = reach is not None and is_few(connection, reach, _FEW)

    def query() -> Select[*tuple[Any, ...]]:
        conditions = [*(_FILTERS[name] for name in sorted(filters)), *([_BEHIND] if behind else [])]
        conditions += inside(connection, _U.client_id, reach, _FEW)
        return ROWS.where(*conditions).order_by(*_NEWEST).limit(bindparam("limit"))

    return _pages.of((filters, reach, few, behind), query)


def _position(row: DriverRow) -> UploadPosition:
    return row[_CREATED_AT], row[0], row[1]
