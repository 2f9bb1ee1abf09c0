"""The shapes that REST answers with (protocol.md section 6), and nothing that is sent over MQTT.

Rule: what goes out always has all its members. Instants are RFC 3339 in UTC with `Z`, sizes bytes, durations seconds.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from control_plane.api import examples
from control_plane.domain.uploads.model import Origin, Proof, State
from schemas.values import DigestName

Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""Made by `views.instant`."""


class Output(BaseModel):
    """What a caller is answered."""

    model_config = ConfigDict(frozen=True)


class Status(StrEnum):
    """An upload's state in one of five values, which stay as they are."""

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
    """One upload. `status` is one of five values, `state` is exact; `reason` and `next_wake_at` explain a wait."""

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
