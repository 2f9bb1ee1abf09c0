"""The bodies of requests, and the checks that bodies and queries share.

Rule: strict and bounded. Unknown members are refused: otherwise a misspelt member would be ignored.
"""

import json
import re
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo

from control_plane.api import examples
from control_plane.domain.uploads.model import MAX_DEADLINE
from control_plane.services.clients.sets import ShownSet
from schemas.codec import require_metadata
from schemas.messages import KEEP
from schemas.values import MAX_RECIPIENTS, RECIPIENT_PATTERN

MAX_METADATA_DEPTH: Final = 8
_MAX_NUMBER: Final = 2**53 - 1
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9998


def matching(pattern: str, requirement: str) -> tuple[AfterValidator, FieldInfo]:
    """Annotations of a text that must match all of `pattern`; `requirement` is the error text.

    The OpenAPI document shows `$` for an end of text: JSON Schema has the syntax of ECMAScript.
    """
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(requirement)
        return text

    return AfterValidator(check), Field(json_schema_extra={"pattern": pattern.replace(r"\Z", "$")})


def _metadata(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Require JSON that every parser reads: no NaN, no lone surrogate, not nested too deep."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        require_metadata(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(str(error)) from error
    if _depth(value) > MAX_METADATA_DEPTH:
        message = f"nests deeper than {MAX_METADATA_DEPTH}"
        raise ValueError(message)
    return value


def _depth(value: JsonValue) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def read_instant(value: object) -> datetime | None:
    """An RFC 3339 instant of the years that can be shown in every time zone; None for any other value.

    `ValueError` for a day that no calendar has.
    """
    if not isinstance(value, str) or _INSTANT.fullmatch(value) is None:
        return None
    instant = datetime.fromisoformat(value)
    return instant if _FIRST_YEAR <= instant.year <= _LAST_YEAR else None


def _deadline(value: object) -> float | datetime:
    """Parse an instant, or seconds from now. The service checks the instant, since this check has no clock."""
    if (instant := read_instant(value)) is not None:
        return instant
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_DEADLINE:
        return float(value)
    message = f"must be an RFC 3339 instant such as 2025-11-01T10:00:00Z, or seconds from now, at most {MAX_DEADLINE}"
    raise ValueError(message)


Deadline = Annotated[
    float | datetime,
    PlainValidator(_deadline),
    WithJsonSchema(
        {
            "description": "An RFC 3339 instant, or seconds from now; at most 30 days away.",
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_DEADLINE},
            ],
        }
    ),
]
FilePath = Annotated[str, Field(min_length=1, max_length=4096), *matching(r"^[^\x00]+$", "must not hold a NUL")]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(_metadata), Field(description="Stored and echoed; ≤ 4 KiB.")]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole: Final = BeforeValidator(_whole)
"""With `strict`, accepts a JSON integer: `1.0` is one too (JSON Schema), `"1"` and `true` are not."""

SetName = Annotated[str, *matching(r"^[0-9a-f]{16}\Z", "must be the set that a list showed")]
SetCount = Annotated[int, Field(strict=True, ge=0), Whole]


def shown_set(count: int | None, name: str | None) -> ShownSet | None:
    """The set that a caller was shown, None for none; `ValueError` for one of the two alone."""
    if (count is None) != (name is None):
        message = "count and set go together"
        raise ValueError(message)
    return None if count is None or name is None else ShownSet(count, name)


class Input(BaseModel):
    """A body or a query."""

    model_config = ConfigDict(extra="forbid", frozen=True)


After = Annotated[
    str,
    Field(max_length=4_101, description="What the device does with the file once it is proven, if it allows it."),
    *matching(r"^(keep|delete|move:/[^\x00\n]*)\Z", "must be keep, delete or move:/FOLDER"),
]
"""`keep`, `delete`, or `move:` and a folder of the device."""


class Options(Input):
    """Options of the upload (protocol.md section 3)."""

    priority: Annotated[int, Field(strict=True, ge=-1000, le=1000), Whole] = 0
    max_bytes_per_second: Annotated[int, Field(strict=True, ge=1, le=_MAX_NUMBER), Whole] | None = None
    on_change: Literal["fail", "prefix"] = "fail"
    compression: Literal["none", "gzip"] = "none"
    give_up_after: Annotated[int, Field(strict=True, ge=1, le=31_536_000), Whole] = 86_400
    encrypt_to: Annotated[
        tuple[Annotated[str, *matching(RECIPIENT_PATTERN, "must be a recipient as age-keygen prints it: age1…")], ...],
        Field(max_length=MAX_RECIPIENTS, description="Who can open the object: the device seals the file for them."),
    ] = ()


class TriggerBody(Input):
    """What to upload; an empty body requests the client's default file."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TRIGGER]})

    file_path: FilePath | None = None
    metadata: Metadata = {}
    options: Options = Options()
    after: After = KEEP
    deadline: Deadline | None = None
