"""The port `Database` on SQLite or PostgreSQL.

Rule: all work runs in two thread pools, so the event loop never waits: on SQLite one thread writes and a few read.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, update

from control_plane.adapters.database import engines, migration, transactions
from control_plane.adapters.database.audit.records import SqlAudit
from control_plane.adapters.database.changes import SqlChanges
from control_plane.adapters.database.clients import SqlClients
from control_plane.adapters.database.devices.batches import SqlBatches
from control_plane.adapters.database.devices.enrollments import SqlEnrollments
from control_plane.adapters.database.devices.records import SqlDevices
from control_plane.adapters.database.fleet.listings import SqlListings
from control_plane.adapters.database.fleet.overview import SqlOverview
from control_plane.adapters.database.fleet.records import SqlGroups
from control_plane.adapters.database.gate.records import SqlGate
from control_plane.adapters.database.idempotency import SqlIdempotency
from control_plane.adapters.database.jobs.records import SqlJobs
from control_plane.adapters.database.schedules.coverage import SqlCoverage
from control_plane.adapters.database.schedules.records import SqlSchedules
from control_plane.adapters.database.sessions.records import SqlSessions
from control_plane.adapters.database.sessions.tokens import SqlTokens
from control_plane.adapters.database.sql import Transaction
from control_plane.adapters.database.tables import CHECKS
from control_plane.adapters.database.trust.records import SqlTrust
from control_plane.adapters.database.uploads.outbox import SqlOutbox
from control_plane.adapters.database.uploads.parts import PartsCache
from control_plane.adapters.database.uploads.records import SqlUploads
from control_plane.adapters.database.watching.figures import SqlFigures
from control_plane.adapters.database.webhooks.records import SqlWebhooks
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.database import Records

T = TypeVar("T")

PATIENCE: Final = 10.0
"""Seconds to wait for a lock until `DatabaseUnavailable`."""

_TOUCH: Final = update(CHECKS).values(count=CHECKS.c.count + 1)


class SqlRecords:
    """The port `Records` over one transaction."""

    def __init__(self, transaction: Transaction, cache: PartsCache) -> None:
        self.uploads = SqlUploads(transaction, cache)
        self.outbox = SqlOutbox(transaction)
        self.clients = SqlClients(transaction)
        self.idempotency = SqlIdempotency(transaction)
        self.audit = SqlAudit(transaction)
        self.changes = SqlChanges(transaction)
        self.figures = SqlFigures(transaction)
        self.groups = SqlGroups(transaction)
        self.listings = SqlListings(transaction)
        self.gate = SqlGate(transaction)
        self.jobs = SqlJobs(transaction)
        self.schedules = SqlSchedules(transaction)
        self.coverage = SqlCoverage(transaction)
        self.overview = SqlOverview(transaction)
        self.sessions = SqlSessions(transaction)
        self.tokens = SqlTokens(transaction)
        self.devices = SqlDevices(transaction)
        self.enrollments = SqlEnrollments(transaction)
        self.batches = SqlBatches(transaction)
        self.trust = SqlTrust(transaction)
        self.webhooks = SqlWebhooks(transaction)


class SqlDatabase:
    """`services.ports.Database` on a migrated database."""

    def __init__(self, url: URL, patience: float) -> None:
        self._patience = patience
        self._cache = PartsCache()
        self._writing = engines.writing_engine(url, patience)
        self._reading = engines.reading_engine(url, patience)
        self._writers = ThreadPoolExecutor(engines.writers(url), "database-writer")
        self._readers = ThreadPoolExecutor(engines.READERS, "database-reader")

    @classmethod
    def open(cls, url: str, *, patience: float = PATIENCE) -> Self:
        """Migrate the database and open it; blocks. `patience` is the longest wait for a lock (s).

        `BadInput` when the URL is invalid or the database is newer than this program; else as `Database`.
        """
        parsed = engines.parse_url(url)
        migration.upgrade(parsed, max(patience, migration.PATIENCE))
        return cls(parsed, patience)

    async def write(self, work: Callable[[Records], T]) -> T:
        """On SQLite in the order of the calls.

        Cancelling the caller does not stop a transaction that runs already: it may still be committed.
        """
        return await self._run(self._writers, self._writing, lambda connection: work(self._records(connection)))

    async def read(self, work: Callable[[Records], T]) -> T:
        """Never waits for a writer."""
        return await self._run(self._readers, self._reading, lambda connection: work(self._records(connection)))

    async def check(self) -> None:
        """Writes one row and reads: a full disk is detected too."""
        await self._run(self._writers, self._writing, lambda connection: connection.execute(_TOUCH))
        await self._run(self._readers, self._reading, lambda connection: connection.execute(CHECKS.select()).all())

    async def close(self) -> None:
        """Waits for the transactions that have begun."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writers.shutdown()
        self._readers.shutdown()
        self._reading.dispose()
        # SQLite moves its log into the database when the last connection closes; a read-only one cannot do it.
        self._writing.dispose()

    def _records(self, connection: Connection) -> SqlRecords:
        return SqlRecords(Transaction(connection), self._cache)

    async def _run(self, threads: ThreadPoolExecutor, engine: Engine, work: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            done = loop.run_in_executor(threads, transactions.run, engine, work, self._patience)
        except RuntimeError as error:
            message = "the database is closed"
            raise DatabaseUnavailable(message) from error
        return await done
