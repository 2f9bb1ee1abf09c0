"""Jobs over REST: create, look, steer, results.

Rule: thin. `ETag` is the version of the job's specification; a list names its next page in `Link` and in `cursor`.
"""

import hashlib
import json
from http import HTTPStatus

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from control_plane.api.auth import Caller, needs
from control_plane.api.documents import problems
from control_plane.api.gates import discloses
from control_plane.api.jobs import models
from control_plane.api.jobs.bodies import (
    AddClientsBody,
    ApproveBody,
    ExtendBody,
    JobPatch,
    NewJob,
    RejectBody,
    RetryBody,
    seconds_until,
)
from control_plane.api.jobs.parameters import (
    CreateQuery,
    ExecutionsQuery,
    JobFilesQuery,
    JobId,
    Jobs,
    JobsQuery,
    Results,
    ResultsQuery,
    Version,
)
from control_plane.api.parameters import Now
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope, require
from control_plane.services.jobs.results.formats import LISTS, MEDIA_TYPES
from control_plane.services.jobs.service import ActedOn, JobRequest

router = router_of_calls(tags=["jobs"])


@router.post(
    "/jobs",
    operation_id="createJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Request files of many clients",
    status_code=HTTPStatus.CREATED,
    response_model=models.JobDocument | models.DryRunDocument,
    responses={
        HTTPStatus.OK: {
            "description": "A repeat of the same request, or a dry run",
            "model": models.JobDocument | models.DryRunDocument,
        },
        **problems(400, 404, 409, 415, 422),
    },
)
async def create_job(
    response: Response, jobs: Jobs, caller: Caller, now: Now, query: CreateQuery, body: NewJob
) -> models.JobDocument | models.DryRunDocument:
    """Create a job. The same id with the same body is the same job. `dry_run` makes every check and nothing else."""
    request = JobRequest(body.spec(now), _digest(body), body.job_id)
    if query.dry_run:
        response.status_code = HTTPStatus.OK
        return models.DryRunDocument.of(await jobs.try_out(caller, request))
    view, made = await jobs.create(caller, request, query.shown)
    if not made:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/jobs/{view.job.job_id}"
    return _tagged(response, models.JobDocument.of(view))


@router.get(
    "/jobs",
    operation_id="listJobs",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="List jobs, newest first",
    responses=problems(422),
)
async def list_jobs(
    request: Request, response: Response, jobs: Jobs, caller: Caller, query: JobsQuery
) -> models.JobPageDocument:
    """Jobs with their roll-up, newest first."""
    found, cursor = await jobs.jobs(caller, query.where, query.page)
    _link(request, response, cursor)
    return models.JobPageDocument(jobs=[models.JobRow.of(view) for view in found], cursor=cursor)


@router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="Look at one job",
    responses=problems(404, 422),
)
async def get_job(response: Response, job_id: JobId, jobs: Jobs, caller: Caller) -> models.JobDocument:
    """One job: its state, why it waits, its executions by state and reason, its specification."""
    return _tagged(response, models.JobDocument.of(await jobs.job(caller, job_id)))


@router.patch(
    "/jobs/{job_id}",
    operation_id="tuneJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Retune a job that runs",
    responses=problems(400, 404, 409, 412, 415, 422, 428),
)
async def tune_job(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, now: Now, version: Version, body: JobPatch
) -> models.JobDocument:
    """Change rate, cap, priority, windows or deadline; effective with the next grant. `If-Match` is required."""
    acted = await jobs.tune(caller, job_id, version, body.tuning(now))
    return _tagged(response, models.JobDocument.of(acted.view))


@router.post(
    "/jobs/{job_id}/pause",
    operation_id="pauseJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Pause a job",
    responses=problems(404, 409, 412, 422),
)
async def pause_job(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, version: Version
) -> models.ActDocument:
    """Begin nothing more, and grant nothing more. The deadline keeps running."""
    return _acted(response, await jobs.pause(caller, job_id, version))


@router.post(
    "/jobs/{job_id}/resume",
    operation_id="resumeJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Resume a job",
    responses=problems(404, 409, 412, 422),
)
async def resume_job(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, version: Version
) -> models.ActDocument:
    """Continue where it was paused; what ended stays as it is."""
    return _acted(response, await jobs.resume(caller, job_id, version))


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Cancel a job",
    responses=problems(404, 409, 412, 422),
)
async def cancel_job(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, version: Version
) -> models.ActDocument:
    """End a job: what did not begin never begins, and open uploads are cancelled."""
    return _acted(response, await jobs.cancel(caller, job_id, version))


@router.post(
    "/jobs/{job_id}/extend",
    operation_id="extendJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Move the deadline of a job",
    responses=problems(400, 404, 409, 412, 415, 422, 428),
)
async def extend_job(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, now: Now, version: Version, body: ExtendBody
) -> models.ActDocument:
    """Move the deadline, and that of every open upload. `If-Match` is required."""
    return _acted(response, await jobs.extend(caller, job_id, version, now + seconds_until(body.deadline, now)))


