"""All rows of one transaction, behind one port.

Rule: this class only bundles; the SQL is in the module of each aggregate.
"""

from control_plane.adapters.database.changes import SqlChanges
from control_plane.adapters.database.clients import SqlClients
from control_plane.adapters.database.idempotency import SqlIdempotency
from control_plane.adapters.database.outbox import SqlOutbox
from control_plane.adapters.database.parts import PartsCache
from control_plane.adapters.database.sql import Session
from control_plane.adapters.database.uploads import SqlUploads


class SqlRecords:
    """`services.ports.database.Records` in one session; it ends with the transaction."""

    def __init__(self, session: Session, cache: PartsCache) -> None:
        self.uploads = SqlUploads(session, cache)
        self.outbox = SqlOutbox(session)
        self.clients = SqlClients(session)
        self.idempotency = SqlIdempotency(session)
        self.changes = SqlChanges(session)
