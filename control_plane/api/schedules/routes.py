"""Schedules over REST: create, look, steer, backfill, coverage.

Rule: thin; `If-Match` is required where a specification is replaced.
"""

import re
from typing import Annotated, Final

from fastapi import Body, Depends, Header, Path, Query, Request, Response

from control_plane.api.auth import Caller, needs
from control_plane.api.documents import Responses, problems
from control_plane.api.parameters import Paged
from control_plane.api.schedules import models
from control_plane.api.schedules.bodies import (
    BackfillBody,
    HowMany,
    NewSchedule,
    PauseBody,
    ScheduleBody,
    ScheduleId,
    Trial,
    WhichCells,
    WhichRuns,
)
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.services.errors import BadInput, ConditionMissing
from control_plane.services.ports.schedules import RunFilter
from control_plane.services.schedules.service import ScheduleService

router = router_of_calls(prefix="/schedules", tags=["schedules"])
_EXISTED: Final[Responses] = {
    200: {
        "model": models.ScheduleDryRun | models.ScheduleDocument,
        "description": "It existed, or `dry_run`",
    }
}
_ETAG: Final = re.compile(r'(?:W/)?"?([0-9]{1,9})"?', re.ASCII)


async def schedules_of(request: Request) -> ScheduleService:
    """The use cases of schedules."""
    schedules: ScheduleService = request.app.state.schedules
    return schedules


Schedules = Annotated[ScheduleService, Depends(schedules_of)]
Id = Annotated[ScheduleId, Path(description="The schedule's id.")]
IfMatch = Annotated[str | None, Header(description="The version that is replaced, as `ETag` has it.")]
PauseInput = Annotated[PauseBody | None, Body(description="May be left out.")]


@router.post(
    "",
    operation_id="createSchedule",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Create a schedule",
    status_code=201,
    responses={**_EXISTED, **problems(400, 404, 409, 415, 422)},
)
async def create_schedule(
    body: NewSchedule, schedules: Schedules, caller: Caller, response: Response, query: Annotated[Trial, Query()]
) -> models.ScheduleDryRun | models.ScheduleDocument:
    """Create a schedule, which ticks from now on. The same id with the same body is the same schedule."""
    created = await schedules.create(caller, body.schedule_id, body.spec(), dry_run=query.dry_run)
    if query.dry_run:
        response.status_code = 200
        return models.ScheduleDryRun.tried(created)
    document = models.ScheduleDocument.made(created)
    response.status_code = 201 if created.new else 200
    response.headers["Location"] = f"/schedules/{document.schedule_id}"
    response.headers["ETag"] = f'"{document.version}"'
    return document


@router.get(
    "",
    operation_id="listSchedules",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="List schedules",
    responses=problems(422),
)
async def list_schedules(
    schedules: Schedules, caller: Caller, query: Annotated[Paged, Query()]
) -> models.SchedulePageDocument:
    """Every schedule, by id."""
    found, cursor = await schedules.schedules(caller, query.page)
    return models.SchedulePageDocument(schedules=[models.ScheduleRow.of(view) for view in found], cursor=cursor)


@router.get(
    "/{schedule_id}",
    operation_id="getSchedule",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="Look at one schedule",
    responses=problems(404, 422),
)
async def get_schedule(
    schedule_id: Id, schedules: Schedules, caller: Caller, response: Response
) -> models.ScheduleDocument:
    """What it requests, when it ticks next, and what it does now."""
    document = models.ScheduleDocument.of(await schedules.show(caller, schedule_id))
    response.headers["ETag"] = f'"{document.version}"'
    return document


@router.put(
    "/{schedule_id}",
    operation_id="replaceSchedule",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Replace what a schedule requests",
    responses=problems(400, 404, 412, 415, 422, 428),
)
async def replace_schedule(
    schedule_id: Id,
    body: ScheduleBody,
    schedules: Schedules,
    caller: Caller,
    response: Response,
    if_match: IfMatch = None,
) -> models.ScheduleDocument:
    """From now on; ticks and jobs that were made stay as they are."""
    view = await schedules.replace(caller, schedule_id, body.spec(), _version(if_match))
    document = models.ScheduleDocument.of(view)
    response.headers["ETag"] = f'"{document.version}"'
    return document


@router.delete(
    "/{schedule_id}",
    operation_id="deleteSchedule",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Delete a schedule",
    status_code=204,
    response_class=Response,
    responses=problems(404, 422),
)
async def delete_schedule(schedule_id: Id, schedules: Schedules, caller: Caller) -> None:
    """Delete a schedule with its runs and its coverage; its jobs continue."""
    await schedules.delete(caller, schedule_id)


