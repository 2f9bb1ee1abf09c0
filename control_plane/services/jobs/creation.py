"""A new job, and clients that join one.

Rule: synchronous, in a transaction of the caller: a schedule inserts its run in the same one. n clients accepted are n
executions.
"""

from collections.abc import Sequence
from typing import NamedTuple

from control_plane.domain.jobs.events import StageBegan
from control_plane.domain.jobs.machine import apply_to_job
from control_plane.domain.jobs.model import ApprovalState, Execution, Job, place_of
from control_plane.domain.jobs.rollout import stage_size
from control_plane.domain.jobs.spec import JobSpec
from control_plane.services.clients.targeting import resolve
from control_plane.services.jobs.turn import execution_changed, job_changed
from control_plane.services.ports.database import Records


class Nominal(NamedTuple):
    """The run of a schedule that a job is made for."""

    schedule_id: str
    kind: str
    nominal_at: float


def create_job(
    records: Records,
    job_id: str,
    spec: JobSpec,
    now: float,
    created_by: str,
    schedule: tuple[str, str, float] | None = None,
    client_ids: Sequence[str] | None = None,
) -> Job:
    """Insert a job with an execution for each client that its targets mean now, or for `client_ids`.

    `KeyTaken` when the id is in use; `UnknownClient`, `BadInput`, `SelectorError` from the targets. Call it before any
    other change is appended: it appends changes itself.
    """
    targets = spec.targets
    if client_ids is None:
        client_ids = resolve(records, targets.clients, targets.selector).client_ids
    nominal = None if schedule is None else Nominal(*schedule)
    job = Job(
        job_id=job_id,
        spec=spec,
        created_at=now,
        deadline=now + spec.deadline,
        created_by=created_by,
        approval=approval_for(spec, len(client_ids)),
        next_wake_at=now,
        swept_at=now,
        schedule_id=None if nominal is None else nominal.schedule_id,
        kind=None if nominal is None else nominal.kind,
        nominal_at=None if nominal is None else nominal.nominal_at,
        clients=len(client_ids),
        stage_since=now,
    )
    executions = new_executions(job, client_ids, now)
    if spec.rollout.stages:
        places = sorted(execution.place for execution in executions)
        size = stage_size(job, 0)
        below = places[size - 1] if 0 < size < len(places) else 1.0
        job = apply_to_job(job, StageBegan(now=now, stage=0, below=below))
    records.jobs.add(job)
    records.jobs.executions.add(executions)
    records.changes.append(
        [job_changed(None, job, now), *(execution_changed(None, execution, now) for execution in executions)]
    )
    return job


def approval_for(spec: JobSpec, clients: int) -> ApprovalState:
    """What a job of so many clients needs before its files are known."""
    over = spec.approval.clients_over
    limited = spec.approval.mode == "limits" and over is not None and clients > over
    return ApprovalState.PENDING if limited or spec.approval.mode == "always" else ApprovalState.NOT_NEEDED


def add_clients(records: Records, job: Job, client_ids: Sequence[str], now: float) -> ApprovalState:
    """Insert executions for clients that have none; returns what approval the job needs with them."""
    executions = new_executions(job, client_ids, now)
    records.jobs.executions.add(executions)
    records.changes.append([execution_changed(None, execution, now) for execution in executions])
    return approval_for(job.spec, job.clients + len(client_ids))


def new_executions(job: Job, client_ids: Sequence[str], now: float) -> list[Execution]:
    """A queued execution for each client."""
    return [
        Execution(
            job_id=job.job_id,
            client_id=client_id,
            place=place_of(job.job_id, client_id),
            created_at=now,
            updated_at=now,
            due_at=now,
        )
        for client_id in client_ids
    ]
