"""Quotas of one client: its open uploads, and the bytes that it may offer in a day.

Rule: counted in the database, in the transaction that creates or offers, so that restarts change nothing. The bytes of
a client far from its limit are not counted again at each offer: that would cost more with each upload of the day.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from control_plane.domain.uploads.model import TERMINAL, Upload
from control_plane.services.errors import QuotaExceeded
from control_plane.services.policy import DAY
from control_plane.services.ports.database import Records

COUNT_EVERY: Final = 60.0
"""Seconds for which a count of bytes is used, while it stays below half of the limit. Offers are added to it meanwhile;
those that other replicas accept are not."""

MAX_CLIENTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Quota:
    """`max_uploads` open uploads of a client; `max_bytes` in the uploads of a day, or None for no limit."""

    max_uploads: int
    max_bytes: int | None = None
    _counts: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    """By client and owner: when its bytes were counted, and how many they are with the offers since then."""

    def require_place(self, records: Records, client_id: str) -> None:
        """`QuotaExceeded` when the client has as many open uploads as it may."""
        if records.uploads.count_open(client_id) >= self.max_uploads:
            message = f"client {client_id!r} has {self.max_uploads} open uploads: no more are accepted until some end"
            raise QuotaExceeded(message)

    def fullness(self, records: Records, client_id: str, owner: str, now: float) -> str | None:
        """Why the client should begin no more uploads now, as a sentence; None when it may."""
        if records.uploads.count_open(client_id) >= self.max_uploads:
            return f"the client has {self.max_uploads} open uploads"
        if self.max_bytes is not None and records.uploads.bytes_offered(client_id, owner, now - DAY) >= self.max_bytes:
            return f"the client offered {self.max_bytes} bytes in a day"
        return None

    def refusal(
        self, records: Records, before: Upload, after: Upload, now: float, unsaved: Iterable[Upload]
    ) -> str | None:
        """Why the file that `after` offers for the first time is too much; None when it is not.

        `unsaved` are uploads with offers that this transaction has accepted and not written.
        """
        first = before.file_size is None and after.file_size is not None and after.state not in TERMINAL
        if self.max_bytes is None or not first:
            return None
        name = (after.client_id, after.owner)
        counted_at, offered = self._counts.get(name, (float("-inf"), 0))
        offered += after.file_size or 0
        if not 0 <= now - counted_at < COUNT_EVERY or 2 * offered > self.max_bytes:
            counted_at = now
            offered = records.uploads.bytes_offered(*name, now - DAY)
            offered += sum(one.file_size or 0 for one in (*unsaved, after) if (one.client_id, one.owner) == name)
        if offered > self.max_bytes:
            return f"the client offers {offered} bytes in a day, and may offer {self.max_bytes}"
        if len(self._counts) >= MAX_CLIENTS:
            self._counts.clear()
        self._counts[name] = (counted_at, offered)
        return None
