"""Runs one transaction, again when it lost a race.

Rule: all of it is committed when `run` returns, and nothing when `run` raises. One case is in doubt: after a
connection that breaks during COMMIT the error is that of an unreachable database.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from control_plane.adapters.database.failures import Remedy, remedy, translated

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
                raise translated(error) from error
        # Jitter: transactions that collided once should not collide again.
        time.sleep(random.uniform(0, pause))  # noqa: S311 - spreads load, not a secret
    try:
        return _once(engine, work)
    except SQLAlchemyError as error:
        raise translated(error) from error


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
                raise translated(error) from error
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
