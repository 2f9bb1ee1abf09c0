"""Runs one transaction, again when it lost a race, and translates its errors to `services.errors`.

Rule: all of it is committed when `run` returns, and nothing when `run` raises. One case is in doubt: after a
connection that breaks during COMMIT the error is that of an unreachable database.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from control_plane.adapters.database.engines import place
from control_plane.services.errors import BadInput, DatabaseUnavailable, KeyTaken, ServiceError

T = TypeVar("T")

_PAUSES: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5)
"""Upper limits of the pauses between tries (s)."""


def run(engine: Engine, work: Callable[[Connection], T], patience: float) -> T:
    """Run `work` in a transaction and commit it; at most ten tries, the last one begun within `patience` seconds.

    Raises what `work` raises, else an error of `services.errors`.
    """
    give_up_at = time.monotonic() + patience
    for pause in _PAUSES:
        try:
            return _once(engine, work)
        except SQLAlchemyError as error:
            if remedy(error) is Remedy.REPORT or time.monotonic() + pause > give_up_at:
                raise translated(error, engine) from error
        # Jitter: transactions that collided once should not collide again.
        time.sleep(random.uniform(0, pause))  # noqa: S311 - spreads load, not a secret
    try:
        return _once(engine, work)
    except SQLAlchemyError as error:
        raise translated(error, engine) from error


def _once(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        with _translated_driver_errors(connection):
            connection.begin()
            result = work(connection)
        try:
            connection.commit()
        except DBAPIError as error:
            if error.connection_invalidated:
                # It may be committed: the caller decides whether to run it again, after a read.
                raise translated(error, engine) from error
            raise
        return result


@contextmanager
def _translated_driver_errors(connection: Connection) -> Iterator[None]:
    """Turn exceptions of the driver, which `Statement` and BEGIN call directly, into those of SQLAlchemy."""
    dialect = connection.dialect
    driver = connection.connection.dbapi_connection
    try:
        yield
    except dialect.loaded_dbapi.Error as error:
        gone = dialect.is_disconnect(error, driver, None)
        if gone:
            connection.invalidate(error)
        raise DBAPIError.instance(
            None, None, error, dialect.loaded_dbapi.Error, connection_invalidated=gone, dialect=dialect
        ) from error


RETRY_AFTER: Final = 5.0

_SQLITE_BUSY: Final = frozenset({5, 6})
"""SQLITE_BUSY and SQLITE_LOCKED: https://www.sqlite.org/rescode.html"""

_POSTGRES_RACES: Final = frozenset({"40001", "40P01"})
"""serialization_failure and deadlock_detected: https://www.postgresql.org/docs/15/errcodes-appendix.html"""


class Remedy(StrEnum):
    """What to do after a failed transaction, which was rolled back as a whole."""

    AGAIN = "run it again: it lost a race or its connection"
    REPORT = "raise the error"


def remedy(error: SQLAlchemyError) -> Remedy:
    """Whether the same transaction is likely to succeed when run again at once."""
    if not isinstance(error, DBAPIError):
        return Remedy.REPORT
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    state: str | None = getattr(error.orig, "sqlstate", None)
    raced = (code is not None and code & 0xFF in _SQLITE_BUSY) or state in _POSTGRES_RACES
    return Remedy.AGAIN if raced or error.connection_invalidated else Remedy.REPORT


def translated(error: SQLAlchemyError, engine: Engine) -> ServiceError:
    """The error for the caller. It names and quotes the database, not the statement: the values may be private."""
    text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    if isinstance(error, IntegrityError):
        return KeyTaken(f"the database refuses a row: {text}")
    if isinstance(error, DataError):
        return BadInput(f"the database cannot hold a value: {text}")
    return DatabaseUnavailable(f"the database {place(engine.url)}: {text}", retry_after=RETRY_AFTER)
