"""The fleet in numbers over REST.

Rule: as the routers above. Each number has a list that shows its rows: `state`, `reason_code`, `error` and
`ended_since` of `GET /uploads`, `state` of `GET /clients`.
"""

from typing import Annotated, Any, Final, Self

from fastapi import Depends, Query, Request
from pydantic import ConfigDict, Field

from control_plane.api.auth import Caller, needs
from control_plane.api.bodies import Input
from control_plane.api.documents import problems
from control_plane.api.models import Instant, Output
from control_plane.api.parameters import SinceInstant
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.presentation import known_instant
from control_plane.services.overview.service import MAX_HOURS, FleetNumbers, HourNumbers, OverviewService

router = router_of_calls(tags=["fleet"])

_FLEET: Final[dict[str, Any]] = {
    "as_of": "2025-11-01T10:00:00.000Z",
    "since": "2025-11-01T00:00:00.000Z",
    "clients": {"connected": 41, "offline": 3, "never_seen": 1},
    "open": {"queued": 2, "dispatched": 0, "in_progress": 3, "completing": 1},
    "waiting": [{"code": "uploading", "count": 3}, {"code": "client_offline", "count": 2}],
    "counted": True,
    "ended": {"completed": 120, "failed": 2, "rejected": 0, "cancelled": 1, "expired": 0},
    "bytes": 1_258_291_200,
    "failures": [{"code": "file_not_found", "count": 2}],
    "failures_since": "2025-10-31T10:00:00.000Z",
}
_HOUR: Final[dict[str, Any]] = {"begins_at": "2025-11-01T09:00:00.000Z", "bytes": 104_857_600, "ended": _FLEET["ended"]}


class ClientNumbers(Output):
    """How many clients are in each state."""

    connected: int
    offline: int
    never_seen: int


class CodeNumber(Output):
    """How many uploads have a reason or an error."""

    code: str
    count: int


class FleetDocument(Output):
    """The fleet at `as_of`; `ended` and `bytes` count from `since` on, `failures` from `failures_since` on."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FLEET]})

    as_of: Instant
    since: Instant
    clients: ClientNumbers
    open: Annotated[dict[str, int], Field(description="Uploads that are not over, by state.")]
    waiting: Annotated[
        list[CodeNumber],
        Field(description="The control plane's uploads that are not over, by reason code, also those that move."),
    ]
    counted: Annotated[bool, Field(description="False when `waiting` counts only some of very many.")]
    ended: Annotated[dict[str, int], Field(description="Uploads that ended, by state.")]
    bytes: Annotated[int, Field(description="Bytes of the uploads that were completed.")]
    failures: Annotated[list[CodeNumber], Field(description="The commonest error codes, three at most.")]
    failures_since: Instant

    @classmethod
    def of(cls, found: FleetNumbers) -> Self:
        """The numbers."""
        return cls(
            as_of=known_instant(found.as_of),
            since=known_instant(found.since),
            clients=ClientNumbers(connected=found.connected, offline=found.offline, never_seen=found.never_seen),
            open={state.value: count for state, count in found.open.items()},
            waiting=_numbers(found.waiting),
            counted=found.counted,
            ended={state.value: count for state, count in found.ended.items()},
            bytes=found.bytes,
            failures=_numbers(found.failures),
            failures_since=known_instant(found.failures_since),
        )


class HourDocument(Output):
    """One hour: the bytes of the uploads that were completed, and how many uploads ended in each state."""

    model_config = ConfigDict(json_schema_extra={"examples": [_HOUR]})

    begins_at: Instant
    bytes: int
    ended: dict[str, int]

    @classmethod
    def of(cls, found: HourNumbers) -> Self:
        """The numbers of an hour."""
        ended = {state.value: count for state, count in found.ended.items()}
        return cls(begins_at=known_instant(found.begins_at), bytes=found.bytes, ended=ended)


class FleetHistory(Output):
    """Whole hours, oldest first; the last one is not over."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"hours": [_HOUR]}]})

    hours: list[HourDocument]


class Since(Input):
    """From when what ended is counted: an instant of the last seven days; without it the beginning of today in UTC."""

    since: SinceInstant | None = None


class HowFar(Input):
    """How many hours, with the present one."""

    hours: Annotated[int, Field(ge=1, le=MAX_HOURS)] = 24


async def _overview_of(request: Request) -> OverviewService:
    overview: OverviewService = request.app.state.overview
    return overview


Overview = Annotated[OverviewService, Depends(_overview_of)]


@router.get(
    "/fleet",
    operation_id="getFleet",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="See the fleet in numbers",
    responses=problems(422),
)
async def get_fleet(overview: Overview, caller: Caller, query: Annotated[Since, Query()]) -> FleetDocument:
    """Who is there, what moves, what waits and why, and how it went. Computed at most once a second.

    The numbers of a large fleet may be up to ten seconds old: `as_of` is when they were computed.
    """
    since = None if query.since is None else query.since.timestamp()
    return FleetDocument.of(await overview.fleet(caller, since))


@router.get(
    "/fleet/history",
    operation_id="getFleetHistory",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="See the fleet hour by hour",
    responses=problems(422),
)
async def get_history(overview: Overview, caller: Caller, query: Annotated[HowFar, Query()]) -> FleetHistory:
    """The bytes that arrived, and how uploads ended."""
    found = await overview.history(caller, query.hours)
    return FleetHistory(hours=[HourDocument.of(one) for one in found])


def _numbers(pairs: tuple[tuple[str, int], ...]) -> list[CodeNumber]:
    return [CodeNumber(code=code, count=count) for code, count in pairs]
