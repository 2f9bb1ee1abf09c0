"""What happened to one client, and to one upload, over REST.

Rule: read off the change log, which goes back seven days; a document states when there was more.
"""

from typing import Annotated, Any, Final, Self

from fastapi import Query
from pydantic import ConfigDict, Field

from control_plane.api.auth import Caller, needs
from control_plane.api.bodies import Input
from control_plane.api.documents import problems
from control_plane.api.models import Instant, Output
from control_plane.api.parameters import ClientId, Clients, UploadId, UploadQuery, Uploads
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.domain.changes import NumberedChange
from control_plane.domain.clients import ClientState
from control_plane.domain.uploads.model import State
from control_plane.presentation import known_instant
from control_plane.services.clients.history import History
from control_plane.services.uploads.service import Timeline

MOST_HOURS: Final = 168
_SPAN: Final[dict[str, Any]] = {
    "state": "connected",
    "begin": "2025-11-01T09:00:00.000Z",
    "end": "2025-11-01T10:00:00.000Z",
}
_CREATED: Final[dict[str, Any]] = {
    "number": 4_711,
    "at": "2025-11-01T10:00:00.000Z",
    "type": "upload.created",
    "was": None,
    "state": None,
    "attempt": None,
    "error": None,
}
_DISPATCHED: Final[dict[str, Any]] = {
    **_CREATED,
    "number": 4_712,
    "type": "upload.state_changed",
    "was": "queued",
    "state": "dispatched",
    "attempt": 1,
}

router = router_of_calls()


class WhichHistory(Input):
    """How far back."""

    hours: Annotated[int, Field(ge=1, le=MOST_HOURS)] = MOST_HOURS


class PresenceSpan(Output):
    """A time for which the client was in one state; null where that is not known."""

    state: ClientState | None
    begin: Instant
    end: Instant


class ClientHistory(Output):
    """When a client was connected: spans without gaps, oldest first.

    `cut`: it connected too often to show more.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"client_id": "restaurant-1", "spans": [_SPAN], "cut": False}]}
    )

    client_id: str
    spans: list[PresenceSpan]
    cut: bool

    @classmethod
    def of(cls, client_id: str, found: History) -> Self:
        """The history of a client."""
        spans = [
            PresenceSpan(state=one.state, begin=known_instant(one.begin), end=known_instant(one.end))
            for one in found.spans
        ]
        return cls(client_id=client_id, spans=spans, cut=found.cut)


class UploadChange(Output):
    """One change of an upload: its creation, or a new state; `error` is why it failed."""

    number: int
    at: Instant
    type: str
    was: State | None
    state: State | None
    attempt: int | None
    error: str | None

    @classmethod
    def of(cls, found: NumberedChange) -> Self:
        """The change as the log has it."""
        change = found.change
        facts = {name: getattr(change, name, None) for name in ("was", "state", "attempt", "error")}
        return cls(number=found.number, at=known_instant(change.at), type=change.name, **facts)


class UploadTimeline(Output):
    """What happened to an upload, oldest first. Without `complete` the log no longer has the beginning."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"upload_id": "5f3c1d2e9a7b4c60", "changes": [_CREATED, _DISPATCHED], "complete": True}]
        }
    )

    upload_id: str
    changes: list[UploadChange]
    complete: bool

    @classmethod
    def of(cls, upload_id: str, found: Timeline) -> Self:
        """The timeline of an upload."""
        return cls(upload_id=upload_id, changes=list(map(UploadChange.of, found.changes)), complete=found.complete)


@router.get(
    "/clients/{client_id}/history",
    operation_id="getClientHistory",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="See when a client was connected",
    tags=["clients"],
    responses=problems(404, 422),
)
async def client_history(
    client_id: ClientId, clients: Clients, caller: Caller, query: Annotated[WhichHistory, Query()]
) -> ClientHistory:
    """Its presence over the last hours, seven days at most."""
    return ClientHistory.of(client_id, await clients.history(caller, client_id, query.hours * 3600.0))


@router.get(
    "/uploads/{upload_id}/timeline",
    operation_id="getUploadTimeline",
    openapi_extra=needs(Scope.UPLOADS_READ),
    summary="See what happened to an upload",
    tags=["uploads"],
    responses=problems(404, 409, 422),
)
async def upload_timeline(upload_id: UploadId, uploads: Uploads, caller: Caller, which: UploadQuery) -> UploadTimeline:
    """Its changes of the last seven days, the last 500 at most."""
    return UploadTimeline.of(upload_id, await uploads.timeline(caller, upload_id, which.client_id))
