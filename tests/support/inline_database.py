"""A database of SQL whose transactions run on the event loop itself.

Rule: for tests that count turns of the loop: nothing waits for a thread. Several of them on one file are several
replicas.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

from control_plane.adapters.database import SqlDatabase, transactions

T = TypeVar("T")


class InlineDatabase(SqlDatabase):
    """Each call is one transaction, finished when the call returns. `writes` counts those that may write."""

    writes = 0

    async def _run(self, threads: ThreadPoolExecutor, engine: Engine, work: Callable[[Connection], T]) -> T:
        self.writes += threads is self._writers
        return transactions.run(engine, work, self._patience)
