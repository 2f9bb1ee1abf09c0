"""The state machine of a job: `apply_to_job(job, event)` returns the job after it.

Rule: pure; `HANDLERS` has one handler for each event. The same object means that nothing changed. What the runner finds
(deadline, abort, end) changes nothing in a state that forbids it; a verb of an operator raises `IllegalVerb` then, and
a repeat of it changes nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from control_plane.domain.errors import IllegalVerb
from control_plane.domain.jobs.events import (
    AbortThresholdMet,
    AllEnded,
    ApprovalGranted,
    ApprovalNeeded,
    ClientsJoined,
    DeadlineExtended,
    JobCancelRequested,
    JobDeadlinePassed,
    JobEvent,
    JobRetried,
    PauseRequested,
    ResumeRequested,
    SpecificationChanged,
    StageBegan,
    StagePaused,
)
from control_plane.domain.jobs.model import JOB_TERMINAL, ApprovalState, Job, JobOutcome, JobState
from control_plane.domain.reasons import Reason, ReasonCode

ACTIVE: Final = frozenset({JobState.RUNNING, JobState.PAUSED})
"""States in which executions may begin, now or after a resume."""

JobHandler = Callable[[Job, Any], Job]
"""Applies one type of event; the second argument is an event of that type."""


def apply_to_job(job: Job, event: JobEvent) -> Job:
    """The job after `event`; it is due at once when it changed. `IllegalVerb` for a verb that the state forbids."""
    after = HANDLERS[type(event)](job, event)
    return after if after is job else replace(after, next_wake_at=min(job.next_wake_at, event.now))


def _require(job: Job, verb: str, states: frozenset[JobState] = ACTIVE) -> None:
    if job.state not in states:
        raise IllegalVerb(verb, job.state)


def _respecified(job: Job, **changes: Any) -> Job:  # noqa: ANN401 - any field of `Job`
    """The job after a verb: its specification has another version."""
    return replace(job, spec_version=job.spec_version + 1, **changes)


def _resumed(job: Job, now: float) -> Job:
    return replace(job, held_seconds=job.held(now), held_since=None)


def _pause(job: Job, event: PauseRequested) -> Job:
    if job.state is JobState.PAUSED:
        return job
    _require(job, "paused")
    reason = Reason(ReasonCode.PAUSED, "an operator paused it")
    return _respecified(job, state=JobState.PAUSED, held_since=event.now, reason=reason)


def _stage_paused(job: Job, event: StagePaused) -> Job:
    if job.state is not JobState.RUNNING:
        return job
    return _respecified(job, state=JobState.PAUSED, held_since=event.now, reason=event.reason)


def _resume(job: Job, event: ResumeRequested) -> Job:
    if job.state is JobState.RUNNING:
        return job
    _require(job, "resumed")
    return _respecified(_resumed(job, event.now), state=JobState.RUNNING, reason=None)


def _cancel(job: Job, event: JobCancelRequested) -> Job:
    if job.state in {JobState.CANCELLING, JobState.CANCELLED}:
        return job
    _require(job, "cancelled")
    text = f"cancelled by {event.by}" if event.by else "an operator cancelled it"
    return _ending(job, JobState.CANCELLED, event.now, Reason(ReasonCode.CANCELLED, text))


def _deadline_passed(job: Job, event: JobDeadlinePassed) -> Job:
    if job.state not in ACTIVE or event.now < job.deadline:
        return job
    return _ending(
        job, JobState.EXPIRED, event.now, Reason(ReasonCode.DEADLINE_PASSED, "the deadline of the job passed")
    )


def _aborted(job: Job, event: AbortThresholdMet) -> Job:
    return _ending(job, JobState.ABORTED, event.now, event.reason) if job.state in ACTIVE else job


def _ending(job: Job, ending: JobState, now: float, reason: Reason) -> Job:
    return _respecified(_resumed(job, now), state=JobState.CANCELLING, ending=ending, reason=reason)


def _all_ended(job: Job, event: AllEnded) -> Job:
    if job.state not in {JobState.RUNNING, JobState.CANCELLING}:
        return job
    if event.done and not (event.partial or event.other):
        outcome = JobOutcome.ALL
    else:
        outcome = JobOutcome.PARTIAL if event.done or event.partial else JobOutcome.NONE
    state = job.ending or JobState.COMPLETED
    return replace(job, state=state, outcome=outcome, ended_at=event.now, reason=job.reason if job.ending else None)


def _extended(job: Job, event: DeadlineExtended) -> Job:
    _require(job, "extended")
    return job if event.deadline == job.deadline else _respecified(job, deadline=event.deadline)


def _specified(job: Job, event: SpecificationChanged) -> Job:
    _require(job, "changed")
    if (event.spec, event.deadline) == (job.spec, job.deadline):
        return job
    return _respecified(job, spec=event.spec, deadline=event.deadline)


def _stage_began(job: Job, event: StageBegan) -> Job:
    if job.state not in ACTIVE or (event.stage, event.below) == (job.stage, job.stage_below):
        return job
    since = event.now if event.stage != job.stage or not job.stage_since else job.stage_since
    return replace(job, stage=event.stage, stage_below=event.below, stage_since=since)


def _joined(job: Job, event: ClientsJoined) -> Job:
    _require(job, "joined by clients")
    approval = event.approval if job.approval is ApprovalState.NOT_NEEDED else job.approval
    return replace(job, clients=job.clients + event.count, approval=approval) if event.count else job


def _approval_needed(job: Job, _event: ApprovalNeeded) -> Job:
    return job if job.approval is ApprovalState.PENDING else replace(job, approval=ApprovalState.PENDING)


def _approved(job: Job, event: ApprovalGranted) -> Job:
    _require(job, "approved")
    approval = ApprovalState.GRANTED if event.all_decided else job.approval
    later = job.approve_later or event.later
    if (approval, later) == (job.approval, job.approve_later):
        return job
    return _respecified(job, approval=approval, approve_later=later)


def _retried(job: Job, event: JobRetried) -> Job:
    """A job that is over begins again: the next run of it."""
    _require(job, "retried", frozenset(JobState) - {JobState.CANCELLING})
    deadline = job.deadline if event.deadline is None else event.deadline
    if deadline <= event.now:
        verb = "retried without a new deadline"
        raise IllegalVerb(verb, job.state)
    if job.state not in JOB_TERMINAL:
        return _respecified(job, deadline=deadline)
    return _respecified(
        job,
        state=JobState.RUNNING,
        deadline=deadline,
        ending=None,
        outcome=None,
        ended_at=None,
        reason=None,
        run=job.run + 1,
        next_wake_at=event.now,
    )


HANDLERS: Final[Mapping[type[JobEvent], JobHandler]] = {
    PauseRequested: _pause,
    ResumeRequested: _resume,
    JobCancelRequested: _cancel,
    JobDeadlinePassed: _deadline_passed,
    AbortThresholdMet: _aborted,
    StagePaused: _stage_paused,
    StageBegan: _stage_began,
    AllEnded: _all_ended,
    DeadlineExtended: _extended,
    SpecificationChanged: _specified,
    ClientsJoined: _joined,
    ApprovalNeeded: _approval_needed,
    ApprovalGranted: _approved,
    JobRetried: _retried,
}
"""What applies each event."""
