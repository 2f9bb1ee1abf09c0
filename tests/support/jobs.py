"""Examples of jobs, executions and files.

Rule: every example is complete; a test changes the fields that it is about.
"""

import itertools
from typing import Final

from msgspec.structs import replace

from control_plane.domain.jobs.model import Execution, Job, JobFile, place_of
from control_plane.domain.jobs.spec import FileQuery, JobSpec, Targets

_fresh: Final = itertools.count(1)
NOW: Final = 1_000_000.0


def a_spec(**changes: object) -> JobSpec:
    """A request for the log files of every client."""
    spec = JobSpec(targets=Targets(clients=("*",)), files=FileQuery(paths=("/data/*.log",)))
    return replace(spec, **changes)


def a_job(job_id: str = "", **changes: object) -> Job:
    """A running job with an id of its own."""
    job = Job(job_id=job_id or f"job-{next(_fresh)}", spec=a_spec(), created_at=NOW, deadline=NOW + 86_400.0)
    return replace(job, **changes)


def an_execution(job_id: str, client_id: str = "restaurant-1", **changes: object) -> Execution:
    """A queued execution that is due."""
    execution = Execution(
        job_id=job_id,
        client_id=client_id,
        place=place_of(job_id, client_id),
        created_at=NOW,
        updated_at=NOW,
        due_at=NOW,
    )
    return replace(execution, **changes)


def a_file(execution: Execution, n: int = 1, **changes: object) -> JobFile:
    """A selected file of the execution."""
    file = JobFile(
        job_id=execution.job_id, client_id=execution.client_id, n=n, path=f"/data/{n}.log", size=100 * n, mtime_ns=n
    )
    return replace(file, **changes)
