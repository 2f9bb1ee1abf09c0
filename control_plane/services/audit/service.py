"""The use cases of the audit: look at it, and export it.

Rule: an export has every record as it was hashed, and every checkpoint, so that it can be checked elsewhere. The export
itself is recorded.
"""

from collections.abc import AsyncIterator
from typing import Final

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act, AuditRecord, instant_text
from control_plane.domain.errors import Forbidden
from control_plane.services.audit.ports import AuditFilter, AuditSigned, RecordPage, StoredCheckpoint
from control_plane.services.audit.recording import record
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Page

BATCH: Final = 500


class AuditService:
    """What a caller may do with the audit. `key` verifies what this process signs.

    `bucket` is the name of the one that gets the checkpoints beside the log; None for none.
    """

    def __init__(self, database: Database, clock: Clock, key: str, bucket: str | None = None) -> None:
        self.bucket = bucket
        self._database = database
        self._clock = clock
        self.key = key

    async def records(self, principal: Principal, where: AuditFilter, page: Page) -> RecordPage:
        """Records that match, newest first, and the cursor of the next page; `BadInput` for a malformed cursor.

        `Forbidden` for a caller that may see some clients only.
        """
        _require_all_clients(principal)
        return await self._database.read(lambda records: records.audit.list(where, page))

    async def signed(self, principal: Principal) -> AuditSigned:
        """How far the audit is signed; errors as for `records`."""
        _require_all_clients(principal)
        return await self._database.read(lambda records: records.audit.signed())

    async def export(
        self, principal: Principal, since: float | None = None
    ) -> AsyncIterator[AuditRecord | StoredCheckpoint]:
        """Every record, in the order of the chains, then their checkpoints; errors as for `records`.

        With `since` (s) each chain begins there.
        """
        _require_all_clients(principal)
        now = self._clock.now()
        facts = {} if since is None else {"since": instant_text(since)}
        await self._database.write(lambda records: record(records, principal, Act.AUDIT_EXPORT, now, detail=facts))
        return self._exported(since, now)

    async def _exported(self, since: float | None, now: float) -> AsyncIterator[AuditRecord | StoredCheckpoint]:
        oldest = "" if since is None else instant_text(since)
        last: dict[str, int] = {}
        """Of each chain that is exported, the last record."""
        writer, number = "", 0
        while some := await self._database.read(
            lambda records, place=(writer, number): records.audit.after(*place, BATCH)  # type: ignore[misc]
        ):
            for one in some:
                # The form of an instant sorts as the instant does.
                if one.writer in last or str(one.document.get("at", oldest)) >= oldest:
                    # From here on with all that follow, also where the clock was set back: a chain has no gaps.
                    last[one.writer] = one.number
                    yield one
            writer, number = some[-1].writer, some[-1].number
        writer, number = "", 0
        while found := await self._database.read(
            lambda records, place=(writer, number): records.audit.checkpoints(*place, BATCH)  # type: ignore[misc]
        ):
            for checkpoint in found:
                # One that was signed meanwhile may sign records that came after those that were read.
                later = checkpoint.at > now and checkpoint.number > last.get(checkpoint.writer, 0)
                if not later and (since is None or checkpoint.writer in last):
                    yield checkpoint
            writer, number = found[-1].writer, found[-1].number


def _require_all_clients(principal: Principal) -> None:
    """`Forbidden` for a caller with a selector: a record may be about clients that it may not see."""
    if principal.clients is not None:
        message = "the audit is about all clients: this token is for some of them"
        raise Forbidden(message)
