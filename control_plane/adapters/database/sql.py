"""Statements that are compiled once for each database and run directly by its driver.

Rule: values are always bound. A `Statement` is what every event runs, `Statements` differ by a filter or a reach,
`StatementOfSome` by the length of a list; SQLAlchemy executes what is run seldom. Its execution costs more than the
database: 21 us instead of 9 for reading one upload, 29 instead of 10 for writing it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import sqlalchemy
from sqlalchemy import BindParameter, ClauseElement, Column, ColumnElement, Connection, Dialect, Table, bindparam, or_
from sqlalchemy.engine.interfaces import DBAPICursor

from control_plane.services.errors import BadInput

Values = dict[str, Any]

_UNSTORABLE: Final = (UnicodeError, OverflowError)
"""For example half a surrogate pair, which JSON can express and UTF-8 cannot. The transaction stays usable."""

_MOST_MADE: Final = 256
"""Statements that are kept for different keys."""


class Statement:
    """A statement with named parameters; an UPDATE sets the columns that are among its values."""

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._compiled: dict[tuple[str, frozenset[str]], tuple[str, Values]] = {}

    def compiled(self, dialect: Dialect, columns: frozenset[str] = frozenset()) -> tuple[str, Values]:
        """The SQL for one database, and the constants of the statement."""
        known = self._compiled.get((dialect.name, columns))
        if known is None:
            compiled = self._clause.compile(dialect=dialect, column_keys=sorted(columns) or None)
            constants = {name: value for name, value in compiled.params.items() if value is not None}
            known = self._compiled[dialect.name, columns] = (str(compiled), constants)
        return known


class StatementOfSome:
    """A statement with a list of values: compiled for each power of two, and a list is filled up with its last value.

    `clause` makes it for the placeholders of a list. SQLAlchemy would write the text of an IN anew at each execution.
    """

    def __init__(self, clause: Callable[[Sequence[BindParameter[Any]]], ClauseElement]) -> None:
        self._clause = clause
        self._of_sizes: dict[int, Statement] = {}

    def of(self, values: Sequence[object]) -> tuple[Statement, Values]:
        """The statement for at least one value, and its parameters."""
        size = 1 << (len(values) - 1).bit_length()
        statement = self._of_sizes.get(size)
        if statement is None:
            placeholders: list[BindParameter[Any]] = [bindparam(f"some_{number}") for number in range(size)]
            statement = self._of_sizes[size] = Statement(self._clause(placeholders))
        filled = [*values, *[values[-1]] * (size - len(values))]
        return statement, {f"some_{number}": value for number, value in enumerate(filled)}


class Statements:
    """Statements that differ by a key, for example the reach of the caller: each is made when it is first needed."""

    def __init__(self) -> None:
        self._made: dict[object, Statement] = {}

    def of(self, key: object, clause: Callable[[], ClauseElement]) -> Statement:
        """The statement of this key."""
        statement = self._made.get(key)
        if statement is None:
            if len(self._made) >= _MOST_MADE:
                self._made.clear()
            statement = self._made[key] = Statement(clause())
        return statement


def is_one_of(column: ColumnElement[str], values: Iterable[str]) -> ColumnElement[bool]:
    """IN, for a `Statement`: an IN of SQLAlchemy has its values only when SQLAlchemy executes it."""
    return or_(*(column == str(value) for value in sorted(values)))


class Transaction:
    """The connection of one transaction. Exceptions of the driver pass; `transactions` translates them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._dialect = connection.dialect
        self._driver = connection.connection

    @property
    def dialect(self) -> str:
        """The kind of database, as `engines` names it."""
        return self._dialect.name

    def run(self, statement: Statement, values: Values) -> DBAPICursor:
        """Run it once; the cursor has the rows."""
        text, constants = statement.compiled(self._dialect)
        return self._execute(text, constants | values)

    def run_some(self, statement: StatementOfSome, some: Sequence[object]) -> DBAPICursor:
        """Run it once for at least one value; the cursor has the rows."""
        return self.run(*statement.of(some))

    def run_each(self, statement: Statement, rows: Sequence[Values]) -> None:
        """Run it once for each row."""
        if not rows:
            return
        text, constants = statement.compiled(self._dialect)
        try:
            self._driver.cursor().executemany(text, [constants | row for row in rows] if constants else rows)
        except _UNSTORABLE as error:
            raise _refusal(error) from error

    def update_each(self, statement: Statement, columns: frozenset[str], rows: Sequence[Values]) -> int:
        """Set these columns, and what else is bound, once for each row; returns the number of rows that changed."""
        text, constants = statement.compiled(self._dialect, columns)
        cursor = self._driver.cursor()
        try:
            cursor.executemany(text, [constants | row for row in rows] if constants else rows)
        except _UNSTORABLE as error:
            raise _refusal(error) from error
        return cursor.rowcount

    def update(self, statement: Statement, changes: Values, guard: Values) -> int:
        """Set the columns of `changes` where `guard` holds; returns the number of rows."""
        text, constants = statement.compiled(self._dialect, frozenset(changes))
        return self._execute(text, constants | changes | guard).rowcount

    def _execute(self, text: str, values: Values) -> DBAPICursor:
        cursor = self._driver.cursor()
        try:
            cursor.execute(text, values)
        except _UNSTORABLE as error:
            raise _refusal(error) from error
        return cursor


def _refusal(error: Exception) -> BadInput:
    return BadInput(f"the database cannot hold a value: {error}")


def insert_new(table: Table) -> Statement:
    """Insert a row, or do nothing when a unique key is taken: then `rowcount` is 0.

    A failed INSERT would end the transaction on PostgreSQL; after this one it can try another key.
    """
    return Statement(sqlalchemy.text(f"{_insert(list(table.columns))} ON CONFLICT DO NOTHING"))


def upsert(table: Table) -> Statement:
    """Insert a row, or replace the one with its primary key."""
    key = [column.name for column in table.primary_key]
    rest = [column.name for column in table.columns if not column.primary_key]
    changes = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return Statement(
        sqlalchemy.text(f"{_insert(list(table.columns))} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}")
    )


def insert_numbered(table: Table) -> Statement:
    """Insert a row; the database assigns its primary key."""
    return Statement(sqlalchemy.text(_insert([column for column in table.columns if not column.primary_key])))


def _insert(columns: Sequence[Column[Any]]) -> str:
    names = [column.name for column in columns]
    values = ", ".join(f":{name}" for name in names)
    return f"INSERT INTO {columns[0].table.name} ({', '.join(names)}) VALUES ({values})"  # noqa: S608 - the names are constants
