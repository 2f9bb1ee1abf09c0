"""Uploads in SQL.

Rule: an upload is written by compare-and-set on its version, and only what differs is written.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import BindParameter, Select, and_, bindparam, delete, exists, func, or_, select, tuple_, update

from control_plane.adapters.database.listing import ROWS, page_of_uploads
from control_plane.adapters.database.rows import (
    UPLOAD_COLUMNS,
    DriverRow,
    changed_values,
    parts_stamp,
    parts_values,
    stored_parts,
    to_upload,
    upload_key,
    upload_values,
)
from control_plane.adapters.database.sql import Statement, StatementOfSome, Transaction, Values, insert_new
from control_plane.adapters.database.tables import IS_OPEN, OUTBOX, UPLOADS
from control_plane.adapters.database.uploads.parts import PartsCache, PartTable, new_stamp
from control_plane.domain.uploads.model import State, Upload, UploadKey
from control_plane.services.errors import KeyTaken, VersionConflict
from control_plane.services.ports.database import OpenUploads, Page, SubjectType, UploadFilter, UploadPage

_U: Final = UPLOADS.c
_KEY: Final = (_U.client_id == bindparam("of_client")) & (_U.upload_id == bindparam("of_upload"))

_ONE: Final = Statement(ROWS.where(_KEY))
_BY_ID: Final = Statement(ROWS.where(_U.upload_id == bindparam("upload_id")).order_by(_U.client_id))
_BY_OBJECT: Final = Statement(ROWS.where(_U.s3_key == bindparam("s3_key")))
_RETRIED: Final = Statement(ROWS.where(_U.client_id == bindparam("client_id"), _U.attempt > 1))
_LIVE: Final = Statement(ROWS.where(_U.client_id == bindparam("client_id"), _U.live).order_by(_U.created_at))
_COUNT_LIVE: Final = Statement(select(func.count()).where(_U.client_id == bindparam("client_id"), _U.live))
_OFFERED: Final = Statement(
    select(func.coalesce(func.sum(_U.file_size), 0)).where(
        _U.client_id == bindparam("client_id"), _U.created_at >= bindparam("since"), _U.owner == bindparam("owner")
    )
)


def _open_among(some: Sequence[BindParameter[str]]) -> Select[*tuple[Any, ...]]:
    # Narrow, and the whole rows by their key: the database would carry all columns of each row through both windows.
    ranked = (
        select(
            _U.client_id,
            _U.upload_id,
            func.count().over(partition_by=_U.client_id).label("open_uploads"),
            func.row_number()
            .over(partition_by=_U.client_id, order_by=(_U.updated_at.desc(), _U.upload_id.desc()))
            .label("place"),
        )
        .where(_U.client_id.in_(some), _U.live, IS_OPEN)
        .subquery()
    )
    return (
        select(*(_U[name] for name in UPLOAD_COLUMNS), ranked.c.open_uploads)
        .join_from(ranked, UPLOADS, (_U.client_id == ranked.c.client_id) & (_U.upload_id == ranked.c.upload_id))
        .where(ranked.c.place == 1)
    )


_OPEN_AMONG: Final = StatementOfSome(_open_among)
_OBSERVED: Final = and_(_U.s3_upload_id.is_(None), _U.one_put.is_(False))
_OVERDUE: Final = Statement(
    select(_U.client_id, _U.upload_id)
    .where(IS_OPEN, _U.deadline <= bindparam("now"), or_(_U.state != State.COMPLETING.value, _OBSERVED))
    .order_by(_U.deadline)
    .limit(bindparam("limit"))
)
_DEADLINE_AHEAD: Final = Statement(
    select(_U.client_id, _U.upload_id).where(IS_OPEN, _U.deadline > bindparam("after")).limit(bindparam("limit"))
)
_ADD: Final = insert_new(UPLOADS)
_SAVE: Final = Statement(update(UPLOADS).where(_KEY, _U.version == bindparam("read_version")))

_HAS_DUTIES: Final = exists().where(
    OUTBOX.c.client_id == _U.client_id,
    OUTBOX.c.subject_type == SubjectType.UPLOAD.value,
    OUTBOX.c.subject_id == _U.upload_id,
)
_PRUNABLE: Final = (
    select(_U.client_id, _U.upload_id)
    .where(~IS_OPEN, _U.ended_at < bindparam("ended_before"), ~_HAS_DUTIES)
    .order_by(_U.ended_at)
    .limit(bindparam("limit"))
    .correlate(None)
)
_PRUNE: Final = Statement(delete(UPLOADS).where(tuple_(_U.client_id, _U.upload_id).in_(_PRUNABLE)))


class SqlUploads:
    """Uploads, inside one transaction."""

    def __init__(self, transaction: Transaction, cache: PartsCache) -> None:
        self._transaction = transaction
        self._parts = PartTable(transaction, cache)

    def get(self, key: UploadKey) -> Upload | None:
        """By the primary key; the parts are read only if they are not cached."""
        return self._one(_ONE, _named(key))

    def by_id(self, upload_id: str) -> list[Upload]:
        """By client id."""
        return self._wholes(self._transaction.run(_BY_ID, {"upload_id": upload_id}).fetchall())

    def by_s3_key(self, s3_key: str) -> Upload | None:
        """By the unique key of its object."""
        return self._one(_BY_OBJECT, {"s3_key": s3_key})

    def retried_of(self, client_id: str) -> list[Upload]:
        """From the index of the client's uploads."""
        return self._wholes(self._transaction.run(_RETRIED, {"client_id": client_id}).fetchall())

    def open_of(self, client_id: str) -> list[Upload]:
        """Oldest first."""
        return self._wholes(self._transaction.run(_LIVE, {"client_id": client_id}).fetchall())

    def count_open(self, client_id: str) -> int:
        """From the index of the live uploads."""
        ((count,),) = self._transaction.run(_COUNT_LIVE, {"client_id": client_id}).fetchall()
        return int(count)

    def bytes_offered(self, client_id: str, owner: str, since: float) -> int:
        """From the index of the client's uploads by age."""
        values: Values = {"client_id": client_id, "owner": owner, "since": since}
        ((offered,),) = self._transaction.run(_OFFERED, values).fetchall()
        return int(offered)

    def _one(self, statement: Statement, values: Values) -> Upload | None:
        row = self._transaction.run(statement, values).fetchone()
        return None if row is None else self._whole(row)

    def _wholes(self, rows: Iterable[DriverRow]) -> list[Upload]:
        return [self._whole(row) for row in rows]

    def _whole(self, row: DriverRow) -> Upload:
        return to_upload(row, self._parts.read(upload_key(row), parts_stamp(row)))

    def add(self, upload: Upload) -> None:
        """`KeyTaken` leaves the transaction usable."""
        stamp = new_stamp(upload.parts)
        if self._transaction.run(_ADD, upload_values(upload, stamp)).rowcount == 0:
            message = f"upload {upload.upload_id!r} of {upload.client_id!r}, or its object {upload.s3_key!r}, exists"
            raise KeyTaken(message)
        self._parts.write(upload.key, {}, upload.parts, stamp)

    def save(self, before: Upload, after: Upload) -> Upload:
        """One UPDATE of the columns that differ, and the parts that differ."""
        if after.s3_key != before.s3_key:
            self._require_free(after.s3_key)
        values: Values = {**changed_values(before, after), "version": before.version + 1}
        stamp = new_stamp(after.parts) if after.parts != before.parts else None
        if stamp is not None:
            values.update(parts_values(after.parts, stamp))
        if self._transaction.update(_SAVE, values, {**_named(before.key), "read_version": before.version}) == 0:
            message = f"upload {before.upload_id!r} is no longer at version {before.version}"
            raise VersionConflict(message)
        if stamp is not None:
            self._parts.write(before.key, before.parts, after.parts, stamp)
        return replace(after, version=before.version + 1)

    def _require_free(self, s3_key: str) -> None:
        """Checked first: an UPDATE against the constraint would end the transaction on PostgreSQL."""
        if self._transaction.run(_BY_OBJECT, {"s3_key": s3_key}).fetchone() is not None:
            message = f"the object {s3_key!r} belongs to another upload"
            raise KeyTaken(message)

    def open_among(self, client_ids: Sequence[str]) -> dict[str, OpenUploads]:
        """From the index of the live uploads."""
        if not client_ids:
            return {}
        rows = self._transaction.run_some(_OPEN_AMONG, client_ids).fetchall()
        return {row[0]: OpenUploads(row[-1], to_upload(row[:-1], stored_parts(row[:-1]))) for row in rows}

    def overdue(self, now: float, limit: int) -> list[UploadKey]:
        """From the index of the open uploads' deadlines."""
        return [UploadKey(*row) for row in self._transaction.run(_OVERDUE, {"now": now, "limit": limit}).fetchall()]

    def deadline_ahead(self, after: float, limit: int) -> list[UploadKey]:
        """From the same index."""
        values = {"after": after, "limit": limit}
        return [UploadKey(*row) for row in self._transaction.run(_DEADLINE_AHEAD, values).fetchall()]

    def prune(self, ended_before: float, limit: int) -> int:
        """The foreign key deletes the parts too."""
        return self._transaction.run(_PRUNE, {"ended_before": ended_before, "limit": limit}).rowcount

    def list(self, where: UploadFilter, page: Page) -> UploadPage:
        """Reads no rows of parts: the upload's row has the numbers of the stored ones."""
        rows, cursor = page_of_uploads(self._transaction, where, page)
        return [to_upload(row, stored_parts(row)) for row in rows], cursor


def _named(key: UploadKey) -> Values:
    """Parameter names that no column has: an UPDATE sets the columns among its parameters."""
    return {"of_client": key.client_id, "of_upload": key.upload_id}
