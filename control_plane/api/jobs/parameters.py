"""Parameters of the calls about jobs, and the services that their routes depend on.

Rule: as in `api.parameters`: unknown names in a query are refused.
"""

import re
from typing import Annotated, Final, Self

from fastapi import Depends, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, model_validator

from control_plane.api.bodies import Input, SetName, matching, shown_set
from control_plane.api.jobs import bodies
from control_plane.api.parameters import CheckedClientId, Paged
from control_plane.domain.jobs.model import ExecutionState, FileOutcome, JobState
from control_plane.services.clients.sets import ShownSet
from control_plane.services.jobs.results.formats import ResultFormat
from control_plane.services.jobs.results.reader import JobResults
from control_plane.services.jobs.service import JobService
from control_plane.services.ports.jobs import ExecutionFilter, FileFilter, JobFilter

_ETAG: Final = re.compile(r'"([0-9]{1,9})"', re.ASCII)
_MOST_CLIENTS: Final = 200

JobId = Annotated[bodies.JobId, Path(description="The job's id.")]
_Clients = Annotated[tuple[CheckedClientId, ...], Field(max_length=_MOST_CLIENTS)]
_ReasonCode = Annotated[str, *matching(r"^[a-z_]{1,64}\Z", "must be a reason code such as no_match")]


class WhichJobs(Paged):
    """Filters of the list of jobs; all that are given must match."""

    state: Annotated[tuple[JobState, ...], Field(max_length=len(JobState))] = ()
    schedule_id: bodies.JobId | None = None

    @property
    def where(self) -> JobFilter:
        """As the service takes it."""
        return JobFilter(frozenset(self.state) or None, self.schedule_id)


class WhichExecutions(Paged):
    """Filters of the executions of a job; all that are given must match."""

    state: Annotated[tuple[ExecutionState, ...], Field(max_length=len(ExecutionState))] = ()
    reason_code: _ReasonCode | None = None
    client: _Clients = ()

    def of(self, job_id: str) -> ExecutionFilter:
        """As the service takes it."""
        return ExecutionFilter(job_id, frozenset(self.state) or None, self.reason_code, frozenset(self.client) or None)


class WhichJobFiles(Paged):
    """Filters of the files of a job; `undecided` are those that are to be sent, or are being sent."""

    client: CheckedClientId | None = None
    outcome: Annotated[tuple[FileOutcome, ...], Field(max_length=len(FileOutcome))] = ()
    undecided: bool = False

    def of(self, job_id: str) -> FileFilter:
        """As the service takes it."""
        return FileFilter(job_id, self.client, frozenset(self.outcome) or None, self.undecided)


class WhichResults(Input):
    """The form of the results."""

    format: ResultFormat = ResultFormat.JSONL


class DryRunQuery(Input):
    """Whether only to check; and the `count` and `set` of the clients that were shown, which must still be meant."""

    dry_run: bool = False
    count: Annotated[int, Field(ge=0)] | None = None
    set: SetName | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        shown_set(self.count, self.set)
        return self

    @property
    def shown(self) -> ShownSet | None:
        """As the service takes it."""
        return shown_set(self.count, self.set)


async def version_of(
    if_match: Annotated[
        str | None, Header(description='The `ETag` of the job that is changed, such as `"3"`.', examples=['"3"'])
    ] = None,
) -> int | None:
    """The version that the request names."""
    if if_match is None:
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        error = {
            "loc": ("header", "If-Match"),
            "msg": 'must be the ETag of the job, such as "3"',
            "type": "value_error",
        }
        raise RequestValidationError([error])
    return int(found[1])


async def jobs_of(request: Request) -> JobService:
    """The use cases of jobs."""
    jobs: JobService = request.app.state.jobs
    return jobs


async def results_of(request: Request) -> JobResults:
    """The results of jobs."""
    results: JobResults = request.app.state.job_results
    return results


Jobs = Annotated[JobService, Depends(jobs_of)]
Results = Annotated[JobResults, Depends(results_of)]
Version = Annotated[int | None, Depends(version_of)]
JobsQuery = Annotated[WhichJobs, Query()]
ExecutionsQuery = Annotated[WhichExecutions, Query()]
JobFilesQuery = Annotated[WhichJobFiles, Query()]
ResultsQuery = Annotated[WhichResults, Query()]
CreateQuery = Annotated[DryRunQuery, Query()]
