"""The state machine of an execution: `apply(execution, event)` returns the execution after it.

Rule: pure; `HANDLERS` has one handler for each event. The same object means that nothing changed: a late answer, a
repeat, or an event that the state forbids. What is over changes by `Retried` and `Rejoined` only.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

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
from control_plane.domain.jobs.model import EXECUTION_TERMINAL, Execution, ExecutionState
from control_plane.domain.jobs.spec import Retry
from control_plane.domain.reasons import Reason, ReasonCode

ASK_AGAIN: Final = 30.0
"""Seconds before a request is repeated that was not answered; doubled each time."""

LONGEST_ASK: Final = 300.0
WALK_LOOK: Final = 2.0
"""Seconds after which a device that still walks is requested again, doubled each time."""

LONGEST_WALK_LOOK: Final = 60.0
RETRY_PAUSE: Final = 60.0
"""Seconds before the first automatic retry; doubled each time."""

LONGEST_RETRY_PAUSE: Final = 3600.0
FULL_PAUSE: Final = 300.0
LOOK_AGAIN: Final = 3600.0
"""Seconds before an execution is looked at that waits for an event: a wake may be lost."""

CANCEL_AGAIN: Final = 30.0
"""Seconds before the uploads of an execution that is being ended are cancelled again."""

OFFLINE: Final = Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline")
PARKED_AT: Final = 1e15
"""A `due_at` that never comes by itself."""

_ASKED: Final = Reason(ReasonCode.LISTING, "the client was asked for its files")
_SENDING: Final = Reason(ReasonCode.UPLOADING, "its files are being sent")

ExecutionHandler = Callable[[Execution, Any], Execution]
"""Applies one type of event; the second argument is an event of that type."""


def apply(execution: Execution, event: ExecutionEvent) -> Execution:
    """The execution after `event`; the same object when nothing changed."""
    if execution.state in EXECUTION_TERMINAL and not isinstance(event, Retried | Rejoined):
        return execution
    after = HANDLERS[type(event)](execution, event)
    return after if after is execution else replace(after, updated_at=event.now)


# --- the clocks ------------------------------------------------------------------------------------------------------


def _ticked(execution: Execution, event: Any, until: float | None = None) -> Execution:  # noqa: ANN401 - a `_Timed`
    """The execution with what remains of its timeouts at `until` (else now), and its clocks running from now on.

    Only the time counts in which the client was connected and the job not paused.
    """
    began_at = execution.clock_at
    if began_at is None:
        return replace(execution, clock_at=event.now, held_at=event.held)
    ends_at = event.now if until is None else min(event.now, until)
    spent = max(0.0, ends_at - max(began_at, event.since) - max(0.0, event.held - execution.held_at))
    listing = execution.listing_left
    if listing is not None and execution.state is ExecutionState.LISTING:
        listing -= spent
    rest = None if execution.execution_left is None else execution.execution_left - spent
    return replace(execution, listing_left=listing, execution_left=rest, clock_at=event.now, held_at=event.held)


def _timer(execution: Execution, now: float, pause: float) -> float:
    """When to look again: after `pause` (s), or when a timeout ends."""
    lefts = [pause]
    if execution.listing_left is not None and execution.state is ExecutionState.LISTING:
        lefts.append(execution.listing_left)
    if execution.execution_left is not None:
        lefts.append(execution.execution_left)
    return now + max(0.0, min(lefts))


def _grown(first: float, times: int, longest: float) -> float:
    return float(min(first * 2 ** min(times, 20), longest))


# --- handlers --------------------------------------------------------------------------------------------------------


def _begun(execution: Execution, event: Begun) -> Execution:
    if execution.state is not ExecutionState.QUEUED:
        return execution
    after = replace(
        execution,
        state=ExecutionState.LISTING,
        reason=_ASKED,
        began_at=event.now,
        listing_left=event.listing,
        execution_left=event.execution,
        clock_at=event.now,
        held_at=event.held,
        asks=1,
    )
    return replace(after, due_at=_timer(after, event.now, ASK_AGAIN))


def _withheld(execution: Execution, event: Withheld) -> Execution:
    if execution.state is not ExecutionState.QUEUED:
        return execution
    if (execution.reason, execution.due_at) == (event.reason, event.due_at):
        return execution
    return replace(execution, reason=event.reason, due_at=event.due_at)


def _postponed(execution: Execution, event: Postponed) -> Execution:
    if execution.state is not ExecutionState.UPLOADING or execution.due_at is None:
        return execution
    return replace(execution, due_at=min(execution.due_at, event.due_at))


def _looked(execution: Execution, event: Looked) -> Execution:
    match execution.state:
        case ExecutionState.LISTING | ExecutionState.UPLOADING if not event.connected:
            still = replace(_ticked(execution, event, max(event.seen_at, 0.0)), clock_at=None, asks=0)
            if execution.ending is not None:
                return replace(still, due_at=event.now + CANCEL_AGAIN)
            return replace(still, due_at=PARKED_AT, reason=OFFLINE)
        case ExecutionState.LISTING:
            return _looked_at_listing(_ticked(execution, event), event)
        case ExecutionState.UPLOADING:
            return _looked_at_uploads(_ticked(execution, event), event)
        case ExecutionState.AWAITING_APPROVAL:
            return replace(execution, due_at=event.now + LOOK_AGAIN)
        case _:
            return execution


def _looked_at_listing(execution: Execution, event: Looked) -> Execution:
    if _over(execution.listing_left):
        reason = Reason(ReasonCode.LISTING_TIMEOUT, "the client was connected, and did not list its files in time")
        return _timed_out(execution, event.now, reason, event.retry)
    if _over(execution.execution_left):
        return _timed_out(execution, event.now, _EXECUTION_TIMEOUT, event.retry)
    after = replace(execution, asks=execution.asks + 1, reason=_ASKED)
    return replace(after, due_at=_timer(after, event.now, _grown(ASK_AGAIN, execution.asks, LONGEST_ASK)))


def _looked_at_uploads(execution: Execution, event: Looked) -> Execution:
    if execution.ending is not None:
        return replace(execution, due_at=event.now + CANCEL_AGAIN)
    if _over(execution.execution_left):
        if not event.all_held:
            ended = {
                "ending": ExecutionState.TIMED_OUT,
                "reason": _EXECUTION_TIMEOUT,
                "due_at": event.now + CANCEL_AGAIN,
            }
            return replace(execution, **ended)
        # While the gate holds all of it, the clock stands still.
        execution = replace(execution, execution_left=ASK_AGAIN)
    after = replace(execution, reason=_SENDING)
    return replace(after, due_at=_timer(after, event.now, LOOK_AGAIN))


def _over(left: float | None) -> bool:
    return left is not None and left <= 0


def _walk_reported(execution: Execution, event: WalkReported) -> Execution:
    if execution.state is not ExecutionState.LISTING:
        return execution
    after = _ticked(execution, event)
    return replace(after, due_at=_timer(after, event.now, _grown(WALK_LOOK, execution.asks - 1, LONGEST_WALK_LOOK)))


def _page_stored(execution: Execution, event: PageStored) -> Execution:
    if execution.state is not ExecutionState.LISTING:
        return execution
    after = replace(
        _ticked(execution, event),
        selection=event.selection,
        next_index=event.next_index,
        matched_files=event.matched_files,
        matched_bytes=event.matched_bytes,
        files=execution.files + event.files,
        bytes=execution.bytes + event.bytes,
        proven=execution.proven + event.proven,
        proven_bytes=execution.proven_bytes + event.proven_bytes,
        unchanged=execution.unchanged + event.unchanged,
        left_out=execution.left_out + event.left_out,
        approved=execution.approved and not event.fresh,
        asks=1,
    )
    if event.next_index is not None:
        return replace(after, due_at=_timer(after, event.now, ASK_AGAIN))
    return _listed(replace(after, listed_at=event.now), event)


def _listed(execution: Execution, event: PageStored) -> Execution:
    """The execution after the last page of its selection."""
    found = execution.matched_files
    if found < event.min_files:
        text = f"{found} files match, at least {event.min_files} must"
        return _ended(execution, ExecutionState.FAILED, event.now, Reason(ReasonCode.NO_MATCH, text))
    if not execution.files:
        return _ended(execution, ExecutionState.SKIPPED, event.now, _nothing(execution))
    if execution.files == execution.proven:
        return _ended(execution, ExecutionState.SUCCEEDED, event.now, _sent(execution.proven))
    if event.ask_first and not execution.approved:
        reason = Reason(ReasonCode.APPROVAL, f"an operator has to approve {execution.files} files")
        state = ExecutionState.AWAITING_APPROVAL
        return replace(execution, state=state, reason=reason, clock_at=None, due_at=event.now + LOOK_AGAIN)
    after = replace(execution, state=ExecutionState.UPLOADING, reason=_SENDING)
    return replace(after, due_at=_timer(after, event.now, LOOK_AGAIN))


def _nothing(execution: Execution) -> Reason:
    if execution.unchanged:
        return Reason(ReasonCode.UNCHANGED, "no file changed since it was proven")
    if execution.matched_files:
        return Reason(ReasonCode.OVER_LIMIT, f"{execution.matched_files} files match, all of them beyond the limits")
    return Reason(ReasonCode.NO_MATCH, "no file matches")


def _sent(files: int) -> Reason:
    return Reason(ReasonCode.SENT, "1 file is proven" if files == 1 else f"{files} files are proven")


def _selection_replaced(execution: Execution, event: SelectionReplaced) -> Execution:
    if execution.state is not ExecutionState.LISTING:
        return execution
    after = replace(_relisting(_ticked(execution, event)), asks=execution.asks + 1)
    return replace(after, due_at=_timer(after, event.now, ASK_AGAIN))


def _relisting(execution: Execution) -> Execution:
    """The execution as before its listing."""
    return replace(
        execution,
        selection=None,
        next_index=None,
        listed_at=None,
        matched_files=0,
        matched_bytes=0,
        left_out=0,
        unchanged=0,
        files=0,
        bytes=0,
        proven=0,
        proven_bytes=0,
        failed=0,
        rejected=0,
    )


def _job_full(execution: Execution, event: JobFull) -> Execution:
    """The clocks stand still: neither the client nor its files can help it."""
    if execution.state is not ExecutionState.LISTING:
        return execution
    reason = Reason(ReasonCode.JOB_FULL, "the job holds as many files as it may")
    after = replace(_relisting(_ticked(execution, event)), clock_at=None, reason=reason)
    return replace(after, due_at=event.now + FULL_PAUSE)


def _listing_refused(execution: Execution, event: ListingRefused) -> Execution:
    if execution.state is not ExecutionState.LISTING:
        return execution
    execution = _ticked(execution, event)
    if event.rejected:
        text = f"{event.reason.code}: {event.reason.text}" if event.reason.text else event.reason.code
        return _ended(execution, ExecutionState.REJECTED, event.now, Reason(ReasonCode.BY_DEVICE, text))
    if event.final:
        return _ended(execution, ExecutionState.FAILED, event.now, event.reason)
    return _failed(execution, ExecutionState.FAILED, event.now, event.reason, event.retry)


def _approved(execution: Execution, event: Approved) -> Execution:
    if execution.state is not ExecutionState.AWAITING_APPROVAL:
        return execution
    return replace(execution, state=ExecutionState.UPLOADING, approved=True, reason=_SENDING, due_at=event.now)


def _disapproved(execution: Execution, event: Disapproved) -> Execution:
    if execution.state is not ExecutionState.AWAITING_APPROVAL:
        return execution
    return _ended(execution, ExecutionState.REJECTED, event.now, event.reason)


def _counted(execution: Execution, event: Counted) -> Execution:
    if execution.state is not ExecutionState.UPLOADING:
        return execution
    counts = {
        "proven": event.proven,
        "proven_bytes": event.proven_bytes,
        "failed": event.failed,
        "rejected": event.rejected,
    }
    after = replace(execution, **counts)
    if event.open or (event.pending and execution.ending is None):
        return execution if after == execution else after
    if event.proven >= execution.files:
        return _ended(after, ExecutionState.SUCCEEDED, event.now, _sent(event.proven))
    if execution.ending is ExecutionState.TIMED_OUT and execution.reason.code == _EXECUTION_TIMEOUT.code:
        return _timed_out(after, event.now, _EXECUTION_TIMEOUT, event.retry)
    if execution.ending is not None:
        return _ended(after, execution.ending, event.now, execution.reason)
    reason = event.worst or Reason(ReasonCode.FILES_FAILED, "files failed")
    if reason.code == ReasonCode.DEADLINE_PASSED:
        # Its uploads share the job's deadline: they may end a moment before the job does.
        return _ended(after, ExecutionState.TIMED_OUT, event.now, reason)
    if not event.failed and not event.proven:
        return _ended(after, ExecutionState.REJECTED, event.now, Reason(ReasonCode.BY_DEVICE, reason.text))
    state = ExecutionState.PARTIAL if event.proven else ExecutionState.FAILED
    retry = event.retry if event.failed else Retry()
    return _failed(after, state, event.now, reason, retry)


def _stopped(execution: Execution, event: Stopped) -> Execution:
    if execution.ending is not None:
        return execution
    if execution.state is ExecutionState.UPLOADING:
        return replace(execution, ending=event.ending, reason=event.reason, due_at=event.now)
    return _ended(execution, event.ending, event.now, event.reason)


def _removed(execution: Execution, event: Removed) -> Execution:
    if execution.state is ExecutionState.UPLOADING:
        return execution
    return _ended(execution, ExecutionState.REMOVED, event.now, event.reason)


def _rejoined(execution: Execution, event: Rejoined) -> Execution:
    if execution.state is not ExecutionState.REMOVED:
        return execution
    again = replace(execution, attempt=execution.attempt + 1)
    return _queued(again, event.now, Reason(ReasonCode.REJOINED, "the client belongs to the job again"))


def _retried(execution: Execution, event: Retried) -> Execution:
    """`Succeeded` and what was removed are not repeated: there is nothing to send, or no client to send it."""
    if execution.state not in EXECUTION_TERMINAL - {ExecutionState.SUCCEEDED, ExecutionState.REMOVED}:
        return execution
    reason = Reason(ReasonCode.RETRIED, "an operator repeats it")
    again = replace(execution, attempt=execution.attempt + 1, retries_failed=0, retries_timed_out=0)
    return _queued(again, event.now, reason)


# --- ends, and retries -----------------------------------------------------------------------------------------------

_EXECUTION_TIMEOUT: Final = Reason(ReasonCode.EXECUTION_TIMEOUT, "the client was connected, and was not done in time")


def _ended(execution: Execution, state: ExecutionState, now: float, reason: Reason) -> Execution:
    return replace(
        execution, state=state, reason=reason, ending=None, due_at=None, clock_at=None, next_index=None, ended_at=now
    )


def _failed(execution: Execution, state: ExecutionState, now: float, reason: Reason, retry: Retry) -> Execution:
    """The end, or the next automatic attempt."""
    if execution.retries_failed >= retry.failed:
        return _ended(execution, state, now, reason)
    pause = _grown(RETRY_PAUSE, execution.retries_failed, LONGEST_RETRY_PAUSE)
    return _again(replace(execution, retries_failed=execution.retries_failed + 1), now, pause, reason)


def _timed_out(execution: Execution, now: float, reason: Reason, retry: Retry) -> Execution:
    if execution.retries_timed_out >= retry.timed_out:
        return _ended(execution, ExecutionState.TIMED_OUT, now, reason)
    pause = _grown(RETRY_PAUSE, execution.retries_timed_out, LONGEST_RETRY_PAUSE)
    return _again(replace(execution, retries_timed_out=execution.retries_timed_out + 1), now, pause, reason)


def _again(execution: Execution, now: float, pause: float, reason: Reason) -> Execution:
    retrying = Reason(ReasonCode.RETRYING, f"tried again after {reason.code}: {reason.text}"[:1_000])
    return _queued(replace(execution, attempt=execution.attempt + 1), now + pause, retrying)


def _queued(execution: Execution, due_at: float, reason: Reason) -> Execution:
    return replace(
        _relisting(execution),
        state=ExecutionState.QUEUED,
        reason=reason,
        due_at=due_at,
        ending=None,
        ended_at=None,
        began_at=None,
        listing_left=None,
        execution_left=None,
        clock_at=None,
        asks=0,
    )


HANDLERS: Final[Mapping[type[ExecutionEvent], ExecutionHandler]] = {
    Begun: _begun,
    Withheld: _withheld,
    Looked: _looked,
    Postponed: _postponed,
    WalkReported: _walk_reported,
    PageStored: _page_stored,
    SelectionReplaced: _selection_replaced,
    JobFull: _job_full,
    ListingRefused: _listing_refused,
    Approved: _approved,
    Disapproved: _disapproved,
    Counted: _counted,
    Stopped: _stopped,
    Removed: _removed,
    Rejoined: _rejoined,
    Retried: _retried,
}
"""What applies each event."""
