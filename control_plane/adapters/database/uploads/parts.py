"""The parts of uploads in SQL, and a cache of them: an upload of 10,000 parts is not read again for every grant.

Rule: the key of a cached entry is the stamp in the upload's row, and every change of a part draws a new random stamp.
So an entry is right for every reader of its stamp: after a rollback, beside another process that writes, or when an id
is used again. No entry is ever invalidated.
"""

import secrets
import threading
from collections import OrderedDict
from typing import Final

from sqlalchemy import bindparam, delete, select

from control_plane.adapters.database.rows import Parts, altered, part_values
from control_plane.adapters.database.sql import Statement, Transaction, Values, upsert
from control_plane.adapters.database.tables import PARTS
from control_plane.domain.uploads.model import PartRecord, UploadKey

NO_PARTS: Final = 0
"""The stamp of an upload without parts."""

_CAPACITY: Final = 100_000
"""Parts in all: about 30 MiB."""

_KEY: Final = (PARTS.c.client_id == bindparam("of_client")) & (PARTS.c.upload_id == bindparam("of_upload"))
_OF: Final = Statement(select(PARTS.c.part_number, PARTS.c.digest, PARTS.c.etag).where(_KEY))
_PUT: Final = upsert(PARTS)
_DROP_ALL: Final = Statement(delete(PARTS).where(_KEY))
_DROP: Final = Statement(delete(PARTS).where(_KEY, PARTS.c.part_number == bindparam("of_part")))


def new_stamp(parts: Parts) -> int:
    """A new stamp: 62 random bits, which fit every database."""
    return secrets.randbits(62) + 1 if parts else NO_PARTS


class PartsCache:
    """The least recently used go first. Used from several threads."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[int, Parts] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, stamp: int) -> Parts | None:
        """The parts of this stamp, if they are cached."""
        if stamp == NO_PARTS:
            return {}
        with self._lock:
            parts = self._entries.get(stamp)
            if parts is not None:
                self._entries.move_to_end(stamp)
            return parts

    def put(self, stamp: int, parts: Parts) -> None:
        """Keep the parts of this stamp."""
        with self._lock:
            if stamp == NO_PARTS or stamp in self._entries or len(parts) > self._capacity:
                return
            self._entries[stamp] = parts
            self._size += len(parts)
            while self._size > self._capacity:
                _, oldest = self._entries.popitem(last=False)
                self._size -= len(oldest)


class PartTable:
    """The rows of parts, inside one transaction."""

    def __init__(self, transaction: Transaction, cache: PartsCache) -> None:
        self._transaction = transaction
        self._cache = cache

    def read(self, key: UploadKey, stamp: int) -> Parts:
        """The parts of the upload with this stamp in its row."""
        parts = self._cache.get(stamp)
        if parts is None:
            found = self._transaction.run(_OF, _named(key)).fetchall()
            parts = {number: PartRecord(digest, etag) for number, digest, etag in found}
            self._cache.put(stamp, parts)
        return parts

    def write(self, key: UploadKey, before: Parts, after: Parts, stamp: int) -> None:
        """Make the rows `after`, given that they are `before`; the upload's row has the new stamp already."""
        gone = before.keys() - after.keys()
        if gone and len(gone) == len(before):
            self._transaction.run(_DROP_ALL, _named(key))
        else:
            self._transaction.run_each(_DROP, [{**_named(key), "of_part": number} for number in gone])
        rows = part_values(key, {number: part for number, part in after.items() if altered(before.get(number), part)})
        self._transaction.run_each(_PUT, rows)
        # If the rows were cleaned, a reader finds other parts than `after`: the first reader fills the cache.
        if all(after[row["part_number"]] == PartRecord(row["digest"], row["etag"]) for row in rows):
            self._cache.put(stamp, after)


def _named(key: UploadKey) -> Values:
    return {"of_client": key.client_id, "of_upload": key.upload_id}
