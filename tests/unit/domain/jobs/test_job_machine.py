"""The state machine of a job.

Rule: the table says what each event does in each state; what it does not list changes nothing, or is refused.
"""

from typing import Final

import pytest
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
from control_plane.domain.jobs.machine import HANDLERS, apply_to_job
from control_plane.domain.jobs.model import ApprovalState, Job, JobOutcome, JobState
from control_plane.domain.reasons import Reason
from tests.support.jobs import NOW, a_job, a_spec

AFTER: Final = NOW + 100_000.0
WHY: Final = Reason("abort", "half of them failed")

EVENTS: Final[dict[str, JobEvent]] = {
    "pause": PauseRequested(now=NOW),
    "resume": ResumeRequested(now=NOW),
    "cancel": JobCancelRequested(now=NOW),
    "deadline": JobDeadlinePassed(now=AFTER),
    "abort": AbortThresholdMet(now=NOW, reason=WHY),
    "stage_pause": StagePaused(now=NOW, reason=WHY),
    "stage": StageBegan(now=NOW, stage=1, below=0.5),
    "ended": AllEnded(now=NOW, done=1, partial=0, other=0),
    "extend": DeadlineExtended(now=NOW, deadline=AFTER * 2),
    "patch": SpecificationChanged(now=NOW, spec=a_spec(priority=9), deadline=AFTER),
    "join": ClientsJoined(now=NOW, count=1, approval=ApprovalState.NOT_NEEDED),
    "ask": ApprovalNeeded(now=NOW),
    "approve": ApprovalGranted(now=NOW, later=True, all_decided=True),
    "retry": JobRetried(now=NOW),
}
RUNNING, PAUSED, CANCELLING = JobState.RUNNING, JobState.PAUSED, JobState.CANCELLING
COMPLETED, CANCELLED = JobState.COMPLETED, JobState.CANCELLED
SAME, REFUSED = "same", "refused"

TABLE: Final[dict[str, dict[JobState, str]]] = {
    "pause": {RUNNING: PAUSED, PAUSED: SAME, CANCELLING: REFUSED, COMPLETED: REFUSED},
    "resume": {RUNNING: SAME, PAUSED: RUNNING, CANCELLING: REFUSED, COMPLETED: REFUSED},
    "cancel": {RUNNING: CANCELLING, PAUSED: CANCELLING, CANCELLING: SAME, COMPLETED: REFUSED, CANCELLED: SAME},
    "deadline": {RUNNING: CANCELLING, PAUSED: CANCELLING, CANCELLING: SAME, COMPLETED: SAME},
    "abort": {RUNNING: CANCELLING, PAUSED: CANCELLING, CANCELLING: SAME, COMPLETED: SAME},
    "stage_pause": {RUNNING: PAUSED, PAUSED: SAME, CANCELLING: SAME, COMPLETED: SAME},
    "stage": {RUNNING: RUNNING, PAUSED: PAUSED, CANCELLING: SAME, COMPLETED: SAME},
    "ended": {RUNNING: COMPLETED, PAUSED: SAME, COMPLETED: SAME},
    "extend": {RUNNING: RUNNING, PAUSED: PAUSED, CANCELLING: REFUSED, COMPLETED: REFUSED},
    "patch": {RUNNING: RUNNING, PAUSED: PAUSED, CANCELLING: REFUSED, COMPLETED: REFUSED},
    "join": {RUNNING: RUNNING, PAUSED: PAUSED, CANCELLING: REFUSED, COMPLETED: REFUSED},
    "ask": {RUNNING: RUNNING, PAUSED: PAUSED},
    "approve": {RUNNING: RUNNING, PAUSED: PAUSED, CANCELLING: REFUSED, COMPLETED: REFUSED},
    "retry": {RUNNING: RUNNING, PAUSED: PAUSED, CANCELLING: REFUSED, COMPLETED: RUNNING, CANCELLED: RUNNING},
}
CASES: Final = [(name, state, after) for name, row in TABLE.items() for state, after in row.items()]


