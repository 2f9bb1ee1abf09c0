"""An upload that the gate holds: what changes it, what does not, and what ends the hold."""

from typing import Any

import pytest
from msgspec.structs import replace

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import Duty, Kind, duties
from control_plane.domain.uploads.events import (
    CancelRequested,
    DeadlineMoved,
    DeadlinePassed,
    ErrorReported,
    Event,
    GateOpened,
    Held,
    MissingFromHello,
    PartsRequested,
    Progressed,
    SetBack,
    StepTimedOut,
    Succeeded,
)
from control_plane.domain.uploads.machine import apply
from control_plane.domain.uploads.model import TERMINAL, State, Upload
from schemas.parts import MIB
from schemas.values import ErrorCode
from tests.support.uploads import an_offer, an_upload, completing, dispatched, opened, wanted

PAUSED = Reason(ReasonCode.JOB_PAUSED, "an operator paused the job")
HOLD = Held(now=10.0, attempt=1, sequence=1, reason=PAUSED, wake_at=100.0)
OPEN_AGAIN = GateOpened(now=100.0, attempt=1, sequence=1)


def held() -> Upload:
    upload, _ = apply(opened(), HOLD)
    assert upload.held
    return upload


def test_a_held_upload_has_its_grant_due_at_the_end_of_the_wait() -> None:
    upload, effects = apply(opened(), HOLD)
    assert effects == duties(upload) == (Duty(Kind.SEND_GRANT, 1, 100.0),)
    assert (upload.state, upload.reason, upload.touched_at) == (State.IN_PROGRESS, PAUSED, 10.0)
    assert upload.wanted == opened().wanted


@pytest.mark.parametrize(
    "upload",
    [an_upload(), dispatched(), completing(), apply(opened(), CancelRequested(now=5.0))[0]],
    ids=lambda upload: str(upload.state),
)
def test_only_an_upload_that_waits_for_a_grant_can_be_held(upload: Upload) -> None:
    assert apply(upload, HOLD) == (upload, ())


@pytest.mark.parametrize("changes", [{"attempt": 2}, {"sequence": 0}, {"sequence": 2}])
def test_the_word_about_another_request_changes_nothing(changes: dict[str, Any]) -> None:
    for word in (HOLD, OPEN_AGAIN):
        about = type(word)(**{name: getattr(word, name) for name in word.__slots__} | changes)
        for upload in (opened(), held()):
            assert apply(upload, about) == (upload, ())


def test_the_gate_opens_and_the_step_timer_runs_from_then() -> None:
    upload, effects = apply(held(), OPEN_AGAIN)
    assert (upload.held, upload.reason, upload.resume_at, upload.touched_at) == (False, None, 0.0, 100.0)
    assert effects == ()


def test_step_timers_and_strikes_stand_still_while_it_is_held() -> None:
    upload = replace(held(), strikes=2)
    assert apply(upload, StepTimedOut(now=50.0)) == (upload, ())


def test_what_the_client_reports_meanwhile_does_not_hide_the_reason_of_the_gate() -> None:
    upload, _ = apply(held(), Progressed(now=20.0, bytes_sent=7, reason="paused by the owner"))
    assert (upload.held, upload.reason, upload.bytes_sent) == (True, PAUSED, 7)
    assert apply(upload, Progressed(now=50.0, bytes_sent=7, reason="paused by the owner")) == (upload, ())


def test_a_repeated_request_is_told_the_wait_again() -> None:
    upload = held()
    again, effects = apply(upload, an_offer(now=20.0))
    assert again is upload
    assert [(duty.kind, duty.due_at) for duty in effects] == [(Kind.SEND_GRANT, 20.0)]


@pytest.mark.parametrize(
    "event",
    [
        PartsRequested(now=20.0, sequence=2, wanted=wanted(12 * MIB, 2)),
        Succeeded(now=20.0, sequence=2, etags={1: "a", 2: "b", 3: "c"}),
        ErrorReported(now=20.0, sequence=2, code=ErrorCode.STORAGE_UNAVAILABLE),
        ErrorReported(now=20.0, sequence=2, code=ErrorCode.SOURCE_CHANGED),
        MissingFromHello(now=20.0),
        CancelRequested(now=20.0),
        DeadlinePassed(now=1000.0),
        SetBack(now=20.0, attempt=1, setbacks=0, reason=PAUSED, error="x", delay=1.0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_moves_the_upload_on_ends_the_hold(event: Event) -> None:
    after, _ = apply(held(), event)
    assert after.held is False
    assert all(duty.due_at != 100.0 for duty in duties(after))


def test_a_deadline_that_was_moved_counts() -> None:
    upload, effects = apply(opened(), DeadlineMoved(now=5.0, deadline=5000.0))
    assert (upload.deadline, effects) == (5000.0, ())
    assert apply(upload, DeadlinePassed(now=1001.0)) == (upload, ())
    assert apply(upload, DeadlinePassed(now=5000.0))[0].state is State.EXPIRED


def test_the_deadline_of_an_upload_that_is_over_stays() -> None:
    over, _ = apply(opened(), CancelRequested(now=5.0))
    assert over.state in TERMINAL
    assert apply(over, DeadlineMoved(now=6.0, deadline=5000.0)) == (over, ())
    same = opened()
    assert apply(same, DeadlineMoved(now=6.0, deadline=same.deadline))[0] is same
