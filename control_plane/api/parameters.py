"""Parameters in paths, queries and headers, with their checks; and the services that routes depend on.

Rule: unknown names in a query are refused: otherwise a misspelt filter would list everything.
"""

from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends, Header, Path, Query, Request
from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from control_plane.api.bodies import FilePath, Input, matching, read_instant
from control_plane.domain.clients import ClientState
from control_plane.domain.selectors import MAX_LENGTH
from control_plane.domain.uploads.model import State
from control_plane.presentation import Status, states_of
from control_plane.services.clients.choosing import ClientFilter
from control_plane.services.clients.service import ClientService
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Page, UploadFilter
from control_plane.services.readiness import ReadinessCheck
from control_plane.services.uploads.service import UploadService
from schemas.names import UPLOAD_ID_PATTERN
from schemas.topics import RESERVED_PREFIXES, require_client_id
from schemas.values import DigestName

MAX_LIMIT: Final = 500
_CLIENT_ID_SCHEMA: Final = {
    "type": "string",
    "pattern": rf"^(?!{'|'.join(RESERVED_PREFIXES)})[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}$",
    "examples": ["restaurant-1"],
}

CheckedClientId = Annotated[str, AfterValidator(require_client_id), WithJsonSchema(_CLIENT_ID_SCHEMA)]
ClientId = Annotated[CheckedClientId, Path(description="The client's id on the wire.")]
UploadId = Annotated[
    str,
    *matching(UPLOAD_ID_PATTERN, "must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with no dot"),
    Path(description="The upload's id, as the trigger answered it."),
]
IdempotencyKey = Annotated[
    Annotated[str, *matching(r"^[\x21-\x7e]{1,255}$", "must be 1 to 255 visible ASCII characters")] | None,
    Header(
        description="Makes it safe to repeat the request: for 24 h the same key of the same caller and client gets the "
        "same upload as its answer, and 422 when the body differs.",
    ),
]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
SelectorText = Annotated[
    str,
    Field(
        max_length=MAX_LENGTH,
        description="Labels that a client must have, in Kubernetes' grammar: `=`, `!=`, `in`, `notin`, `key`, `!key`.",
        examples=["site=berlin,model in (pi4,pi5),!retired"],
    ),
]
Cursor = Annotated[str, Field(min_length=1, max_length=8192)]


class OneUpload(Input):
    """The client of the upload, needed where several clients have an upload of this id."""

    client_id: CheckedClientId | None = None


class Paged(Input):
    """One page of a list."""

    limit: Limit = 100
    cursor: Cursor | None = None

    @property
    def page(self) -> Page:
        """The page as the services take it."""
        return Page(self.limit, self.cursor)


def _instant(value: object) -> datetime:
    if (instant := read_instant(value)) is not None:
        return instant
    message = "must be an RFC 3339 instant such as 2025-11-01T10:00:00Z"
    raise ValueError(message)


SinceInstant = Annotated[datetime, PlainValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
ReasonFilter = Annotated[str, *matching(r"^[a-z_]{1,64}$", "must be a reason code such as client_offline")]


class WhichUploads(Paged):
    """Filters of the list of uploads; all that are given must match.

    `since` is the earliest creation, `ended_since` the earliest end. `reason_code` selects those that wait for it: such
    a page may have fewer rows than `limit` though its `cursor` leads on.
    """

    client_id: CheckedClientId | None = None
    status: Status | None = None
    state: State | None = None
    error: Annotated[str, *matching(r"^[a-z_]{1,64}$", "must be an error code such as file_not_found")] | None = None
    job_id: Annotated[str, *matching(UPLOAD_ID_PATTERN, "must be the id of a job")] | None = None
    reason_code: ReasonFilter | None = None
    since: SinceInstant | None = None
    ended_since: SinceInstant | None = None

    @property
    def where(self) -> UploadFilter:
        """As the service takes it; the reason is not part of it."""
        return UploadFilter(
            client_id=self.client_id,
            states=states_of(self.status, self.state),
            error=self.error,
            job_id=self.job_id,
            created_since=None if self.since is None else self.since.timestamp(),
            ended_since=None if self.ended_since is None else self.ended_since.timestamp(),
        )


ClientPattern = Annotated[
    str,
    *matching(r"^[A-Za-z0-9._*-]{1,64}$", "must be a client id, or a pattern of ids with *"),
    Field(description="A client id, or a pattern of ids with `*`.", examples=["restaurant-*"]),
]


class WhichClients(Paged):
    """Filters of the list of clients; all that are given must match."""

    id: ClientPattern | None = None
    selector: SelectorText | None = None
    state: ClientState | None = None

    @property
    def where(self) -> ClientFilter:
        """As the service takes it."""
        return ClientFilter(self.id, self.selector, self.state)


class WhichFiles(Paged):
    """Files on a client: a glob pattern below its allowed roots; `digest` requests the digest of each file too.

    With `folders` folders that match are listed as well, if the client has the capability `folders`.
    """

    pattern: FilePath
    digest: DigestName | None = None
    folders: bool = False


async def uploads_of(request: Request) -> UploadService:
    """The use cases of uploads."""
    uploads: UploadService = request.app.state.uploads
    return uploads


async def clients_of(request: Request) -> ClientService:
    """The use cases of clients."""
    clients: ClientService = request.app.state.clients
    return clients


async def readiness_of(request: Request) -> ReadinessCheck:
    """The check of every neighbour."""
    readiness: ReadinessCheck = request.app.state.readiness
    return readiness


async def now_of(request: Request) -> float:
    """The instant of this request, seconds since the epoch (UTC)."""
    clock: Clock = request.app.state.clock
    return clock.now()


Uploads = Annotated[UploadService, Depends(uploads_of)]
Clients = Annotated[ClientService, Depends(clients_of)]
Readiness = Annotated[ReadinessCheck, Depends(readiness_of)]
Now = Annotated[float, Depends(now_of)]
UploadQuery = Annotated[OneUpload, Query()]
UploadsQuery = Annotated[WhichUploads, Query()]
ClientsQuery = Annotated[WhichClients, Query()]
FilesQuery = Annotated[WhichFiles, Query()]