@router.post(
    "/jobs/{job_id}/approve",
    operation_id="approveJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Approve what a job would send",
    responses=problems(400, 404, 409, 415, 422),
)
async def approve_job(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, body: ApproveBody
) -> models.ActDocument:
    """Approve what was listed up to `as_of`; 409 when what was shown of a named client changed since."""
    acted = await jobs.approve(
        caller,
        job_id,
        client_ids=None if body.clients is None else frozenset(body.clients),
        but=frozenset(body.but),
        as_of=body.as_of.timestamp(),
        later=body.later == "approve",
        shown=body.shown,
    )
    return _acted(response, acted)


@router.post(
    "/jobs/{job_id}/reject",
    operation_id="rejectJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Refuse what some clients would send",
    responses=problems(400, 404, 409, 415, 422),
)
async def reject_job(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, body: RejectBody
) -> models.ActDocument:
    """End executions that wait for approval as `rejected`."""
    return _acted(response, await jobs.reject(caller, job_id, body.where.choice))


@router.post(
    "/jobs/{job_id}/retry",
    operation_id="retryJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Repeat executions that are over",
    responses=problems(400, 404, 409, 412, 415, 422, 428),
)
async def retry_job(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, now: Now, version: Version, body: RetryBody
) -> models.ActDocument:
    """Queue executions again; a job that is over begins again. `If-Match` is required."""
    deadline = None if body.deadline is None else now + seconds_until(body.deadline, now)
    return _acted(response, await jobs.retry(caller, job_id, version, body.where.choice, deadline))


@router.post(
    "/jobs/{job_id}/add-clients",
    operation_id="addClientsToJob",
    openapi_extra=needs(Scope.JOBS_WRITE),
    summary="Add clients to a job",
    responses=problems(400, 404, 409, 415, 422),
)
async def add_clients(
    response: Response, job_id: JobId, jobs: Jobs, caller: Caller, body: AddClientsBody
) -> models.ActDocument:
    """Add clients to a snapshot; one that belongs to the job already is left as it is."""
    return _acted(response, await jobs.add_clients(caller, job_id, body.clients, body.selector))


@router.get(
    "/jobs/{job_id}/executions",
    operation_id="listExecutions",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="List the executions of a job",
    responses=problems(404, 422),
)
async def list_executions(
    request: Request, response: Response, job_id: JobId, jobs: Jobs, caller: Caller, query: ExecutionsQuery
) -> models.ExecutionPageDocument:
    """Executions by client id; the first page of a filter has `count` and `set` of all that match, for a bulk act."""
    views, cursor, shown = await jobs.executions(caller, query.of(job_id), query.page)
    _link(request, response, cursor)
    return models.ExecutionPageDocument.of(views, cursor, shown)


@router.get(
    "/jobs/{job_id}/files",
    operation_id="listJobFiles",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="List the files of a job",
    responses=problems(404, 422),
)
async def list_files(
    request: Request, response: Response, job_id: JobId, jobs: Jobs, caller: Caller, query: JobFilesQuery
) -> models.JobFilePageDocument:
    """Selected files by client id and number."""
    discloses(request, job_id=job_id)
    found, cursor = await jobs.files(caller, query.of(job_id), query.page)
    _link(request, response, cursor)
    return models.JobFilePageDocument(files=[models.JobFileDocument.of(file) for file in found], cursor=cursor)


@router.get(
    "/jobs/{job_id}/manifest",
    operation_id="getManifest",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="Look at what a job would send",
    responses=problems(404, 422),
)
async def get_manifest(
    request: Request, response: Response, job_id: JobId, jobs: Jobs, caller: Caller, query: ExecutionsQuery
) -> models.ManifestDocument:
    """Totals, the largest clients and files, and clients by id; `as_of` is what an approval names."""
    discloses(request, job_id=job_id)
    found = await jobs.manifest(caller, query.of(job_id), query.page)
    _link(request, response, found.cursor)
    return models.ManifestDocument.of(found)


@router.get(
    "/jobs/{job_id}/results",
    operation_id="getResults",
    openapi_extra=needs(Scope.JOBS_READ),
    summary="Read what became of each file",
    response_class=StreamingResponse,
    responses={
        HTTPStatus.OK: {
            "description": "A line a file; or a list of URLs for curl or aria2",
            "content": {media: {"schema": {"type": "string"}} for media in dict.fromkeys(MEDIA_TYPES.values())},
        },
        **problems(404, 422),
    },
)
async def get_results(
    request: Request, job_id: JobId, results: Results, caller: Caller, query: ResultsQuery
) -> StreamingResponse:
    """Results as JSON lines or CSV; `curl` and `aria2` are download lists that need nothing of Backhaul.

    A download list reads objects: it needs the scope `objects:read` too.
    """
    discloses(request, job_id=job_id, format=query.format)
    if query.format in LISTS:
        require(caller, Scope.OBJECTS_READ)
    text = await results.read(caller, job_id, query.format)
    return StreamingResponse(text, media_type=MEDIA_TYPES[query.format])


def _digest(body: NewJob) -> str:
    """One digest for every spelling of a request: order, spaces, units, defaults given or left out."""
    canonical = json.dumps(body.model_dump(exclude={"job_id"}), default=str, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _tagged(response: Response, document: models.JobDocument) -> models.JobDocument:
    response.headers["ETag"] = f'"{document.version}"'
    return document


def _acted(response: Response, acted: ActedOn) -> models.ActDocument:
    document = models.ActDocument.of(acted)
    _tagged(response, document.job)
    return document


def _link(request: Request, response: Response, cursor: str | None) -> None:
    if cursor is not None:
        following = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
