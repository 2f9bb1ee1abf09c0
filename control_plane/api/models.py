"""The shapes of REST (protocol.md section 6), and nothing that is sent over MQTT.

Rule: what comes in is strict, bounded and refuses what it does not know; what goes out always has all its members.
Instants are RFC 3339 in UTC with `Z`, sizes bytes, durations seconds.
"""

import json
import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

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
from control_plane.domain.values import Origin, Proof, State
from schemas.codec import require_metadata
from schemas.values import DigestName

MAX_DEADLINE: Final = 30 * 86_400
MAX_LIMIT: Final = 500
MAX_METADATA_DEPTH: Final = 8
_MAX_NUMBER: Final = 2**53 - 1
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def matching(pattern: str, says: str) -> tuple[AfterValidator, FieldInfo]:
    """Annotations of a text that must match all of `pattern`; `says` is what a caller is told, not the pattern."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(says)
        return text

    return AfterValidator(check), Field(json_schema_extra={"pattern": pattern})


Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""Made by `views.instant`."""


def _metadata(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """What every reader of JSON understands: no NaN, no lone surrogate, not too deep."""
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


def _deadline(value: object) -> float | datetime:
    """An instant, or seconds from now; whether it is too far away depends on the time, which is not known here."""
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        return datetime.fromisoformat(value)
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
"""Beside `strict`, makes a JSON integer: `1.0` is one too (JSON Schema), `"1"` and `true` are none."""


class Input(BaseModel):
    """What a caller sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Output(BaseModel):
    """What a caller is answered."""

    model_config = ConfigDict(frozen=True)


class Options(Input):
    """How the upload is to be done (protocol.md section 3)."""

    priority: Annotated[int, Field(strict=True, ge=-1000, le=1000), Whole] = 0
    max_bytes_per_second: Annotated[int, Field(strict=True, ge=1, le=_MAX_NUMBER), Whole] | None = None
    on_change: Literal["fail", "prefix"] = "fail"
    compression: Literal["none", "gzip"] = "none"
    give_up_after: Annotated[int, Field(strict=True, ge=1, le=31_536_000), Whole] = 86_400


class TriggerBody(Input):
    """What to upload; an empty body asks for the client's default file."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TRIGGER]})

    file_path: FilePath | None = None
    metadata: Metadata = {}
    options: Options = Options()
    deadline: Deadline | None = None


class Status(StrEnum):
    """An upload's state in the seed's words."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Triggered(Output):
    """An upload was asked for; it is queued while the client is offline."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TRIGGERED]})

    success: bool = True
    message: str
    upload_id: str
    s3_key: str
    status: Status


class CurrentUpload(Output):
    """What a client is doing."""

    upload_id: str
    file_path: str | None
    status: Status
    progress: Annotated[float, Field(ge=0, le=100)]


class ClientStatus(Output):
    """One client and its unfinished upload with the latest activity."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CLIENT_STATUS]})

    client_id: str
    connected: bool
    connected_at: Instant | None
    last_heartbeat: Instant | None
    current_upload: CurrentUpload | None


class ClientRow(Output):
    """One client in a list."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CLIENT_ROW]})

    client_id: str
    connected: bool
    last_activity: Instant | None
    labels: dict[str, str]


class Agent(Output):
    """The agent program and where it runs."""

    version: str
    protocol: list[int]
    hostname: str
    os: str
    arch: str


class Client(ClientRow):
    """One client in full; `reason` says why nothing is sent to it, null while it hears commands."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CLIENT]})

    connected_at: Instant | None
    install_id: str
    agent: Agent
    supported: bool
    capabilities: list[str]
    default_file: str | None
    reason: str | None


class ClientPage(Output):
    """Clients by id; `total` counts all that match, `cursor` asks for the next page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CLIENT_PAGE]})

    clients: list[ClientRow]
    total: int
    cursor: str | None


class Upload(Output):
    """One upload. `status` is the seed's word, `state` the exact one; `reason` and `next_wake_at` say why it waits."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.UPLOAD]})

    upload_id: str
    client_id: str
    file_path: str | None
    s3_key: str
    status: Status
    state: State
    progress: Annotated[float, Field(ge=0, le=100)]
    completed_parts: int
    total_parts: int | None
    bytes_uploaded: int
    file_size: int | None
    attempt: int
    proof: Proof | None
    reason: str | None
    next_wake_at: Instant | None
    error: str | None
    message: str | None
    metadata: dict[str, Any]
    origin: Origin
    created_at: Instant
    updated_at: Instant
    completed_at: Instant | None


class UploadPage(Output):
    """Uploads, newest first; `cursor` asks for the next page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.UPLOAD_PAGE]})

    uploads: list[Upload]
    cursor: str | None


class ObjectUrl(Output):
    """A URL that reads the object for `expires_in` seconds. Whoever has it may read: do not keep it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.OBJECT_URL]})

    upload_id: str
    url: str
    expires_in: float


class File(Output):
    """One file on a client."""

    path: str
    size: int
    mtime_ns: int
    digest: str | None


class FilePage(Output):
    """Files that match; `cursor` asks for the next page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FILE_PAGE]})

    files: list[File]
    cursor: str | None


class Health(Output):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.HEALTH]})

    status: Literal["ok"] = "ok"
    timestamp: Instant


class Probe(Output):
    """What the object store was seen to do (protocol.md section 5)."""

    part_digests: list[DigestName]
    object_digests: list[DigestName]
    etag_is_md5: bool
    if_none_match: bool
    encrypts: bool
    clock_skew: float | None
    notes: list[str]


class Readiness(Output):
    """Whether work can be done; `checks` names broker, database and store: `ok`, or what is wrong."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.READINESS]})

    status: Literal["ready", "not ready"]
    checks: dict[str, str]
    probe: Probe | None


class ProblemDocument(Output):
    """What went wrong (RFC 9457); `type` tells problems apart, `detail` is for a person."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.PROBLEM]})

    type: str
    title: str
    status: int
    detail: str | None = None
