"""The last listings of files of each client, in SQL.

Rule: of one client no more than `KEPT_LISTINGS` rows are left after a write.
"""

from typing import Final

from sqlalchemy import bindparam, delete, exists, select, tuple_

from control_plane.adapters.database.fleet.tables import LISTINGS
from control_plane.adapters.database.rows import from_json, to_json
from control_plane.adapters.database.sql import Statement, Transaction, upsert
from control_plane.adapters.database.tables import CLIENTS
from control_plane.services.ports.fleet import KEPT_LISTINGS, KeptListing
from schemas.messages import FileList

_L: Final = LISTINGS.c
_ONE: Final = Statement(
    select(LISTINGS).where(_L.client_id == bindparam("client_id"), _L.request == bindparam("request"))
)
_KNOWN: Final = Statement(select(exists().where(CLIENTS.c.client_id == bindparam("client_id"))))
_PUT: Final = upsert(LISTINGS)
_BEYOND: Final = (
    select(_L.request)
    .where(_L.client_id == bindparam("client_id"))
    .order_by(_L.as_of.desc(), _L.request)
    .offset(KEPT_LISTINGS)
    .correlate(None)
)
_DROP_BEYOND: Final = Statement(delete(LISTINGS).where(_L.client_id == bindparam("client_id"), _L.request.in_(_BEYOND)))
_OLD: Final = (
    select(_L.client_id, _L.request)
    .where(_L.as_of < bindparam("before"))
    .order_by(_L.as_of)
    .limit(bindparam("limit"))
    .correlate(None)
)
_PRUNE: Final = Statement(delete(LISTINGS).where(tuple_(_L.client_id, _L.request).in_(_OLD)))
_files: Final = from_json(FileList)


class SqlListings:
    """Listings, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, client_id: str, request: str) -> KeptListing | None:
        """By the primary key."""
        row = self._transaction.run(_ONE, {"client_id": client_id, "request": request}).fetchone()
        return None if row is None else KeptListing(row[0], row[1], row[2], _files(row[3]))

    def put(self, listing: KeptListing) -> None:
        """The client is looked up first: a foreign key that fails would end the transaction."""
        client_id = listing.client_id
        ((known,),) = self._transaction.run(_KNOWN, {"client_id": client_id}).fetchall()
        if not known:
            return
        row = {
            "client_id": client_id,
            "request": listing.request,
            "as_of": listing.as_of,
            "files": to_json(listing.files),
        }
        self._transaction.run_each(_PUT, [row])
        self._transaction.run(_DROP_BEYOND, {"client_id": client_id})

    def prune(self, before: float, limit: int) -> int:
        """By the index on `as_of`."""
        return self._transaction.run(_PRUNE, {"before": before, "limit": limit}).rowcount
