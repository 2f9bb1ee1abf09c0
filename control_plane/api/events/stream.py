"""`GET /events`: committed changes as server-sent events.

Rule: a stream ends when its caller disconnects or does not keep up, when its token or session ends or is revoked, when
the server stops, and after an hour at most: then the caller connects again, with its token and its last event's id.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Final

from fastapi import Depends, Header, Query, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from control_plane.api.auth import LEEWAY, Known, needs_one_of, session_of
from control_plane.api.bodies import Input, matching
from control_plane.api.documents import problems
from control_plane.api.events.connection import connection_of
from control_plane.api.parameters import CheckedClientId
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Principal, Scope, require
from control_plane.domain.selectors import MAX_LENGTH as MAX_SELECTOR
from control_plane.domain.selectors import parse
from control_plane.services.clients.reach import reach_of
from control_plane.services.errors import ServiceError
from control_plane.services.events.filters import PROGRESS, ChangeFilter, require_types
from control_plane.services.events.streams import EventStreams, Stream
from control_plane.services.sessions.service import SessionService
from control_plane.services.sessions.tokens import TokenService
from schemas.names import UPLOAD_ID_PATTERN

MAX_LIFE: Final = 3_600.0
"""Seconds after which a stream ends, so that a token is checked again."""

SESSION_CHECK: Final = 10.0
"""Seconds between two looks at the caller's token and session: a stream outlives a revocation by no more."""

_MAX_NAMES: Final = 100
_HEADERS: Final = {"X-Accel-Buffering": "no"}
"""nginx would collect events."""

_RIGHTS: Final[Mapping[Scope, tuple[str, ...]]] = {
    Scope.CLIENTS_READ: ("client",),
    Scope.UPLOADS_READ: ("upload",),
    Scope.JOBS_READ: ("job", "execution", "schedule"),
}
"""The families of events that each scope shows; a test compares them with the changes that there are."""

_Name = Annotated[str, *matching(UPLOAD_ID_PATTERN, "must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with no dot")]
_Type = Annotated[str, Field(min_length=1, max_length=64)]
LastEventId = Annotated[
    Annotated[str, *matching(r"^[0-9]{1,18}$", "must be the id of an event")] | None,
    Header(description="The id of the last event that the caller has. `0` asks for all events that are kept."),
]

router = router_of_calls(tags=["events"])


class WhichEvents(Input):
    """Filters of the stream; all that are given must match. `upload` also requests the progress of these uploads."""

    type: Annotated[tuple[_Type, ...], Field(max_length=_MAX_NAMES)] = ()
    client: Annotated[tuple[CheckedClientId, ...], Field(max_length=_MAX_NAMES)] = ()
    job: Annotated[tuple[_Name, ...], Field(max_length=_MAX_NAMES)] = ()
    upload: Annotated[tuple[_Name, ...], Field(max_length=_MAX_NAMES)] = ()
    selector: Annotated[str, Field(max_length=MAX_SELECTOR)] = ""

    @property
    def filter(self) -> ChangeFilter:
        """The filter as the services take it; `BadInput` for a type that does not exist, `SelectorError`."""
        return ChangeFilter(
            types=require_types(self.type, also=(PROGRESS,)),
            clients=frozenset(self.client),
            jobs=frozenset(self.job),
            uploads=frozenset(self.upload),
            selector=parse(self.selector),
        )


def permitted(where: ChangeFilter, principal: Principal) -> ChangeFilter:
    """The filter without the events that the caller has no scope for; `Forbidden` when it names such a type."""
    scope_of = {family: scope for scope, families in _RIGHTS.items() for family in families}
    for name in sorted(where.types):
        require(principal, scope_of[name.partition(".")[0]])
    missing = [scope for scope in _RIGHTS if scope not in principal.scopes]
    if where.types or not missing:
        return where
    return replace(where, types=frozenset(f"{name}.*" for name, scope in scope_of.items() if scope not in missing))


async def _streams_of(request: Request) -> EventStreams:
    streams: EventStreams = request.app.state.streams
    return streams


Streams = Annotated[EventStreams, Depends(_streams_of)]
EventsQuery = Annotated[WhichEvents, Query()]


class EventResponse(Response):
    """An answer that lasts: sends what `stream` has, for at most `life` seconds, and while `signed_in` answers so."""

    media_type = "text/event-stream"

    def __init__(
        self,
        stream: Stream,
        status_code: int = 200,
        *,
        life: float = MAX_LIFE,
        signed_in: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        # FastAPI's OpenAPI document reads the default of `status_code`.
        super().__init__(status_code=status_code, headers=_HEADERS)
        del self.headers["content-length"]
        self._stream = stream
        self._life = life
        self._signed_in = signed_in

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Send until the stream ends; ends it when the caller disconnects."""
        stream = self._stream
        connection = connection_of(scope)
        life = MAX_LIFE * random.uniform(0.9, 1.0)  # noqa: S311 - spreads the reconnects, no secret
        alarm = asyncio.get_running_loop().call_later(min(life, self._life), stream.end)
        watches = [asyncio.create_task(_end_with_caller(stream, receive))]
        if self._signed_in is not None:
            watches.append(asyncio.create_task(_end_with_session(stream, self._signed_in)))
        connection.on_stop = stream.end
        stream.on_cut = connection.abort
        if scope["http_version"] == "1.1":
            # An older caller gets no chunks.
            stream.write = connection.write
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while (data := await stream.next()) is not None:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except ServiceError:
            # The database cannot be used now: the caller connects again, and gets what it missed.
            pass
        finally:
            connection.on_stop = None
            alarm.cancel()
            for watch in watches:
                watch.cancel()
            stream.end()
        if not stream.cut:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _end_with_caller(stream: Stream, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()


async def _end_with_session(stream: Stream, signed_in: Callable[[], Awaitable[bool]]) -> None:
    there = True
    while there:
        await asyncio.sleep(SESSION_CHECK)
        # While the database cannot be used, the stream gets nothing from it either.
        with contextlib.suppress(ServiceError):
            there = await signed_in()
    stream.end()


@router.get(
    "/events",
    operation_id="streamEvents",
    openapi_extra=needs_one_of(*_RIGHTS),
    summary="Follow what changes, as server-sent events",
    response_class=EventResponse,
    responses=problems(422),
)
async def stream_events(
    request: Request, streams: Streams, who: Known, query: EventsQuery, last_event_id: LastEventId = None
) -> Response:
    """Changes in the order of their commits. `Last-Event-ID` resumes; `event: resync` means that some are gone."""
    where = replace(permitted(query.filter, who.principal), reach=reach_of(who.principal))
    stream = await streams.open(where, None if last_event_id is None else int(last_event_id))
    if getattr(request.state, "head", False):
        stream.end()
    life = max(0.0, who.valid_until + LEEWAY - request.app.state.clock.now())
    return EventResponse(stream, life=life, signed_in=_check_of(request, who.principal.token_id))


def _check_of(request: Request, token_id: str | None) -> Callable[[], Awaitable[bool]] | None:
    """Returns whether the caller's session is there and its token not revoked; None for a caller with neither."""
    value = session_of(request)
    if value is None and token_id is None:
        return None
    sessions: SessionService = request.app.state.sessions
    tokens: TokenService = request.app.state.tokens

    async def signed_in() -> bool:
        if token_id is not None and await tokens.is_revoked(token_id):
            return False
        return value is None or await sessions.find(value) is not None

    return signed_in