def in_state(state: JobState) -> Job:
    ending = JobState.CANCELLED if state is CANCELLING else None
    return a_job(state=state, ending=ending, held_since=NOW - 10 if state is PAUSED else None)


@pytest.mark.parametrize(("name", "state", "after"), CASES)
def test_each_event_does_what_the_table_lists(name: str, state: JobState, after: str) -> None:
    job = in_state(state)
    if after == REFUSED:
        with pytest.raises(IllegalVerb):
            apply_to_job(job, EVENTS[name])
        return
    result = apply_to_job(job, EVENTS[name])
    assert (result is job) == (after == SAME)
    if after != SAME:
        assert result.state == after


def test_every_event_has_a_handler_and_a_row() -> None:
    assert {type(event) for event in EVENTS.values()} == set(HANDLERS)
    assert TABLE.keys() == EVENTS.keys()


@pytest.mark.parametrize("first", ["cancel", "deadline", "abort"])
@pytest.mark.parametrize("second", ["cancel", "deadline", "abort"])
def test_of_cancel_deadline_and_abort_the_first_wins(first: str, second: str) -> None:
    job = apply_to_job(in_state(RUNNING), EVENTS[first])
    assert apply_to_job(job, EVENTS[second]) is job
    ended = apply_to_job(job, EVENTS["ended"])
    names = {"cancel": JobState.CANCELLED, "deadline": JobState.EXPIRED, "abort": JobState.ABORTED}
    assert (ended.state, ended.ended_at) == (names[first], NOW)


def test_a_deadline_that_is_ahead_ends_nothing() -> None:
    job = in_state(RUNNING)
    assert apply_to_job(job, JobDeadlinePassed(now=job.deadline - 1)) is job


@pytest.mark.parametrize(
    ("done", "partial", "other", "outcome"),
    [
        (3, 0, 0, JobOutcome.ALL),
        (2, 0, 1, JobOutcome.PARTIAL),
        (0, 1, 0, JobOutcome.PARTIAL),
        (0, 0, 2, JobOutcome.NONE),
        (0, 0, 0, JobOutcome.NONE),
    ],
)
def test_the_outcome_follows_from_the_ends(done: int, partial: int, other: int, outcome: JobOutcome) -> None:
    event = AllEnded(now=NOW, done=done, partial=partial, other=other)
    assert apply_to_job(in_state(RUNNING), event).outcome is outcome


def test_only_verbs_and_patches_change_the_version_of_the_specification() -> None:
    job = in_state(RUNNING)
    changes = {name: apply_to_job(job, event).spec_version != job.spec_version for name, event in EVENTS.items()}
    assert {name for name, changed in changes.items() if not changed} == {"resume", "ended", "stage", "join", "ask"}


def test_the_paused_time_is_added_up() -> None:
    job = apply_to_job(a_job(), PauseRequested(now=NOW + 10))
    assert job.held(NOW + 15) == 5
    job = apply_to_job(job, ResumeRequested(now=NOW + 20))
    assert (job.held(NOW + 99), job.held_since) == (10, None)


def test_a_retry_of_a_job_that_is_over_begins_its_next_run() -> None:
    over = a_job(state=JobState.EXPIRED, outcome=JobOutcome.NONE, ended_at=NOW, deadline=NOW - 1)
    with pytest.raises(IllegalVerb):
        apply_to_job(over, JobRetried(now=NOW))
    again = apply_to_job(over, JobRetried(now=NOW, deadline=NOW + 60))
    assert (again.run, again.outcome, again.ended_at, again.deadline) == (2, None, None, NOW + 60)


def test_a_changed_job_is_due_at_once() -> None:
    job = replace(a_job(), next_wake_at=NOW + 500)
    assert apply_to_job(job, PauseRequested(now=NOW)).next_wake_at == NOW
