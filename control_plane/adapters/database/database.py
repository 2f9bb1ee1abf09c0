"""The store on SQLite or PostgreSQL.

Rule: all work runs on threads of the store's own, so the event loop never waits: on SQLite one that writes and a few
that read.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, update

from control_plane.adapters.database import engines, migration, transactions
from control_plane.adapters.database.changes import SqlChanges
from control_plane.adapters.database.clients import SqlClients
from control_plane.adapters.database.idempotency import SqlIdempotency
from control_plane.adapters.database.outbox import SqlOutbox
from control_plane.adapters.database.parts import PartsCache
from control_plane.adapters.database.sql import Session
from control_plane.adapters.database.tables import CHECKS
from control_plane.adapters.database.uploads import SqlUploads
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.database import Records

T = TypeVar("T")

PATIENCE: Final = 10.0
"""Seconds to wait for a lock before the caller is told to come back."""

_TOUCH: Final = update(CHECKS).values(count=CHECKS.c.count + 1)


class SqlRecords:
    """`services.ports.database.Records` in one session; it ends with the transaction."""

    def __init__(self, session: Session, cache: PartsCache) -> None:
        self.uploads = SqlUploads(session, cache)
        self.outbox = SqlOutbox(session)
        self.clients = SqlClients(session)
        self.idempotency = SqlIdempotency(session)
        self.changes = SqlChanges(session)


class SqlDatabase:
    """`services.ports.Database` on a migrated database."""

    def __init__(self, url: URL, patience: float) -> None:
        self._patience = patience
        self._cache = PartsCache()
        self._writing = engines.writing_engine(url, patience)
        self._reading = engines.reading_engine(url, patience)
        self._writers = ThreadPoolExecutor(engines.writers(url), "store-writer")
        self._readers = ThreadPoolExecutor(engines.READERS, "store-reader")

    @classmethod
    def open(cls, url: str, *, patience: float = PATIENCE) -> Self:
        """Migrate the database and open it; blocks. `patience` (s) is how long a lock is waited for.

        `BadInput` when the URL is none or the database is newer than this program; else as `Database`.
        """
        parsed = engines.parse_url(url)
        migration.upgrade(parsed, max(patience, migration.PATIENCE))
        return cls(parsed, patience)

    async def write(self, work: Callable[[Records], T]) -> T:
        """In a transaction of its own, in the order of the calls on SQLite; `work` runs again if it loses a race.

        Cancelling the caller does not stop what runs already: it may still be committed.
        """
        return await self._run(self._writers, self._writing, lambda connection: work(self._records(connection)))

    async def read(self, work: Callable[[Records], T]) -> T:
        """On one snapshot; never waits for a writer."""
        return await self._run(self._readers, self._reading, lambda connection: work(self._records(connection)))

    async def check(self) -> None:
        """Write one row and read: a full disk is noticed too."""
        await self._run(self._writers, self._writing, lambda connection: connection.execute(_TOUCH))
        await self._run(self._readers, self._reading, lambda connection: connection.execute(CHECKS.select()).all())

    async def close(self) -> None:
        """Finish what was begun, then close the connections."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writers.shutdown()
        self._readers.shutdown()
        self._reading.dispose()
        # SQLite moves its log into the database as the last connection closes: only one that may write can.
        self._writing.dispose()

    def _records(self, connection: Connection) -> SqlRecords:
        return SqlRecords(Session(connection), self._cache)

    async def _run(self, threads: ThreadPoolExecutor, engine: Engine, work: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            done = loop.run_in_executor(threads, transactions.run, engine, work, self._patience)
        except RuntimeError as error:
            message = "the store is closed"
            raise DatabaseUnavailable(message) from error
        return await done
