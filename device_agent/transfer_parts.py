"""What becomes of one part: stored, tried again, or the end of the upload.

Rule: pure. One table says what each failed PUT means; budgets count per part, and per upload since a part was last
stored. Backoff is exponential with full jitter, and never shorter than the store asked for. What is only
`storage_unavailable` the owner resumes until its deadline; so a portal may stand for hours.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar, assert_never

from device_agent.errors import PutFailure
from device_agent.part_set import PartSet
from device_agent.records import PartKept
from device_agent.transfer_events import Keep, PartFailed, PartStored
from device_agent.transfer_source import source_fault
from device_agent.transfer_state import Kept, State, Transfer, Trouble
from device_agent.transfer_steps import Step, advance, fail, may_resume
from schemas.values import ErrorCode

MAX_REFUSALS: Final = 3
"""The third ends the upload for good: see `REFUSAL_PAUSE`."""

MAX_MISMATCHES: Final = 3
MAX_PART_FAILURES: Final = 8
MAX_UPLOAD_FAILURES: Final = 24
"""Failed PUTs of one upload with no part stored in between."""

FIRST_BACKOFF: Final = 1.0
LONGEST_BACKOFF: Final = 60.0
REFUSAL_PAUSE: Final = 90.0
"""Seconds, and up to twice as many, between the second refusal and the last: longer than it takes to restore a key."""

LONGEST_PAUSE: Final = 3600.0
"""Seconds: no store makes us wait longer, whatever its Retry-After says."""

T = TypeVar("T")
_OPEN: Final = frozenset({State.ASKING, State.SENDING, State.WAITING, State.CHECKING})


def stored(transfer: Transfer, event: PartStored) -> Step:
    """A part is in the store, unless the file changed while it was read."""
    if transfer.state not in _OPEN:
        return _stored_late(transfer, event)
    transfer = replace(transfer, flying=transfer.flying - PartSet.of([event.number]))
    if event.seen.fingerprint is None:
        return advance(transfer, event.now)
    fault = source_fault(transfer, event.seen)
    if fault is not None:
        return fail(transfer, event.now, *fault)
    if event.seen.fingerprint != transfer.opened:
        transfer = replace(transfer, moved=True)
    transfer, effects = _keep(transfer, event)
    transfer, more = advance(transfer, event.now)
    return transfer, effects + more


def failed(transfer: Transfer, event: PartFailed) -> Step:
    """A part is not in the store: find out why, and what to do."""
    if transfer.state not in _OPEN:
        return transfer, ()
    transfer = replace(transfer, flying=transfer.flying - PartSet.of([event.number]))
    fault = None if event.kind is PutFailure.STOPPED else source_fault(transfer, event.seen)
    if fault is not None:
        return fail(transfer, event.now, *fault)
    transfer, effects = _judge(transfer, event)
    if transfer.ending is not None:
        return transfer, effects
    transfer, more = advance(transfer, event.now)
    return transfer, effects + more


def _keep(transfer: Transfer, event: PartStored) -> Step:
    number, upload_id = event.number, transfer.order.upload_id
    if number in transfer.done:
        return transfer, ()
    digest = transfer.offered.get(number)
    digests = transfer.digests if digest is None else {**transfer.digests, number: digest}
    transfer = replace(
        transfer,
        kept={**transfer.kept, number: Kept(event.etag)},
        digests=digests,
        offered=_without(transfer.offered, number),
        grants=_without(transfer.grants, number),
        trouble=_without(transfer.trouble, number),
        failures=0,
        renewals=0,
    )
    return transfer, (Keep(PartKept(upload_id, number, event.etag, digest)),)


def _stored_late(transfer: Transfer, event: PartStored) -> Step:
    """A part that was under way when the upload was interrupted: worth keeping if it goes on one day.

    Nobody looks at the file now, so only a part with a digest is: it will be digested again.
    """
    ending = transfer.ending
    final = ending is not None and not may_resume(ending)
    return (transfer, ()) if final or event.number not in transfer.offered else _keep(transfer, event)


def _judge(transfer: Transfer, event: PartFailed) -> Step:
    match event.kind:
        case PutFailure.STOPPED:
            step: Step = (transfer, ())
        case PutFailure.TRY_AGAIN:
            step = _try_again(transfer, event)
        case PutFailure.EXPIRED_OR_FORBIDDEN | PutFailure.REFUSED:
            step = _forbidden(transfer, event)
        case PutFailure.BAD_DIGEST:
            step = _mismatched(transfer, event)
        case PutFailure.GONE:
            step = fail(transfer, event.now, ErrorCode.UPLOAD_GONE, event.text)
        case PutFailure.SOURCE_CHANGED:
            step = fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, event.text)
        case PutFailure.SOURCE_UNREADABLE:
            step = fail(transfer, event.now, ErrorCode.INTERNAL, event.text)
        case PutFailure.HOST_NOT_ALLOWED:
            step = fail(transfer, event.now, ErrorCode.HOST_NOT_ALLOWED, event.text)
        case PutFailure.BAD_HEADER:
            step = fail(transfer, event.now, ErrorCode.BAD_REQUEST, event.text)
        case _:
            assert_never(event.kind)
    return step


def _try_again(transfer: Transfer, event: PartFailed) -> Step:
    trouble = _trouble(transfer, event)
    trouble = replace(trouble, failures=trouble.failures + 1, text=event.text)
    transfer = replace(transfer, failures=transfer.failures + 1)
    if trouble.failures >= MAX_PART_FAILURES or transfer.failures >= MAX_UPLOAD_FAILURES:
        return fail(transfer, event.now, ErrorCode.STORAGE_UNAVAILABLE, event.text)
    if event.retry_after is not None:
        pause = min(event.retry_after, LONGEST_PAUSE)
        transfer = replace(transfer, hold_until=max(transfer.hold_until, event.now + pause))
    return _later(transfer, event, trouble, trouble.failures), ()


def _forbidden(transfer: Transfer, event: PartFailed) -> Step:
    """Past its life a URL is merely renewed. A refusal before that counts, and the URL is renewed too: keys rotate."""
    grant = transfer.grants.get(event.number)
    without = replace(transfer, grants=_without(transfer.grants, event.number))
    expired = grant is not None and grant.expires_at is not None and event.now >= grant.expires_at
    if expired and event.kind is PutFailure.EXPIRED_OR_FORBIDDEN:
        return replace(without, renewals=transfer.renewals + 1), ()
    trouble = _trouble(transfer, event)
    trouble = replace(trouble, refusals=trouble.refusals + 1, text=event.text)
    if trouble.refusals >= MAX_REFUSALS:
        return fail(transfer, event.now, ErrorCode.STORAGE_REFUSED, event.text)
    if trouble.refusals < MAX_REFUSALS - 1:
        return _later(without, event, trouble, trouble.refusals), ()
    return _leave_alone(without, event, trouble), ()


def _leave_alone(transfer: Transfer, event: PartFailed, trouble: Trouble) -> Transfer:
    """A fresh URL was refused too. The last try has to wait for whoever mends the key, and for URLs signed after that.

    What was granted beforehand for good nobody may be there to grant again: it is kept.
    """
    until = event.now + REFUSAL_PAUSE * (1 + event.jitter)
    return replace(
        transfer,
        grants=transfer.grants if transfer.order.pregranted else {},
        trouble={**transfer.trouble, event.number: replace(trouble, until=until)},
        hold_until=max(transfer.hold_until, until),
        ask_after=max(transfer.ask_after, until),
    )


def _mismatched(transfer: Transfer, event: PartFailed) -> Step:
    trouble = _trouble(transfer, event)
    trouble = replace(trouble, mismatches=trouble.mismatches + 1, text=event.text)
    if trouble.mismatches >= MAX_MISMATCHES:
        return fail(transfer, event.now, ErrorCode.DIGEST_MISMATCH, event.text)
    return _later(transfer, event, trouble, trouble.mismatches), ()


def _later(transfer: Transfer, event: PartFailed, trouble: Trouble, times: int) -> Transfer:
    backoff = event.jitter * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**times)
    trouble = replace(trouble, until=event.now + backoff)
    return replace(transfer, trouble={**transfer.trouble, event.number: trouble})


def _trouble(transfer: Transfer, event: PartFailed) -> Trouble:
    return transfer.trouble.get(event.number, Trouble())


def _without(parts: Mapping[int, T], number: int) -> dict[int, T]:
    return {known: value for known, value in parts.items() if known != number}
