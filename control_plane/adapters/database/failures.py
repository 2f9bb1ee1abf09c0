"""Translates errors of the database to `services.errors`.

Rule: `DatabaseUnavailable` is for conditions that may pass (locked, full, unreachable); no exception of the driver
leaves this package.
"""

from enum import StrEnum
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from control_plane.services.errors import BadInput, DatabaseUnavailable, KeyTaken, ServiceError

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


def translated(error: SQLAlchemyError) -> ServiceError:
    """The error for the caller. It quotes the database, not the statement: the values may be private."""
    text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    if isinstance(error, IntegrityError):
        return KeyTaken(f"the database refuses a row: {text}")
    if isinstance(error, DataError):
        return BadInput(f"the database cannot hold a value: {text}")
    return DatabaseUnavailable(f"the database: {text}", retry_after=RETRY_AFTER)
