"""The state machine of an execution.

Rule: the table says what each event does in each state; what it does not list changes nothing.
"""

from dataclasses import replace as replace_event
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.jobs.events import (
    Approved,
    Begun,
    Counted,
    Disapproved,
    ExecutionEvent,
    JobFull,
    ListingRefused,
    Looked,
    PageStored,
    Postponed,
    Rejoined,
    Removed,
    Retried,
    SelectionReplaced,
    Stopped,
    WalkReported,
    Withheld,
)
from control_plane.domain.jobs.executions import HANDLERS, PARKED_AT, apply
from control_plane.domain.jobs.model import EXECUTION_OPEN, EXECUTION_TERMINAL, Execution, ExecutionState
from control_plane.domain.jobs.spec import Retry
from control_plane.domain.reasons import Reason
from control_plane.services.ports.database import PARKED
from tests.support.examples import examples
from tests.support.jobs import NOW, an_execution

WHY: Final = Reason("file_not_found", "gone")
S = ExecutionState
NEVER: Final = Retry()


def begun(listing: float | None = 100.0, execution: float | None = 1_000.0) -> Begun:
    return Begun(now=NOW, listing=listing, execution=execution)


def looked(now: float = NOW, *, connected: bool = True, retry: Retry = NEVER, **more: object) -> Looked:
    return replace_event(Looked(now=now, connected=connected, seen_at=now, retry=retry), **cast("dict[str, Any]", more))


def page(**changes: object) -> PageStored:
    one = PageStored(now=NOW, selection="s", matched_files=1, matched_bytes=9, files=1, bytes=9)
    return replace_event(one, **cast("dict[str, Any]", changes))


def counted(now: float = NOW, *, retry: Retry = NEVER, **numbers: int) -> Counted:
    zeros = dict.fromkeys(("open", "pending", "proven", "proven_bytes", "failed", "rejected"), 0)
    worst = WHY if numbers.get("failed") or numbers.get("rejected") else None
    return Counted(now=now, worst=worst, retry=retry, **zeros | numbers)


EVENTS: Final[dict[str, ExecutionEvent]] = {
    "begun": begun(),
    "withheld": Withheld(now=NOW, reason=WHY, due_at=PARKED_AT),
    "looked": looked(),
    "postponed": Postponed(now=NOW, due_at=NOW - 1),
    "walk": WalkReported(now=NOW),
    "page": page(),
    "nothing": page(files=0, matched_files=0),
    "ask": page(ask_first=True),
    "replaced": SelectionReplaced(now=NOW),
    "full": JobFull(now=NOW),
    "refused": ListingRefused(now=NOW, reason=WHY, rejected=True, final=True, retry=Retry()),
    "approved": Approved(now=NOW),
    "disapproved": Disapproved(now=NOW, reason=WHY),
    "proven": counted(proven=1),
    "failed": counted(failed=1),
    "stopped": Stopped(now=NOW, ending=S.CANCELLED, reason=WHY),
    "removed": Removed(now=NOW, reason=WHY),
    "rejoined": Rejoined(now=NOW),
    "retried": Retried(now=NOW),
}

