"""Engines for SQLite and PostgreSQL: how a connection is set up and how a transaction begins.

Rule: what differs between the two databases at run time is here; the queries are the same.
"""

import importlib.util
import os
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, IsolationLevel
from sqlalchemy.exc import ArgumentError

from control_plane.services.errors import BadInput

SQLITE: Final = "sqlite"
POSTGRES: Final = "postgresql"

READERS: Final = 4
"""Threads that read, each on its own connection."""

_WRITERS: Final = {SQLITE: 1, POSTGRES: 4}
"""SQLite has one writer at a time; a queue in this process is fairer than its lock."""

_CONNECT_TIMEOUT: Final = 10

_WAL: Final = "PRAGMA journal_mode = WAL"

# FULL: a commit is on disk when it returns. NORMAL loses the last ones in a power failure, in WAL mode too
# (https://www.sqlite.org/pragma.html#pragma_synchronous).
_SQLITE_SETUP: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
    "PRAGMA journal_size_limit = 67108864",
)


def parse_url(text: str) -> URL:
    """The database's URL with its driver; `BadInput` for anything but a SQLite file or a PostgreSQL server."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The message contains neither the text nor the error that quotes it: it may contain a password.
        message = "the database URL cannot be read: use sqlite:///path or postgresql://user@host/name"
        raise BadInput(message) from None
    kind = url.get_backend_name()
    if kind == POSTGRES:
        _require_psycopg()
        return url.set(drivername="postgresql+psycopg")
    if kind != SQLITE or url.database in {None, "", ":memory:"} or url.query:
        message = (
            f"{url.render_as_string()} is no database for uploads: use sqlite:///path or postgresql://user@host/name"
        )
        raise BadInput(message)
    return url.set(drivername="sqlite+pysqlite")


def place(url: URL) -> str:
    """Where a database is: the absolute path of a SQLite file, or a server and a name, without user and password."""
    if url.get_backend_name() == SQLITE:
        return os.path.abspath(url.database or "")  # noqa: PTH100 - pathlib would follow links
    return f"{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def _require_psycopg() -> None:
    if importlib.util.find_spec("psycopg") is None:
        message = "PostgreSQL needs its driver: pip install 'backhaul[postgres]'"
        raise BadInput(message)


def writers(url: URL) -> int:
    """How many transactions may write at the same time."""
    return _WRITERS[url.get_backend_name()]


def writing_engine(url: URL, patience: float) -> Engine:
    """An engine for transactions that write. `patience` is the longest wait for a lock (s)."""
    if url.get_backend_name() == POSTGRES:
        return _postgres(url, patience, writers(url))
    return _sqlite(url, patience, 1, setup=(_WAL, "PRAGMA foreign_keys = ON"), begin="BEGIN IMMEDIATE")


def reading_engine(url: URL, patience: float) -> Engine:
    """An engine for transactions that read one snapshot and cannot write."""
    if url.get_backend_name() == POSTGRES:
        return _postgres(url, patience, READERS, read_only=True)
    return _sqlite(url, patience, READERS, setup=("PRAGMA query_only = ON",), begin="BEGIN")


def migrating_engine(url: URL, patience: float) -> Engine:
    """An engine for one transaction that changes the schema.

    On SQLite it ignores foreign keys: rebuilding a table must not delete the rows that refer to it. On PostgreSQL it
    sees what the process that held the lock before has committed.
    """
    if url.get_backend_name() == POSTGRES:
        return _postgres(url, patience, 1, isolation="READ COMMITTED")
    return _sqlite(url, patience, 1, setup=(_WAL, "PRAGMA foreign_keys = OFF"), begin="BEGIN IMMEDIATE")


def _sqlite(url: URL, patience: float, size: int, *, setup: tuple[str, ...], begin: str) -> Engine:
    """BEGIN is explicit: a deferred one fails at its first write, without waiting, if another process wrote since."""
    engine = create_engine(url, pool_size=size, max_overflow=0, paramstyle="named", connect_args={"timeout": patience})

    def set_up(connection: DBAPIConnection, _: object) -> None:
        connection.isolation_level = None
        for statement in (*_SQLITE_SETUP, *setup):
            _execute(connection, statement)

    def begin_transaction(connection: Connection) -> None:
        # Directly on the driver: SQLAlchemy's execution would cost more than BEGIN itself.
        driver: Any = connection.connection.driver_connection
        driver.execute(begin)

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin_transaction)
    return engine


def _postgres(
    url: URL, patience: float, size: int, *, read_only: bool = False, isolation: IsolationLevel = "REPEATABLE READ"
) -> Engine:
    """Repeatable read: one snapshot; a transaction that writes a row which another changed meanwhile runs again."""
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        isolation_level=isolation,
        connect_args={"connect_timeout": max(1, min(_CONNECT_TIMEOUT, round(patience)))},
    )
    event.listen(engine, "connect", _postgres_set_up(patience, read_only=read_only))
    return engine


def _postgres_set_up(patience: float, *, read_only: bool) -> Callable[[DBAPIConnection, object], None]:
    settings = (
        f"SET lock_timeout = {round(patience * 1000)}",
        "SET idle_in_transaction_session_timeout = 60000",
        f"SET default_transaction_read_only = {'on' if read_only else 'off'}",
    )

    def set_up(connection: DBAPIConnection, _: object) -> None:
        for statement in settings:
            _execute(connection, statement)
        connection.commit()

    return set_up


def _execute(connection: DBAPIConnection, statement: str) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()
