"""A new job, and clients that join one.

Rule: synchronous, in a transaction of the caller: a schedule inserts its run in the same one. n clients accepted are n
executions.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

from control_plane.domain.changes import Change
from control_plane.domain.jobs.events import StageBegan
from control_plane.domain.jobs.four_eyes import OFF, FourEyes
from control_plane.domain.jobs.machine import apply_to_job
from control_plane.domain.jobs.model import ApprovalState, Execution, Job, place_of
from control_plane.domain.jobs.rollout import stage_size
from control_plane.domain.jobs.spec import JobSpec
from control_plane.services.clients.targeting import resolve
from control_plane.services.jobs.turn import execution_changed, job_changed
from control_plane.services.ports.database import Records

BATCH: Final = 1_000
"""Executions that are made at once."""


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
    *,
    four_eyes: FourEyes = OFF,
) -> Job:
    """Insert a job with an execution for each client that its targets mean now, or for `client_ids`.

    `four_eyes` tightens the approval that it needs.

    `KeyTaken` when the id is in use; `UnknownClient`, `BadInput`, `SelectorError` from the targets. Call it before any
    other change is appended: it appends changes itself.
    """
    targets = spec.targets
    if client_ids is None:
        client_ids = resolve(records, targets.clients, targets.selector, targets.reach).client_ids
    spec = four_eyes.tightened(spec, selected=any_selected(records, four_eyes, client_ids))
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
    if spec.rollout.stages:
        places = sorted(place_of(job_id, client_id) for client_id in client_ids)
        size = stage_size(job, 0)
        below = places[size - 1] if 0 < size < len(places) else 1.0
        job = apply_to_job(job, StageBegan(now=now, stage=0, below=below))
    records.jobs.add(job)
    _insert(records, job, client_ids, now, [job_changed(None, job, now)])
    return job


def any_selected(records: Records, four_eyes: FourEyes, client_ids: Sequence[str]) -> bool:
    """Whether a second person must approve what one of these clients sends, by the labels that it has now."""
    return four_eyes.selector is not None and bool(records.clients.selected(client_ids, four_eyes.selector))


def approval_for(spec: JobSpec, clients: int) -> ApprovalState:
    """What a job of so many clients needs before its files are known."""
    over = spec.approval.clients_over
    limited = spec.approval.mode == "limits" and over is not None and clients > over
    return ApprovalState.PENDING if limited or spec.approval.mode == "always" else ApprovalState.NOT_NEEDED


def add_clients(records: Records, job: Job, client_ids: Sequence[str], now: float) -> ApprovalState:
    """Insert executions for clients that have none; returns what approval the job needs with them."""
    _insert(records, job, client_ids, now)
    return approval_for(job.spec, job.clients + len(client_ids))


def _insert(records: Records, job: Job, client_ids: Sequence[str], now: float, changes: Sequence[Change] = ()) -> None:
    """Insert an execution for each client, and append `changes` and theirs; only a batch of them is in memory."""
    batches = [client_ids[start : start + BATCH] for start in range(0, len(client_ids), BATCH)]
    for batch in batches:
        records.jobs.executions.add(new_executions(job, batch, now))
    # The log comes last: it holds a lock until the commit.
    added = (execution_changed(None, one, now) for batch in batches for one in new_executions(job, batch, now))
    records.changes.append(chain(changes, added))


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
