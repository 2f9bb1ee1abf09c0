"""All rows of one transaction, behind one port.

Rule: this class only joins; what SQL is spoken stands in the modules of its parts.
"""

from control_plane.adapters.database.clients import ClientRecords
from control_plane.adapters.database.idempotency import IdempotencyRecords
from control_plane.adapters.database.outbox import OutboxRecords
from control_plane.adapters.database.parts import PartsCache
from control_plane.adapters.database.sql import Session
from control_plane.adapters.database.uploads import UploadRecords


class SqlRecords(UploadRecords, OutboxRecords, ClientRecords, IdempotencyRecords):
    """`services.ports.Records` in one session; it ends with the transaction."""

    def __init__(self, session: Session, cache: PartsCache) -> None:
        UploadRecords.__init__(self, session, cache)
