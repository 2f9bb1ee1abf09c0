"""Pages of uploads in SQL, newest first.

Rule: the cost of a page depends on its size, not on the length of the history: each query scans an index in page order.
"""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import ColumnElement, Connection, literal, select, tuple_

from control_plane.adapters.cursors import UploadPosition, check_limit, encode_cursor, upload_position
from control_plane.adapters.database.reach import inside
from control_plane.adapters.database.rows import UPLOAD_COLUMNS, DriverRow
from control_plane.adapters.database.tables import UPLOADS
from control_plane.services.ports.database import Page, UploadFilter

_U: Final = UPLOADS.c
ROWS: Final = select(*(_U[name] for name in UPLOAD_COLUMNS))
"""Whole uploads, without their parts."""

_CREATED_AT: Final = UPLOAD_COLUMNS.index("created_at")
_FEW: Final = 200
"""Clients of a reach up to which all their uploads are read and put in order."""

_NEWEST: Final = (_U.created_at.desc(), _U.client_id.desc(), _U.upload_id.desc())

Rows = list[DriverRow]
Conditions = list[ColumnElement[bool]]


def page_of_uploads(connection: Connection, where: UploadFilter, page: Page) -> tuple[Rows, str | None]:
    """The rows of one page, and the cursor of the next one."""
    check_limit(page)
    within_reach = inside(connection, _U.client_id, where.reach, _FEW)
    common = [*_conditions(where), *_behind(upload_position(page)), *within_reach]
    found: Rows = []
    for conditions in _walks(where, common):
        found += connection.execute(ROWS.where(*conditions).order_by(*_NEWEST).limit(page.limit + 1))
    found.sort(key=_position, reverse=True)
    cursor = encode_cursor(_position(found[page.limit - 1])) if len(found) > page.limit else None
    return found[: page.limit], cursor


def _walks(where: UploadFilter, common: Conditions) -> Iterator[Conditions]:
    """One query for each state: IN over an index of (state, created_at) would sort the whole history."""
    if where.states is None:
        yield common
    else:
        for state in sorted(where.states):
            yield [*common, _U.state == str(state)]


def _conditions(where: UploadFilter) -> Conditions:
    wanted: Conditions = []
    if where.client_id is not None:
        wanted.append(_U.client_id == where.client_id)
    if where.error is not None:
        wanted.append(_U.error == where.error)
    if where.job_id is not None:
        wanted.append(_U.job_id == where.job_id)
    if where.created_since is not None:
        wanted.append(_U.created_at >= where.created_since)
    if where.created_before is not None:
        wanted.append(_U.created_at < where.created_before)
    if where.ended_since is not None:
        wanted.append(_U.ended_at >= where.ended_since)
    return wanted


def _behind(position: UploadPosition | None) -> Conditions:
    if position is None:
        return []
    created_at, client_id, upload_id = map(literal, position)
    return [tuple_(_U.created_at, _U.client_id, _U.upload_id) < tuple_(created_at, client_id, upload_id)]


def _position(row: DriverRow) -> UploadPosition:
    return row[_CREATED_AT], row[0], row[1]
