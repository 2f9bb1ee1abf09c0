"""What a job would send: totals, the largest clients, and how long it takes.

Rule: read from one snapshot; `as_of` is its instant, and an approval names it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from control_plane.domain.jobs.model import Execution, ExecutionState, Job, JobFile, JobTotals
from control_plane.domain.uploads.model import State
from control_plane.services.jobs.views import JobView
from control_plane.services.ports.database import Page, Records, UploadFilter
from control_plane.services.ports.jobs import ExecutionFilter

LARGEST: Final = 10
_COMPLETED: Final = frozenset({State.COMPLETED})


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One client, and how many seconds its files take at the rate of its last upload; None without one."""

    execution: Execution
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """`waiting` executions await approval. `clients` is one page; `cursor` fetches the next."""

    job: Job
    as_of: float
    totals: JobTotals
    waiting: int
    largest: tuple[ManifestRow, ...]
    largest_files: tuple[JobFile, ...]
    clients: tuple[ManifestRow, ...]
    cursor: str | None


def manifest_of(records: Records, view: JobView, where: ExecutionFilter, page: Page, now: float) -> Manifest:
    """The manifest at `now` (s) of a job as the caller sees it; `where` chooses the clients of its pages.

    Its `reach` holds for all of the manifest. `BadInput` for a malformed cursor.
    """
    job, executions = view.job, records.jobs.executions
    listed = ExecutionFilter(job.job_id, listed_before=now, reach=where.reach)
    found, cursor = executions.list(where, page)
    return Manifest(
        job=job,
        as_of=now,
        totals=view.totals,
        waiting=view.count(ExecutionState.AWAITING_APPROVAL),
        largest=_rows(records, executions.largest(listed, LARGEST)),
        largest_files=tuple(records.jobs.files.largest(job.job_id, LARGEST, where.reach)),
        clients=_rows(records, found),
        cursor=cursor,
    )


def _rows(records: Records, executions: Iterable[Execution]) -> tuple[ManifestRow, ...]:
    return tuple(ManifestRow(one, _seconds(records, one)) for one in executions)


def _seconds(records: Records, execution: Execution) -> float | None:
    """The client's last completed upload measures its rate: from its creation to its end, waits included."""
    left = execution.bytes - execution.proven_bytes
    if left <= 0:
        return 0.0
    last, _ = records.uploads.list(UploadFilter(execution.client_id, _COMPLETED), Page(1))
    if not last or not last[0].file_size or last[0].completed_at is None:
        return None
    return left * max(last[0].completed_at - last[0].created_at, 1.0) / last[0].file_size
