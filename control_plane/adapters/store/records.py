"""All rows of one transaction, behind one port.

Rule: this class only joins; what SQL is spoken stands in the modules of its parts.
"""

from control_plane.adapters.store.clients import ClientRecords
from control_plane.adapters.store.idempotency import IdempotencyRecords
from control_plane.adapters.store.parts import PartsCache
from control_plane.adapters.store.sql import Session
from control_plane.adapters.store.tasks import TaskRecords
from control_plane.adapters.store.uploads import UploadRecords


class SqlRecords(UploadRecords, TaskRecords, ClientRecords, IdempotencyRecords):
    """`services.ports.Records` in one session; it ends with the transaction."""

    def __init__(self, session: Session, cache: PartsCache) -> None:
        UploadRecords.__init__(self, session, cache)