TABLE: Final = {
    S.QUEUED: {"begun": S.LISTING, "withheld": S.QUEUED, "stopped": S.CANCELLED, "removed": S.REMOVED},
    S.LISTING: {
        "looked": S.LISTING,
        "walk": S.LISTING,
        "page": S.UPLOADING,
        "nothing": S.SKIPPED,
        "ask": S.AWAITING_APPROVAL,
        "replaced": S.LISTING,
        "full": S.LISTING,
        "refused": S.REJECTED,
        "stopped": S.CANCELLED,
        "removed": S.REMOVED,
    },
    S.AWAITING_APPROVAL: {
        "looked": S.AWAITING_APPROVAL,
        "approved": S.UPLOADING,
        "disapproved": S.REJECTED,
        "stopped": S.CANCELLED,
        "removed": S.REMOVED,
    },
    S.UPLOADING: {
        "postponed": S.UPLOADING,
        "looked": S.UPLOADING,
        "proven": S.SUCCEEDED,
        "failed": S.FAILED,
        "stopped": S.UPLOADING,
    },
    S.SUCCEEDED: {},
    S.PARTIAL: {"retried": S.QUEUED},
    S.FAILED: {"retried": S.QUEUED},
    S.REJECTED: {"retried": S.QUEUED},
    S.TIMED_OUT: {"retried": S.QUEUED},
    S.CANCELLED: {"retried": S.QUEUED},
    S.REMOVED: {"rejoined": S.QUEUED},
    S.SKIPPED: {"retried": S.QUEUED},
}


def in_state(state: ExecutionState) -> Execution:
    over = state in EXECUTION_TERMINAL
    files = 1 if state in {S.UPLOADING, S.AWAITING_APPROVAL} else 0
    return an_execution("j", state=state, due_at=None if over else NOW, ended_at=NOW if over else None, files=files)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("state", ExecutionState)
def test_each_event_does_what_the_table_lists(state: ExecutionState, name: str) -> None:
    execution = in_state(state)
    after = apply(execution, EVENTS[name])
    if name in TABLE[state]:
        assert after.state is TABLE[state][name]
        assert after is not execution
    else:
        assert after is execution
    assert (after.due_at is None) == (after.state in EXECUTION_TERMINAL)
    assert (after.ended_at is None) == (after.state in EXECUTION_OPEN)


def test_every_event_has_a_handler_and_every_state_a_row() -> None:
    assert {type(event) for event in EVENTS.values()} == set(HANDLERS)
    assert TABLE.keys() == set(ExecutionState)
    assert PARKED_AT == PARKED


@given(
    names=st.lists(st.sampled_from(sorted(EVENTS)), max_size=30),
    ending=st.sampled_from([S.CANCELLED, S.TIMED_OUT]),
)
@settings(max_examples=examples(300))
def test_after_any_events_a_stop_and_the_end_of_the_uploads_end_it(names: list[str], ending: ExecutionState) -> None:
    execution = in_state(S.QUEUED)
    for name in names:
        before = execution
        execution = apply(execution, EVENTS[name])
        if before.state in EXECUTION_TERMINAL and name not in {"retried", "rejoined"}:
            assert execution is before
    execution = apply(execution, Stopped(now=NOW, ending=ending, reason=WHY))
    execution = apply(execution, counted())
    assert execution.state in EXECUTION_TERMINAL


# --- clocks and retries -----------------------------------------------------------------------------------------------


def test_a_client_that_does_not_list_in_time_is_asked_again_and_then_timed_out() -> None:
    execution = apply(in_state(S.QUEUED), begun(listing=100.0))
    asked = 0
    while execution.state is S.LISTING:
        assert execution.due_at is not None
        asked = execution.asks
        execution = apply(execution, looked(execution.due_at))
    assert (execution.state, asked, execution.ended_at) == (S.TIMED_OUT, 3, NOW + 100)


def test_the_clock_stands_still_while_the_client_is_offline_or_the_job_is_paused() -> None:
    execution = apply(in_state(S.QUEUED), begun(listing=100.0))
    gone = apply(execution, looked(NOW + 90, connected=False, since=NOW))
    assert (gone.listing_left, gone.clock_at, gone.due_at) == (10.0, None, PARKED_AT)
    back = apply(gone, looked(NOW + 5_000))
    assert back.listing_left == 10.0
    paused = apply(back, looked(NOW + 5_109, held=105.0))
    assert paused.listing_left == 6.0
    assert apply(paused, looked(NOW + 5_120, held=105.0)).state is S.TIMED_OUT


