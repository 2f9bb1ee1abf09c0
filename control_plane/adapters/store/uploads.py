"""Uploads and their parts in SQL.

Rule: an upload is written by compare-and-set on its version, and only what differs is written.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, bindparam, delete, exists, select, tuple_, update

from control_plane.adapters.store.listing import ROWS, page_of_uploads
from control_plane.adapters.store.parts_cache import PartsCache, new_stamp
from control_plane.adapters.store.rows import (
    AnyRow,
    Parts,
    changed_values,
    part_values,
    to_upload,
    upload_values,
)
from control_plane.adapters.store.sql import insert_new, upsert
from control_plane.adapters.store.tables import IS_LIVE, IS_OPEN, PARTS, TASKS, UPLOADS
from control_plane.domain.record import Upload
from control_plane.domain.values import PartRecord, UploadKey
from control_plane.services.errors import KeyTaken, VersionConflict
from control_plane.services.ports import Page, UploadFilter

_U: Final = UPLOADS.c
_KEY: Final = (_U.client_id == bindparam("of_client")) & (_U.upload_id == bindparam("of_upload"))
_PARTS_KEY: Final = (PARTS.c.client_id == bindparam("of_client")) & (PARTS.c.upload_id == bindparam("of_upload"))

_ONE: Final = ROWS.where(_KEY)
_BY_ID: Final = ROWS.where(_U.upload_id == bindparam("upload_id")).order_by(_U.client_id)
_BY_OBJECT: Final = ROWS.where(_U.s3_key == bindparam("s3_key"))
_LIVE: Final = ROWS.where(_U.client_id == bindparam("client_id"), IS_LIVE).order_by(_U.created_at, _U.upload_id)
_OVERDUE: Final = (
    select(_U.client_id, _U.upload_id)
    .where(IS_OPEN, _U.deadline <= bindparam("now"))
    .order_by(_U.deadline)
    .limit(bindparam("limit"))
)
_ADD: Final = insert_new(UPLOADS)
_SAVE: Final = update(UPLOADS).where(_KEY, _U.version == bindparam("read_version"))
"""SQLAlchemy sets the columns that the values name, and keeps the statement for each set of them."""
_HAS_TASKS: Final = exists().where(TASKS.c.client_id == _U.client_id, TASKS.c.upload_id == _U.upload_id)
_PRUNE: Final = delete(UPLOADS).where(
    tuple_(_U.client_id, _U.upload_id).in_(
        select(_U.client_id, _U.upload_id)
        .where(~IS_OPEN, _U.ended_at < bindparam("ended_before"), ~_HAS_TASKS)
        .order_by(_U.ended_at)
        .limit(bindparam("limit"))
        .correlate(None)
    )
)

_PARTS_OF: Final = select(PARTS.c.part_number, PARTS.c.digest, PARTS.c.etag).where(_PARTS_KEY)
_PUT_PART: Final = upsert(PARTS)
_DROP_PARTS: Final = delete(PARTS).where(_PARTS_KEY)
_DROP_PART: Final = _DROP_PARTS.where(PARTS.c.part_number == bindparam("part"))


class UploadRecords:
    """Uploads, inside one transaction."""

    def __init__(self, connection: Connection, cache: PartsCache) -> None:
        self._connection = connection
        self._cache = cache

    def upload(self, key: UploadKey) -> Upload | None:
        """By the primary key; the parts only if they changed since somebody here last saw them."""
        row = self._connection.execute(_ONE, _named(key)).one_or_none()
        return None if row is None else self._whole(row)

    def uploads_by_id(self, upload_id: str) -> list[Upload]:
        """By client id."""
        return self._wholes(self._connection.execute(_BY_ID, {"upload_id": upload_id}).all())

    def upload_by_s3_key(self, s3_key: str) -> Upload | None:
        """By the unique key of its object."""
        row = self._connection.execute(_BY_OBJECT, {"s3_key": s3_key}).one_or_none()
        return None if row is None else self._whole(row)

    def open_uploads_of(self, client_id: str) -> list[Upload]:
        """Oldest first."""
        return self._wholes(self._connection.execute(_LIVE, {"client_id": client_id}).all())

    def _wholes(self, rows: Iterable[AnyRow]) -> list[Upload]:
        """The uploads of rows of `ROWS`."""
        return [self._whole(row) for row in rows]

    def _whole(self, row: AnyRow) -> Upload:
        parts = self._cache.get(row.parts_stamp)
        if parts is None:
            found = self._connection.execute(_PARTS_OF, _named(UploadKey(row.client_id, row.upload_id)))
            parts = {number: PartRecord(digest, etag) for number, digest, etag in found}
            self._cache.put(row.parts_stamp, parts)
        return to_upload(row, parts)

    def add_upload(self, upload: Upload) -> None:
        """One INSERT that does nothing where a key is taken, so that the work may go on with another."""
        stamp = new_stamp(upload.parts)
        if self._connection.execute(_ADD, upload_values(upload, stamp)).rowcount == 0:
            message = (
                f"upload {upload.upload_id!r} of client {upload.client_id!r}, or its object {upload.s3_key!r}, exists"
            )
            raise KeyTaken(message)
        self._put_parts(upload.key, upload.parts)

    def save_upload(self, before: Upload, after: Upload) -> Upload:
        """One UPDATE of the columns that differ, and the parts that differ."""
        if after.s3_key != before.s3_key:
            self._require_free(after.s3_key)
        values = changed_values(before, after)
        values["version"] = before.version + 1
        if after.parts != before.parts:
            values["parts_stamp"] = new_stamp(after.parts)
        guard = {**_named(before.key), "read_version": before.version}
        if self._connection.execute(_SAVE, {**values, **guard}).rowcount == 0:
            message = f"upload {before.upload_id!r} is no longer at version {before.version}"
            raise VersionConflict(message)
        if "parts_stamp" in values:
            self._save_parts(before, after, values["parts_stamp"])
        return replace(after, version=before.version + 1)

    def _require_free(self, s3_key: str) -> None:
        """Asked first: an UPDATE against the constraint would end the transaction on PostgreSQL."""
        if self._connection.execute(_BY_OBJECT, {"s3_key": s3_key}).first() is not None:
            message = f"the object {s3_key!r} belongs to another upload"
            raise KeyTaken(message)

    def _save_parts(self, before: Upload, after: Upload, stamp: int) -> None:
        gone = before.parts.keys() - after.parts.keys()
        if gone and len(gone) == len(before.parts):
            self._connection.execute(_DROP_PARTS, _named(before.key))
        elif gone:
            self._connection.execute(_DROP_PART, [{**_named(before.key), "part": number} for number in gone])
        self._put_parts(before.key, {n: part for n, part in after.parts.items() if before.parts.get(n) != part})
        self._cache.put(stamp, after.parts)

    def _put_parts(self, key: UploadKey, parts: Parts) -> None:
        if parts:
            self._connection.execute(_PUT_PART, part_values(key, parts))

    def list_uploads(self, where: UploadFilter, page: Page) -> tuple[list[Upload], str | None]:
        """With all of their parts, from the cache or one query each."""
        rows, cursor = page_of_uploads(self._connection, where, page)
        return self._wholes(rows), cursor

    def overdue(self, now: float, limit: int) -> list[UploadKey]:
        """From the index of the open uploads' deadlines."""
        return [UploadKey(*row) for row in self._connection.execute(_OVERDUE, {"now": now, "limit": limit})]

    def prune_uploads(self, ended_before: float, limit: int) -> int:
        """The parts go with their uploads, by the foreign key."""
        return self._connection.execute(_PRUNE, {"ended_before": ended_before, "limit": limit}).rowcount


def _named(key: UploadKey) -> dict[str, str]:
    """Names that no column has: SQLAlchemy keeps those for the values of an UPDATE."""
    return {"of_client": key.client_id, "of_upload": key.upload_id}
