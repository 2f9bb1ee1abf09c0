"""What explains a job and its executions: counts, sums, and why each of them waits.

Rule: an execution stores what its own last transition wrote. What holds back its job (a pause, a window, a stage) is
stored there once, and whether its client is connected is known of the client; both are joined when it is read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from control_plane.domain.clients import Client
from control_plane.domain.jobs.model import Counts, Execution, ExecutionState, Job, JobTotals, in_state
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.selectors import Selector
from control_plane.services.clients.beats import Beats
from control_plane.services.clients.reach import same_reach
from control_plane.services.ports.database import PARKED, Page, Records
from control_plane.services.ports.jobs import ExecutionFilter

_OF_THE_WHOLE = "it is about the whole job, which has clients that this token does not have"
_NOT_BEGUN = frozenset({ExecutionState.QUEUED, ExecutionState.AWAITING_APPROVAL})


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its roll-up: executions by state and reason code, and sums over their files."""

    job: Job
    counts: Counts
    totals: JobTotals

    def count(self, *states: ExecutionState) -> int:
        """Executions in one of these states."""
        return in_state(self.counts, *states)


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """An execution; the nearest reason why it waits or how it ended, and when its next step is due (s), if known."""

    execution: Execution
    reason: Reason
    next_wake_at: float | None


def job_views(records: Records, jobs: Sequence[Job], reach: Selector | None = None) -> list[JobView]:
    """The views of these jobs, in their order; with `reach`, as `seen_within` shows them."""
    job_ids = [job.job_id for job in jobs]
    if reach is not None:
        sums = records.jobs.sums_within(job_ids, reach)
        return [seen_within(job, reach, *sums.get(job.job_id, ({}, JobTotals()))) for job in jobs]
    counts = records.jobs.counts_of(job_ids)
    return [JobView(job, counts.get(job.job_id, {}), records.jobs.totals(job.job_id)) for job in jobs]


def seen_within(job: Job, reach: Selector, counts: Counts, totals: JobTotals) -> JobView:
    """A job as a caller with this reach sees it: counts and sums of the clients in it only.

    Of a job that a caller with another reach made, it sees neither which clients were requested, nor the numbers in the
    reason of the whole job.
    """
    job = replace(job, clients=sum(counts.values()))
    return JobView(job if is_of(job, reach) else _without_others(job), counts, totals)


def sees_job(records: Records, job: Job, reach: Selector) -> bool:
    """Whether a caller with this reach sees the job: it made it, or a client of it is within."""
    where = ExecutionFilter(job.job_id, reach=reach)
    return is_of(job, reach) or bool(records.jobs.executions.list(where, Page(1))[0])


def is_of(job: Job, reach: Selector) -> bool:
    """Whether the job was requested with this reach."""
    return same_reach(job.spec.targets.reach, reach.text)


def _without_others(job: Job) -> Job:
    targets = replace(job.spec.targets, clients=(), selector=None)
    reason = None if job.reason is None else Reason(job.reason.code, _OF_THE_WHOLE)
    return replace(job, spec=replace(job.spec, targets=targets), reason=reason)


def execution_views(
    job: Job, executions: Iterable[Execution], clients: Mapping[str, Client], beats: Beats, now: float
) -> list[ExecutionView]:
    """The views of executions of one job at `now` (s), in their order."""
    return [_view(job, execution, clients.get(execution.client_id), beats, now) for execution in executions]


def _view(job: Job, execution: Execution, client: Client | None, beats: Beats, now: float) -> ExecutionView:
    if not execution.open:
        return ExecutionView(execution, execution.reason, None)
    wakes = [at for at in (execution.due_at, job.deadline) if at is not None and at < PARKED]
    next_at = max(now, min(wakes)) if wakes else None
    return ExecutionView(execution, _reason(job, execution, client, beats, now), next_at)


def _reason(job: Job, execution: Execution, client: Client | None, beats: Beats, now: float) -> Reason:
    if client is None:
        return Reason(ReasonCode.CLIENT_UNKNOWN, "the client is not known")
    if job.reason is not None and execution.state in _NOT_BEGUN:
        return job.reason
    return beats.latest(client).waiting_for(now) or execution.reason
