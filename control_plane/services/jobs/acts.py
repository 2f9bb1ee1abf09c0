"""Acts of a person on the executions of a job: approve, refuse, repeat, add.

Rule: inside one transaction of the caller, which has read the job in it. Executions change by their machine only, and
every change of a state is in the change log.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from control_plane.domain.changes import ExecutionStateChanged, JobStateChanged
from control_plane.domain.errors import IllegalVerb
from control_plane.domain.jobs import executions as machine
from control_plane.domain.jobs.events import Approved, Disapproved, ExecutionEvent, JobEvent, Retried
from control_plane.domain.jobs.machine import ACTIVE, apply_to_job
from control_plane.domain.jobs.model import Execution, ExecutionKey, ExecutionState, Job, JobReason
from control_plane.domain.reasons import Reason
from control_plane.services.errors import BadInput, JobRefused
from control_plane.services.ports.database import Records
from control_plane.services.ports.jobs import ExecutionFilter

_WAITING: Final = frozenset({ExecutionState.AWAITING_APPROVAL})
_NAMED: Final = 3


def approve(
    records: Records,
    job: Job,
    now: float,
    *,
    client_ids: frozenset[str] | None,
    but: frozenset[str],
    as_of: float,
) -> int:
    """Approve the executions that were listed up to `as_of` (s): of these clients, or of all, but not of `but`.

    `JobRefused` when the files of a named client were listed again since, or its execution is over.
    """
    _require_active(job, "approved")
    if client_ids is not None:
        _require_shown(records, job, client_ids - but, as_of)
    where = ExecutionFilter(job.job_id, _WAITING, client_ids=client_ids, listed_before=as_of)
    chosen = [one for one in records.jobs.executions.matching(where) if one.client_id not in but]
    return apply_each(records, chosen, Approved(now=now))


def reject(records: Records, job: Job, now: float, client_ids: Iterable[str], by: str) -> int:
    """End the executions of these clients that wait for approval as `rejected`; others are left as they are."""
    _require_active(job, "rejected")
    where = ExecutionFilter(job.job_id, _WAITING, client_ids=frozenset(client_ids))
    text = f"refused by {by}" if by else "an operator refused it"
    event = Disapproved(now=now, reason=Reason(JobReason.BY_OPERATOR, text))
    return apply_each(records, records.jobs.executions.matching(where), event)


def retry(records: Records, job: Job, now: float, client_ids: Sequence[str]) -> int:
    """Queue the executions of these clients again, as far as they are over and have something to repeat."""
    keys = [ExecutionKey(job.job_id, client_id) for client_id in client_ids]
    return apply_each(records, records.jobs.executions.some(keys).values(), Retried(now=now))


def repeatable(records: Records, job: Job, client_ids: Sequence[str]) -> bool:
    """Whether one of these executions is over and has something to repeat."""
    keys = [ExecutionKey(job.job_id, client_id) for client_id in client_ids]
    event = Retried(now=0.0)
    return any(machine.apply(one, event) is not one for one in records.jobs.executions.some(keys).values())


def apply_job(records: Records, job: Job, event: JobEvent) -> Job:
    """Apply a verb to a job, and store it; `IllegalVerb`. A verb that changes nothing writes nothing."""
    after = apply_to_job(job, event)
    if after is job:
        return job
    after = records.jobs.save(job, after)
    if after.state is not job.state:
        change = JobStateChanged(
            at=event.now, job_id=job.job_id, was=job.state, state=after.state, outcome=after.outcome
        )
        records.changes.append([change])
    return after


def all_decided(records: Records, job: Job) -> bool:
    """Whether no execution waits for approval."""
    counts = records.jobs.counts(job.job_id)
    return not any(n for (state, _), n in counts.items() if state in _WAITING)


def apply_each(records: Records, executions: Iterable[Execution], event: ExecutionEvent) -> int:
    """Apply the event to each, store those that changed, and wake their job; returns the number of those."""
    pairs = [(before, machine.apply(before, event)) for before in executions]
    changed = sorted((pair for pair in pairs if pair[0] is not pair[1]), key=lambda pair: pair[0].key)
    if not changed:
        return 0
    records.jobs.executions.save(changed)
    records.jobs.wake({before.job_id for before, _ in changed}, event.now)
    records.changes.append(
        ExecutionStateChanged(
            at=event.now,
            job_id=after.job_id,
            client_id=after.client_id,
            attempt=after.attempt,
            was=before.state,
            state=after.state,
            reason=after.reason.code,
        )
        for before, after in changed
        if before.state is not after.state
    )
    return len(changed)


def _require_shown(records: Records, job: Job, client_ids: frozenset[str], as_of: float) -> None:
    keys = [ExecutionKey(job.job_id, client_id) for client_id in client_ids]
    found = {one.client_id: one for one in records.jobs.executions.some(keys).values()}
    if strangers := sorted(client_ids - set(found)):
        message = f"no execution of the job has the client {', '.join(strangers[:_NAMED])}"
        raise BadInput(message)
    late = sorted(one.client_id for one in found.values() if not _as_shown(one, as_of))
    if late:
        names = ", ".join(late[:_NAMED]) + ("…" if len(late) > _NAMED else "")
        message = f"{names}: listed again, or over, since the manifest was shown: look at it again"
        raise JobRefused(message, job.state)


def _as_shown(execution: Execution, as_of: float) -> bool:
    """Whether what is to be approved is what was shown; one that is approved already is too."""
    listed = execution.listed_at is not None and execution.listed_at <= as_of
    return listed and (execution.state in _WAITING or execution.approved)


def _require_active(job: Job, verb: str) -> None:
    if job.state not in ACTIVE:
        raise IllegalVerb(verb, job.state)
