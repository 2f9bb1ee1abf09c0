"""The shipped SQL records over one SQLite database in memory; every transaction runs at once, on the event loop.

Rule: a commit is durable. A control plane that is killed at a commit is killed right before it or right after it.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from control_plane.adapters.database import migrate, transactions
from control_plane.adapters.database.database import SqlRecords
from control_plane.adapters.database.sql import Transaction
from control_plane.adapters.database.uploads.parts import PartsCache
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.database import Records
from tests.simulation.world import World

T = TypeVar("T")

LOCKED_FOR: Final = 1.0
"""Seconds after which a write to a locked database fails."""


class Fate(StrEnum):
    """When, at a commit, its control plane is killed."""

    BEFORE = "before"
    AFTER = "after"


@cache
def migrated() -> bytes:
    """An empty database of the newest schema, as the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        migrate(f"sqlite:///{path}")
        connection = sqlite3.connect(path)
        # A database in memory knows no write-ahead log.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
        return path.read_bytes()


class SharedDatabase:
    """The database of all control planes. `on_commit` are called after each commit that changed a row."""

    def __init__(self, world: World, content: bytes | None = None) -> None:
        self.world = world
        self.driver = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.driver.deserialize(content or migrated())
        self.driver.execute("PRAGMA foreign_keys = ON")
        self.driver.execute("PRAGMA synchronous = OFF")
        self.commits = 0
        self.locked_until = 0.0
        self.on_commit: list[Callable[[], None]] = []
        self._engine: Engine = create_engine(
            "sqlite+pysqlite://", creator=lambda: self.driver, poolclass=StaticPool, paramstyle="named"
        )
        self._cache = PartsCache()

    def write(self, work: Callable[[Records], T], fate: Fate | None = None) -> T | Fate:
        """One transaction. With a fate it returns that fate, if the transaction changed anything."""
        before = self.driver.total_changes

        def whole(connection: Any) -> T:  # noqa: ANN401 - SQLAlchemy's connection
            connection.connection.driver_connection.execute("BEGIN IMMEDIATE")
            done = work(SqlRecords(Transaction(connection), self._cache))
            if fate is Fate.BEFORE and self.driver.total_changes > before:
                raise _KilledBefore
            return done

        try:
            done = transactions.run(self._engine, whole, 0.0)
        except _KilledBefore:
            return Fate.BEFORE
        if self.driver.total_changes == before:
            return done
        self.commits += 1
        for listener in self.on_commit:
            listener()
        return Fate.AFTER if fate is Fate.AFTER else done

    def read(self, work: Callable[[Records], T]) -> T:
        """One snapshot; an attempt to write raises."""
        self.driver.execute("PRAGMA query_only = 1")
        try:
            return transactions.run(self._engine, lambda one: work(SqlRecords(Transaction(one), self._cache)), 0.0)
        finally:
            self.driver.execute("PRAGMA query_only = 0")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the checks read, past the code under test."""
        return self.driver.execute(query, values).fetchall()

    def backup(self) -> bytes:
        """The whole database, for a later restore."""
        return self.driver.serialize()

    def restore(self, content: bytes) -> None:
        """Put a backup in the place of the database."""
        self.driver.deserialize(content)
        self.driver.execute("PRAGMA foreign_keys = ON")


class _KilledBefore(Exception):
    """Rolls a transaction back."""


class PlaneDatabase:
    """One control plane's way to the database. `fate_of` decides at each commit whether the control plane dies."""

    def __init__(self, shared: SharedDatabase, fate_of: Callable[[], Fate | None], die: Callable[[], None]) -> None:
        self.shared = shared
        self._fate_of = fate_of
        self._die = die

    async def write(self, work: Callable[[Records], T]) -> T:
        """One transaction."""
        await asyncio.sleep(0)
        world, message = self.shared.world, "the database is locked"
        if world.now() < self.shared.locked_until or world.fails("locked"):
            await asyncio.sleep(LOCKED_FOR)
            raise DatabaseUnavailable(message)
        done = self.shared.write(work, self._fate_of())
        if isinstance(done, Fate):
            self._die()
            # The process is gone: nothing returns to the code that waited.
            gone: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            return await gone
        if world.fails("locked", 0.3):
            raise DatabaseUnavailable(message)
        return done

    async def read(self, work: Callable[[Records], T]) -> T:
        """One snapshot."""
        await asyncio.sleep(0)
        return self.shared.read(work)

    async def check(self) -> None:
        """Always usable."""

    async def close(self) -> None:
        """Nothing is held."""
