"""All rows of one transaction, behind one port.

Rule: this class only joins; what SQL is spoken stands in the modules of its parts.
"""

from sqlalchemy import Connection

from control_plane.adapters.store.clients import ClientRecords
from control_plane.adapters.store.idempotency import IdempotencyRecords
from control_plane.adapters.store.parts_cache import PartsCache
from control_plane.adapters.store.tasks import TaskRecords
from control_plane.adapters.store.uploads import UploadRecords


class SqlRecords(UploadRecords, TaskRecords, ClientRecords, IdempotencyRecords):
    """`services.ports.Records` on one connection; it ends with the transaction."""

    def __init__(self, connection: Connection, cache: PartsCache) -> None:
        UploadRecords.__init__(self, connection, cache)
