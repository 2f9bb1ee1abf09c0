"""The last listings of each client's files: what is shown while a client does not answer.

Rule: only what a client answered is kept, with the instant of the answer. A listing that cannot be kept is answered all
the same.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec

from control_plane.domain.reasons import Reason
from control_plane.services.errors import ServiceError
from control_plane.services.policy import DAY
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.fleet import KeptListing
from schemas.messages import FileList, ListFiles

KEPT_FOR: Final = 90 * DAY
"""Seconds for which a listing is kept."""


@dataclass(frozen=True, slots=True)
class FoundListing:
    """A page of files as of `as_of` (s since the epoch).

    `live`: the client has just answered it. Else `reason` is why it could not.
    """

    files: FileList
    as_of: float
    live: bool = True
    reason: Reason | None = None


class KeptListings:
    """Keeps listings in the database, and finds them again by what was requested."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def keep(self, client_id: str, request: ListFiles, files: FileList) -> float:
        """Keep the answer of a client; returns its instant."""
        listing = KeptListing(client_id, request_name(request), self._clock.now(), files)
        with contextlib.suppress(ServiceError):
            await self._database.write(lambda records: records.listings.put(listing))
        return listing.as_of

    async def last(self, client_id: str, request: ListFiles, reason: Reason) -> FoundListing | None:
        """The last answer to the same request, shown for `reason`; None when there is none."""
        name = request_name(request)

        def work(records: Records) -> KeptListing | None:
            return records.listings.get(client_id, name)

        found = await self._database.read(work)
        return None if found is None else FoundListing(found.files, found.as_of, live=False, reason=reason)


def request_name(request: ListFiles) -> str:
    """The name of what is requested: the same for the same pattern, page, digest and kind of entries."""
    return hashlib.sha256(msgspec.json.encode(request, order="deterministic")).hexdigest()[:32]
