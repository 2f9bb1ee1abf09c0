"""One transaction, run again when it lost a race.

Rule: either all of it is committed when `run` returns, or none of it is when `run` raises; but for a connection that
breaks during COMMIT, where nobody can know, and which is reported like a database that is away.
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
"""Seconds at most between two tries."""


def run(engine: Engine, work: Callable[[Connection], T], patience: float) -> T:
    """Run `work` in a transaction and commit it; at most ten times, within `patience` seconds or a try longer.

    Raises what `work` raises, else an error of `services.errors`.
    """
    give_up_at = time.monotonic() + patience
    for pause in _PAUSES:
        try:
            return _once(engine, work)
        except SQLAlchemyError as error:
            if remedy(error) is Remedy.REPORT or time.monotonic() + pause > give_up_at:
                raise translated(error) from error
        # Jitter: those who collided once should not collide again.
        time.sleep(random.uniform(0, pause))  # noqa: S311 - spreads load, hides nothing
    try:
        return _once(engine, work)
    except SQLAlchemyError as error:
        raise translated(error) from error


def _once(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        with _in_one_tongue(connection):
            connection.begin()
            result = work(connection)
        try:
            connection.commit()
        except DBAPIError as error:
            if error.connection_invalidated:
                # Perhaps it is committed: running it again is for the caller to decide, who will read first.
                raise translated(error) from error
            raise
        return result


@contextmanager
def _in_one_tongue(connection: Connection) -> Iterator[None]:
    """What the driver raises where SQLAlchemy is passed by, BEGIN among it, is told in SQLAlchemy's words."""
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
