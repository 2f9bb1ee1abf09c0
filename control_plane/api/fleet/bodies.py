"""The bodies of the fleet's requests: expected clients as JSON or CSV, labels, groups.

Rule: as `api/bodies.py`; a fault in a CSV names its line.
"""

import csv
import io
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import FailFast, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from control_plane.api import examples
from control_plane.api.bodies import Input
from control_plane.domain.selectors import MAX_LENGTH
from control_plane.services.clients.fleet import MAX_LABELS, MAX_NOTE, ExpectedClient
from control_plane.services.errors import BadInput

LABELS_EXAMPLE: Final = {"site": "berlin", "ring": "beta"}
CHANGES_EXAMPLE: Final = {"site": "paris", "ring": None}
CSV_EXAMPLE: Final = 'id,labels,note\nrestaurant-7,"site=berlin,ring=beta",opens in May\n'
_COLUMNS: Final = frozenset({"id", "labels", "note"})

LabelMap = Annotated[dict[str, str], Field(max_length=MAX_LABELS)]
LabelChanges = Annotated[dict[str, str | None], Field(max_length=MAX_LABELS)]
Note = Annotated[str, Field(max_length=MAX_NOTE)]


class ExpectedClientBody(Input):
    """A client that belongs to the fleet. What is left out stays as it is."""

    client_id: str
    labels: LabelMap | None = None
    note: Note | None = None

    @property
    def entry(self) -> ExpectedClient:
        """The entry as the service takes it."""
        return ExpectedClient(self.client_id, self.labels, self.note)


class GroupContent(Input):
    """What a group selects: the clients that one of `clients`, or `selector`, matches."""

    clients: Annotated[tuple[str, ...], Field(description="Client ids, and patterns with `*`.")] = ()
    selector: Annotated[str, Field(max_length=MAX_LENGTH)] | None = None
    note: Note = ""


class GroupBody(GroupContent):
    """A group with its name."""

    name: str


_one: Final = TypeAdapter(ExpectedClientBody)
_many: Final = TypeAdapter(Annotated[list[ExpectedClientBody], FailFast()])
"""The first fault alone: to describe each of two million takes half a minute and gigabytes."""

_MOST_FAULTS: Final = 1_000


async def entries_of(request: Request) -> ExpectedClient | list[ExpectedClient]:
    """The clients of a body: one as a JSON object, several as a JSON array or as CSV."""
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/csv":
        return _from_csv(body)
    if kind != "application/json":
        raise HTTPException(415, "The body must be sent as Content-Type: application/json or text/csv")
    try:
        if body.lstrip().startswith(b"["):
            return [one.entry for one in _many.validate_json(body)]
        return _one.validate_json(body).entry
    except ValidationError as error:
        if error.error_count() > _MOST_FAULTS:
            raise BadInput(f"the body has {error.error_count()} faults") from error  # noqa: EM102, TRY003 - one number
        faults: list[Any] = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)]
        raise RequestValidationError(faults) from error


Entries = Annotated[ExpectedClient | list[ExpectedClient], Depends(entries_of)]
ENTRIES_BODY: Final[Mapping[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        ExpectedClientBody.model_json_schema(),
                        {"type": "array", "items": ExpectedClientBody.model_json_schema()},
                    ]
                },
                "example": examples.EXPECTED_CLIENT,
            },
            "text/csv": {"schema": {"type": "string"}, "example": CSV_EXAMPLE},
        },
    }
}


def _from_csv(body: bytes) -> list[ExpectedClient]:
    """The rows of a CSV with a header of `id`, and of `labels` (`site=berlin,ring=beta`) and `note` if it has them."""
    try:
        text = body.decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = rows.fieldnames or []
        if "id" not in columns or not _COLUMNS.issuperset(columns) or len(set(columns)) < len(columns):
            message = "the first line of the CSV must name its columns: id, and labels and note if it has them"
            raise BadInput(message)
        return [_entry(row, f"line {rows.line_num}") for row in rows]
    except UnicodeDecodeError as error:
        message = "the CSV is not UTF-8"
        raise BadInput(message) from error
    except csv.Error as error:
        raise BadInput(f"the CSV cannot be read: {error}") from error  # noqa: EM102, TRY003 - the parser's own text


def _entry(row: Mapping[str | None, Any], place: str) -> ExpectedClient:
    if None in row or None in row.values():
        message = f"{place}: there are more or fewer columns than in the first line"
        raise BadInput(message)
    labels = row.get("labels")
    return ExpectedClient(row["id"], None if labels is None else _labels(labels, place), row.get("note"))


def _labels(text: str, place: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or name in labels:
            message = f"{place}: labels are written as site=berlin,ring=beta, each name once"
            raise BadInput(message)
        labels[name] = value
    return labels