@router.post(
    "/{schedule_id}/pause",
    operation_id="pauseSchedule",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Pause a schedule",
    responses=problems(400, 404, 415, 422),
)
async def pause_schedule(
    schedule_id: Id, schedules: Schedules, caller: Caller, body: PauseInput = None
) -> models.ScheduleDocument:
    """Its ticks are accounted for as `paused`, and its queue waits; jobs that run continue."""
    note = "" if body is None else body.note
    return models.ScheduleDocument.of(await schedules.pause(caller, schedule_id, note))


@router.post(
    "/{schedule_id}/resume",
    operation_id="resumeSchedule",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Resume a schedule",
    responses=problems(404, 422),
)
async def resume_schedule(schedule_id: Id, schedules: Schedules, caller: Caller) -> models.ScheduleDocument:
    """Ticks of the pause are not made up for; a backfill makes them."""
    return models.ScheduleDocument.of(await schedules.resume(caller, schedule_id))


@router.post(
    "/{schedule_id}/skip-next",
    operation_id="skipNextTick",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Skip the next tick",
    responses=problems(404, 422),
)
async def skip_next(schedule_id: Id, schedules: Schedules, caller: Caller) -> models.ScheduleDocument:
    """A repeat before that tick skips the same one."""
    return models.ScheduleDocument.of(await schedules.skip_next(caller, schedule_id))


@router.post(
    "/{schedule_id}/run-now",
    operation_id="runScheduleNow",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Make a job of a schedule now",
    status_code=201,
    responses=problems(404, 422),
)
async def run_now(schedule_id: Id, schedules: Schedules, caller: Caller, response: Response) -> models.RunDocument:
    """Also while the schedule is paused, or a job of it runs. It moves no tick."""
    run = await schedules.run_now(caller, schedule_id)
    response.headers["Location"] = f"/jobs/{run.job_id}"
    return models.RunDocument.of(run)


@router.post(
    "/{schedule_id}/backfill",
    operation_id="backfillSchedule",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Make up for the ticks of a span",
    responses=problems(400, 404, 415, 422),
)
async def backfill(
    schedule_id: Id, body: BackfillBody, schedules: Schedules, caller: Caller
) -> models.BackfilledDocument:
    """Queue every tick of the span that has no job. They run oldest first, one at a time."""
    return models.BackfilledDocument.of(await schedules.backfill(caller, schedule_id, body.since, body.until))


@router.get(
    "/{schedule_id}/preview",
    operation_id="previewSchedule",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="Show the next ticks",
    responses=problems(404, 422),
)
async def preview(
    schedule_id: Id, schedules: Schedules, caller: Caller, query: Annotated[HowMany, Query()]
) -> models.Preview:
    """In UTC and in local time, with a note where a change of the clocks moves a tick."""
    found = await schedules.preview(caller, schedule_id, query.count)
    return models.Preview(ticks=[models.TickDocument.of(tick) for tick in found])


@router.get(
    "/{schedule_id}/runs",
    operation_id="listRuns",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="List the runs of a schedule",
    responses=problems(404, 422),
)
async def list_runs(
    schedule_id: Id, schedules: Schedules, caller: Caller, query: Annotated[WhichRuns, Query()]
) -> models.RunPageDocument:
    """Every tick that was due, and what became of it; the latest first."""
    where = RunFilter(
        schedule_id,
        kinds=None if query.kind is None else frozenset({query.kind}),
        statuses=None if query.status is None else frozenset({query.status}),
        since=query.since,
        until=query.until,
    )
    found, cursor = await schedules.runs(caller, where, query.page)
    return models.RunPageDocument(runs=[models.RunDocument.of(run) for run in found], cursor=cursor)


@router.get(
    "/{schedule_id}/coverage",
    operation_id="getCoverage",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="Which client's files of which tick are proven, or missing",
    response_model=models.CoverageDocument,
    responses=problems(404, 422),
)
async def coverage(
    schedule_id: Id, schedules: Schedules, caller: Caller, query: Annotated[WhichCells, Query()]
) -> Response:
    """Sums for every tick of the span, and a page of clients with their cells."""
    found = await schedules.coverage(
        caller, schedule_id, query.page, since=query.since, until=query.until, state=query.state
    )
    return Response(models.coverage_json(schedule_id, found), media_type="application/json")


def _version(if_match: str | None) -> int:
    if if_match is None:
        message = "send If-Match with the version that you replace, as ETag has it"
        raise ConditionMissing(message)
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        message = f"If-Match is {if_match[:64]!r}: no version of a schedule"
        raise BadInput(message)
    return int(found[1])
