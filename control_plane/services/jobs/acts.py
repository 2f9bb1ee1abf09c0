"""Acts of a person on the executions of a job: approve, refuse, repeat, add.

Rule: each is one `JobTurn` in a transaction of the caller, which has read the job in it and finishes the turn.
Executions change by their machine only. What an act does not fit (it is over, it does not wait) stays as it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from control_plane.domain.errors import IllegalVerb
from control_plane.domain.jobs import executions as machine
from control_plane.domain.jobs.events import (
    ApprovalGranted,
    Approved,
    Disapproved,
    ExecutionEvent,
    JobRetried,
    Retried,
)
from control_plane.domain.jobs.machine import ACTIVE
from control_plane.domain.jobs.model import Execution, ExecutionKey, ExecutionState, Job, in_state
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.services.errors import BadInput, JobRefused
from control_plane.services.jobs.due import joins
from control_plane.services.jobs.turn import JobTurn
from control_plane.services.ports.jobs import ExecutionFilter

_WAITING: Final = frozenset({ExecutionState.AWAITING_APPROVAL})
_NAMED: Final = 3


def approve(
    turn: JobTurn, job: Job, where: ExecutionFilter, *, but: frozenset[str], as_of: float, later: bool
) -> list[str]:
    """Approve the executions that were listed up to `as_of` (s): those of `where`, but not of `but`.

    Returns their clients. `BadInput` for a client that `where` names and has no execution of; `JobRefused` when the
    files of one were listed again since, or its execution is over.
    """
    _require_active(job, "approved")
    if where.client_ids is not None:
        _require_shown(turn, job, replace(where, client_ids=where.client_ids - but), as_of)
    waiting = replace(where, states=_WAITING, listed_before=as_of)
    chosen = [one for one in turn.records.jobs.executions.matching(waiting) if one.client_id not in but]
    approved = _apply_each(turn, chosen, Approved(now=turn.now))
    _note_decided(turn, job, len(approved), later=later)
    return approved


def reject(turn: JobTurn, job: Job, client_ids: Iterable[str], by: str) -> list[str]:
    """End the executions of these clients that wait for approval as `rejected`; returns their clients."""
    _require_active(job, "rejected")
    keys = [ExecutionKey(job.job_id, client_id) for client_id in client_ids]
    found = turn.records.jobs.executions.some(keys).values()
    reason = Reason(ReasonCode.BY_OPERATOR, f"refused by {by}" if by else "an operator refused it")
    rejected = _apply_each(turn, found, Disapproved(now=turn.now, reason=reason))
    _note_decided(turn, job, len(rejected), later=False)
    return rejected


def retry(turn: JobTurn, job: Job, client_ids: Sequence[str], deadline: float | None) -> list[str]:
    """Queue the executions of these clients again, as far as they are over and have something to repeat.

    Returns their clients. A job that is over begins again; `deadline` (s) is its new one. `IllegalVerb` while it is
    being cancelled.
    """
    keys = [ExecutionKey(job.job_id, client_id) for client_id in client_ids]
    found = list(turn.records.jobs.executions.some(keys).values())
    event = Retried(now=turn.now)
    if not any(machine.apply(one, event) is not one for one in found):
        return []
    turn.take_job(job)
    turn.apply_to_job(job.job_id, JobRetried(now=turn.now, deadline=deadline))
    return _apply_each(turn, found, event)


def add(turn: JobTurn, job: Job, client_ids: Sequence[str]) -> list[str]:
    """Add executions for clients that have none, and return these clients."""
    _require_active(job, "joined by clients")
    new = sorted(set(client_ids) - turn.records.jobs.executions.clients(job.job_id).keys())
    turn.take_job(job)
    joins(turn, job, new)
    return new


def _apply_each(turn: JobTurn, executions: Iterable[Execution], event: ExecutionEvent) -> list[str]:
    """Apply the event; returns the clients of the executions that it changed."""
    taken = list(executions)
    turn.load(taken)
    return [one.client_id for one in taken if turn.apply(one, event) is not one]


def _note_decided(turn: JobTurn, job: Job, decided: int, *, later: bool) -> None:
    """The job's approval, once nothing waits for it."""
    turn.take_job(turn.jobs.get(job.job_id, job))
    waiting = in_state(turn.records.jobs.counts(job.job_id), *_WAITING) - decided
    if decided or later:
        event = ApprovalGranted(now=turn.now, later=later, all_decided=not waiting)
        turn.apply_to_job(job.job_id, event)


def _require_shown(turn: JobTurn, job: Job, where: ExecutionFilter, as_of: float) -> None:
    found = {one.client_id: one for one in turn.records.jobs.executions.matching(where)}
    if strangers := sorted((where.client_ids or frozenset()) - set(found)):
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