def test_only_the_time_since_the_last_connection_counts() -> None:
    execution = apply(in_state(S.QUEUED), begun(listing=100.0))
    assert apply(execution, looked(NOW + 500, since=NOW + 490)).listing_left == 90.0


def test_an_execution_that_takes_too_long_ends_once_its_uploads_have_ended() -> None:
    execution = apply(apply(in_state(S.QUEUED), begun(execution=50.0)), page())
    assert execution.due_at == NOW + 50
    ending = apply(execution, looked(NOW + 50))
    assert (ending.state, ending.ending) == (S.UPLOADING, S.TIMED_OUT)
    assert apply(ending, counted(open=1)).state is S.UPLOADING
    assert apply(ending, counted()).state is S.TIMED_OUT
    assert apply(ending, counted(proven=1)).state is S.SUCCEEDED


def test_an_execution_whose_uploads_the_gate_holds_is_not_timed_out() -> None:
    execution = apply(apply(in_state(S.QUEUED), begun(execution=50.0)), page())
    held = apply(execution, looked(NOW + 50, all_held=True))
    assert (held.state, held.ending) == (S.UPLOADING, None)
    assert held.due_at is not None
    assert held.due_at > NOW + 50


def test_a_failure_is_retried_as_often_as_asked_before_it_is_the_end() -> None:
    execution = in_state(S.UPLOADING)
    retry = Retry(failed=2)
    for attempt in (2, 3):
        execution = apply(execution, counted(failed=1, retry=retry))
        assert (execution.state, execution.attempt, execution.reason.code) == (S.QUEUED, attempt, "retrying")
        assert execution.due_at is not None
        assert execution.due_at > NOW
        execution = apply(apply(execution, begun()), page())
    assert apply(execution, counted(failed=1, retry=retry)).state is S.FAILED


def test_one_file_that_fails_makes_it_partial() -> None:
    execution = replace(in_state(S.UPLOADING), files=3)
    assert apply(execution, counted(proven=2, failed=1)).state is S.PARTIAL
    assert apply(execution, counted(rejected=3)).state is S.REJECTED
    assert apply(execution, counted(rejected=2, failed=1)).state is S.FAILED
    assert apply(execution, counted(proven=2, pending=1)).state is S.UPLOADING


def test_a_refusal_of_the_device_is_no_failure_and_is_not_retried() -> None:
    execution = apply(in_state(S.QUEUED), begun())
    many = Retry(failed=5, timed_out=5)
    refused = ListingRefused(now=NOW, reason=WHY, rejected=True, final=True, retry=many)
    assert apply(execution, refused).state is S.REJECTED
    final = ListingRefused(now=NOW, reason=WHY, rejected=False, final=True, retry=many)
    assert apply(execution, final).state is S.FAILED
    passing = ListingRefused(now=NOW, reason=WHY, rejected=False, final=False, retry=many)
    assert apply(execution, passing).state is S.QUEUED


def test_what_the_selection_holds_decides_what_follows() -> None:
    execution = apply(in_state(S.QUEUED), begun())
    assert apply(execution, page(files=0, matched_files=0, min_files=1)).state is S.FAILED
    assert apply(execution, page(files=0, matched_files=2, unchanged=2)).reason.code == "unchanged"
    assert apply(execution, page(files=0, matched_files=2, left_out=2)).reason.code == "over_limit"
    assert apply(execution, page(files=2, proven=2)).state is S.SUCCEEDED
    more = apply(execution, page(next_index=500))
    assert (more.state, more.next_index, more.files) == (S.LISTING, 500, 1)
    assert apply(more, page()).files == 2


def test_what_was_approved_needs_no_second_approval_unless_other_files_are_listed() -> None:
    execution = replace(apply(in_state(S.QUEUED), begun()), approved=True)
    assert apply(execution, page(ask_first=True, fresh=False)).state is S.UPLOADING
    assert apply(execution, page(ask_first=True, fresh=True)).state is S.AWAITING_APPROVAL
