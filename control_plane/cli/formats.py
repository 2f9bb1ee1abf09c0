"""The forms of a result: `-o json|jsonl|csv|name`, `--fields` and `--query`.

Rule: pure functions from a document to lines; `cli.output` writes them, `cli.layout` draws tables. A form prints the
members of the document as REST names them.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from control_plane.cli.errors import Misused
from control_plane.cli.text import visible

ALL_FIELDS: Final = "?"
"""The value of `--fields` without one: list them."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class Form(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Shape:
    """How an answer is rows: `rows` is the member that has them, None where the answer itself is the one row.

    `name` is the member that names a row, or several with `=` between them; `fields` are the members of a row.
    """

    name: str
    fields: tuple[str, ...]
    rows: str | None = None

    def of(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of an answer."""
        return [dict(document)] if self.rows is None else list(document.get(self.rows) or ())

    def title(self, row: Mapping[str, Any]) -> str:
        """The name of a row, as a command takes it."""
        return "=".join(plain(row.get(member)) for member in self.name.split("="))

    def one(self) -> "Shape":
        """The same row, alone as an answer."""
        return replace(self, rows=None)


@dataclass(frozen=True, slots=True)
class FormChoice:
    """What was typed about the form of a result. `form` None: nothing was typed."""

    form: Form | None = None
    fields: str | None = None
    query: str | None = None

    @property
    def as_json(self) -> bool:
        """Whether standard output gets JSON, also of an error."""
        return self.form in (Form.JSON, Form.JSONL)

    def require(self, shape: Shape | None) -> None:
        """Raise `Misused` where the command cannot print what was chosen; before anything is sent."""
        if self.query is not None:
            compiled(self.query)
            if self.fields is not None:
                text = "--fields and --query both choose members: give one of them"
                raise Misused(text)
        if shape is None:
            wrong = self.fields is not None or self.form not in (None, Form.TABLE, Form.JSON)
            if wrong and self.query is None:
                text = "this command prints no rows: it has --json and --query only"
                raise Misused(text)
            return
        for field in self.wanted:
            if field not in shape.fields:
                text = f"--fields: there is no {visible(field)!r}; there are {', '.join(shape.fields)}"
                raise Misused(text)

    @property
    def lists_fields(self) -> bool:
        """Whether `--fields` was typed without a value."""
        return self.fields == ALL_FIELDS

    @property
    def wanted(self) -> tuple[str, ...]:
        """The fields that were named, in their order."""
        if self.fields is None or self.lists_fields:
            return ()
        return tuple(dict.fromkeys(name.strip() for name in self.fields.split(",") if name.strip()))


def chosen(document: Mapping[str, Any], shape: Shape, wanted: Sequence[str]) -> dict[str, Any]:
    """The document with only these members of each row."""
    rows = [{name: row.get(name) for name in wanted} for row in shape.of(document)]
    return rows[0] if shape.rows is None else {**document, shape.rows: rows}


def compiled(expression: str) -> Any:  # noqa: ANN401 - jmespath has no types
    """A JMESPath expression; `Misused` names the place of its fault."""
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.compile(expression)
    except JMESPathError as error:
        raise _bad_query(expression, error) from error


def queried(document: object, expression: str) -> object:
    """What the expression finds; `Misused` where a function of it cannot take what it gets."""
    from jmespath.exceptions import JMESPathError

    try:
        found: object = compiled(expression).search(document)
    except JMESPathError as error:
        raise _bad_query(expression, error) from error
    return found


def _bad_query(expression: str, error: Exception) -> Misused:
    # Lines that follow show the expression with a mark below it, which no log keeps aligned.
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    position = getattr(error, "lex_position", None)
    place = f" at character {position + 1}" if isinstance(position, int) and position >= 0 else ""
    return Misused(f"--query {visible(expression)!r} is no JMESPath expression{place}: {visible(why)}")


def json_line(value: object) -> str:
    """A value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) + "\n"


def csv_lines(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """A head, and a line for each row; what is no text or number is JSON in its cell (RFC 4180)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    for cells in (names, *([_csv_cell(row.get(name)) for name in names] for row in rows)):
        writer.writerow(cells)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _csv_cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool() | dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
        case str() if value.startswith(_FORMULA):
            # A spreadsheet would compute it, and a device may have named it.
            return f"'{value}"
        case _:
            return str(value)


def plain(value: object) -> str:
    """A scalar as text, anything else as JSON: a line for a shell."""
    return visible(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def members(rows: Sequence[object]) -> list[str] | None:
    """The members of all rows in the order in which they come; None when a row is no object."""
    names: dict[str, None] = {}
    for row in rows:
        if not isinstance(row, dict):
            return None
        names |= dict.fromkeys(row)
    return list(names)
