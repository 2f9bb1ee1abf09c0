"""Quotas of one client: its open uploads, and the bytes that it may offer in a day.

Rule: counted in the database, in the transaction that creates or offers, so that replicas and restarts change nothing.
"""

from dataclasses import dataclass

from control_plane.domain.uploads.model import TERMINAL, Upload
from control_plane.services.errors import QuotaExceeded
from control_plane.services.policy import DAY
from control_plane.services.ports.database import Records


@dataclass(frozen=True, slots=True)
class Quota:
    """`max_uploads` open uploads of a client; `max_bytes` in the uploads of a day, or None for no limit."""

    max_uploads: int
    max_bytes: int | None = None

    def require_place(self, records: Records, client_id: str) -> None:
        """`QuotaExceeded` when the client has as many open uploads as it may."""
        if records.uploads.count_open(client_id) >= self.max_uploads:
            message = f"client {client_id!r} has {self.max_uploads} open uploads: no more are accepted until some end"
            raise QuotaExceeded(message)

    def refusal(self, records: Records, before: Upload, after: Upload, now: float) -> str | None:
        """Why the file that `after` offers for the first time is too much; None when it is not."""
        first = before.file_size is None and after.file_size is not None and after.state not in TERMINAL
        if self.max_bytes is None or not first:
            return None
        offered = records.uploads.bytes_offered(after.client_id, after.owner, now - DAY) + (after.file_size or 0)
        if offered <= self.max_bytes:
            return None
        return f"the client offers {offered} bytes in a day, and may offer {self.max_bytes}"
