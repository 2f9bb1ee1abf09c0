"""What becomes of one part: stored, tried again, or the end of the upload.

Rule: pure. One table says what each failed PUT means; budgets count per part, and per upload since a part was last
stored. Backoff is exponential with full jitter, and never shorter than the store asked for. What is only
`storage_unavailable` the owner resumes until its deadline; so a portal may stand for hours.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar, assert_never

from device_agent.errors import PutFailure
from device_agent.transfer.advance import (
    BEFORE_OPEN,
    Step,
    advance,
    fail,
    may_resume,
    prepare_request,
    recheck,
    republish,
)
from device_agent.transfer.events import (
    Digested,
    Effect,
    Granted,
    Keep,
    Opened,
    PartFailed,
    PartStored,
    PublishResponse,
    Rechecked,
    Repeated,
    Seen,
)
from device_agent.transfer.model import Kept, PartRetry, State, Transfer, acknowledge, grant_of, plan_of, settle
from device_agent.transfer.part_set import PartSet
from device_agent.transfer.records import PartKept, Settled
from device_agent.transfer.replay import progress_record
from device_agent.transfer.responses import latest_response
from schemas.errors import SchemaError
from schemas.parts import MAX_FILE_SIZE, PartPlan
from schemas.values import DigestName, ErrorCode, Fingerprint

_LOOP_PAUSE: Final = 5.0
"""A repeated grant is not answered within this time of the question it asks for: the two would echo each other."""

_EMPTY_PAUSE: Final = 5.0
_LONGEST_EMPTY_PAUSE: Final = 300.0


def repeat(transfer: Transfer, event: Repeated) -> Step:
    """The command came again: the latest answer again, and after an error that may pass, a new start."""
    transfer, effects = _acknowledged(transfer, event)
    ending = transfer.ending
    if ending is not None and event.acknowledges >= transfer.sequence and may_resume(ending):
        return _resume(transfer)
    transfer, again = republish(transfer, event.now)
    return transfer, effects + again


def grant(transfer: Transfer, event: Granted) -> Step:
    """Take the URLs that are of use, and what the owner says is stored or committed."""
    answers = _answers(transfer, event)
    transfer, effects = _acknowledged(transfer, event)
    contradiction = _contradiction(transfer, event)
    if transfer.ending is not None or contradiction is None:
        transfer, more = _take(transfer, event, answers=answers)
    else:
        transfer, more = fail(transfer, event.now, ErrorCode.BAD_REQUEST, contradiction)
    return transfer, effects + more


def _take(transfer: Transfer, event: Granted, *, answers: bool) -> Step:
    if transfer.ending is not None:
        return republish(transfer, event.now)
    before = transfer.settled
    transfer, effects = _settle_completed(transfer, event)
    transfer = _take_urls(transfer, event, answers=answers, news=transfer.settled != before)
    if transfer.state in BEFORE_OPEN:
        return transfer, effects
    again = _echo(transfer, event.now) if transfer.awaiting_grant else ()
    transfer, more = advance(transfer, event.now)
    return transfer, effects + again + more


def _acknowledged(transfer: Transfer, event: Granted | Repeated) -> Step:
    """Take the acknowledgement, and any word at all as a sign of life."""
    after = acknowledge(transfer, event.acknowledges)
    keep = (Keep(progress_record(after)),) if after.acknowledged > transfer.acknowledged else ()
    if after.unanswered_since is not None:
        after = replace(after, unanswered_since=event.now)
    return after, keep


def _resume(transfer: Transfer) -> Step:
    transfer = replace(
        transfer,
        state=State.QUEUED,
        ending=None,
        retries={},
        failures=0,
        renewals=0,
        hold_until=0.0,
        request_after=0.0,
        empty_grants=0,
        republish_at=None,
        unanswered_since=None,
    )
    return transfer, (Keep(progress_record(transfer)),)


def _echo(transfer: Transfer, now: float) -> tuple[Effect, ...]:
    response = latest_response(transfer)
    return () if response is None or now - transfer.published_at < _LOOP_PAUSE else (PublishResponse(response),)


def _answers(transfer: Transfer, event: Granted) -> bool:
    """Whether this grant answers the question at hand; an owner that never acknowledges is known by what it grants."""
    if transfer.request is None or not transfer.awaiting_grant:
        return False
    if event.acknowledges:
        return event.acknowledges >= transfer.request.sequence
    return any(url.part_number in transfer.request.numbers for url in event.parts)


def _contradiction(transfer: Transfer, event: Granted) -> str | None:
    if transfer.source is None:
        return None
    plan = transfer.plan
    if event.chunk_size not in {None, transfer.order.chunk_size, plan.part_size}:
        return f"the grant has chunk_size {event.chunk_size}, the upload {plan.part_size}"
    beyond = [url.part_number for url in event.parts if url.part_number > plan.total]
    if beyond and not transfer.order.pregranted:
        return f"the grant has part {min(beyond)}, the file {plan.total} parts"
    if any(not 1 <= first <= last <= plan.total for first, last in event.completed):
        return f"completed_parts names parts that the file does not have: it has {plan.total}"
    return None


def _settle_completed(transfer: Transfer, event: Granted) -> Step:
    new = PartSet.of_ranges(event.completed) - transfer.settled
    told: tuple[Effect, ...] = ()
    if transfer.prefix and transfer.order.digest is not DigestName.NONE:
        # Stored by an earlier life of this device, whose journal is gone, the others may be of another file: no
        # fingerprint tells under `prefix`. They are offered, so that the owner compares, and we may at the end.
        new &= PartSet.of(transfer.digests) | PartSet.of(transfer.offered)
        offered = {number: digest for number, digest in transfer.offered.items() if number in new}
        told = tuple(Keep(PartKept(transfer.order.upload_id, n, None, digest)) for n, digest in offered.items())
        transfer = replace(transfer, digests={**transfer.digests, **offered})
    if not new or transfer.source is None:
        return transfer, ()
    return settle(transfer, new), (*told, Keep(Settled(transfer.order.upload_id, new.ranges())))


def _take_urls(transfer: Transfer, event: Granted, *, answers: bool, news: bool) -> Transfer:
    if transfer.source is None and not transfer.order.pregranted:
        return transfer
    total = None if transfer.source is None else transfer.plan.total
    useless = transfer.done | transfer.in_flight
    if not answers:
        useless |= PartSet.of(transfer.grants)
    taken = {
        url.part_number: grant_of(url, event.now, event.lifetime)
        for url in event.parts
        if url.part_number not in useless and (total is None or url.part_number <= total)
    }
    transfer = replace(transfer, grants={**transfer.grants, **taken})
    if taken:
        transfer = replace(transfer, last_granted=PartSet.of(taken), empty_grants=0)
    if not answers or transfer.request is None:
        return transfer
    request = replace(transfer.request, answered=True)
    transfer = replace(transfer, request=request, republish_at=None, unanswered_since=None)
    return transfer if taken or news else _pause_asking(transfer, event.now)


def _pause_asking(transfer: Transfer, now: float) -> Transfer:
    pause = min(_LONGEST_EMPTY_PAUSE, _EMPTY_PAUSE * 2 ** min(transfer.empty_grants, 16))
    return replace(transfer, empty_grants=transfer.empty_grants + 1, request_after=now + pause)


def opened(transfer: Transfer, event: Opened) -> Step:
    """Cut the file into parts, or on a resume compare it with what was cut before."""
    if transfer.ending is not None:
        return transfer, ()
    if transfer.source is None:
        transfer, effects = _cut(transfer, event)
    else:
        transfer, effects = _compare(transfer, event)
    if transfer.ending is not None:
        return transfer, effects
    rechecks = (recheck(transfer),) if transfer.unchecked else ()
    transfer, more = advance(transfer, event.now)
    return transfer, effects + rechecks + more


def _cut(transfer: Transfer, event: Opened) -> Step:
    size = event.fingerprint.size
    try:
        plan = plan_of(transfer.order, size)
    except SchemaError as error:
        code = ErrorCode.FILE_TOO_LARGE if size > MAX_FILE_SIZE else ErrorCode.BAD_REQUEST
        return fail(transfer, event.now, code, str(error))
    transfer = _with_urls_for(plan, replace(transfer, source=event.fingerprint, opened=event.fingerprint))
    if event.digest is not None:
        transfer = replace(transfer, ahead={1: event.digest})
    # The question keeps it too; parts that need no question must find it kept.
    return transfer, (Keep(progress_record(transfer)),) if transfer.grants else ()


def _compare(transfer: Transfer, event: Opened) -> Step:
    if not _is_same_file(transfer, event.fingerprint):
        return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "the file changed while the upload was interrupted")
    unchecked = PartSet.of(transfer.digests)
    transfer = replace(transfer, opened=event.fingerprint, moved=False, unchecked=unchecked)
    return _with_urls_for(transfer.plan, transfer), ()


def _with_urls_for(plan: PartPlan, transfer: Transfer) -> Transfer:
    """Surplus parts of a pre-granted command are ignored."""
    grants = {number: grant for number, grant in transfer.grants.items() if number <= plan.total}
    return replace(transfer, grants=grants, last_granted=PartSet.of(grants))


def refused(transfer: Transfer, now: float, code: ErrorCode, text: str) -> Step:
    """The source does not open; one that did before is gone."""
    if transfer.source is not None and code is ErrorCode.FILE_NOT_FOUND:
        code = ErrorCode.SOURCE_GONE
    return fail(transfer, now, code, text)


def digested(transfer: Transfer, event: Digested) -> Step:
    """Ask if a question waits for these parts; else they are ready for when it is time to ask."""
    if transfer.ending is not None or not transfer.digesting:
        return transfer, ()
    digests = {number: digest for number, digest in event.digests.items() if digest is not None}
    if len(digests) < len(event.digests):
        return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "the file became shorter while it was read")
    transfer = replace(transfer, ahead={**transfer.ahead, **digests}, digesting=())
    transfer, effects = prepare_request(transfer, event.now) if transfer.preparing_request else (transfer, ())
    transfer, more = advance(transfer, event.now) if transfer.ending is None else (transfer, ())
    return transfer, effects + more


def rechecked(transfer: Transfer, event: Rechecked) -> Step:
    """Compare parts stored before the source was reopened with what it holds now."""
    if transfer.ending is not None:
        return transfer, ()
    if any(transfer.digests.get(number) != digest for number, digest in event.digests.items()):
        return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "parts already stored differ from the file")
    transfer = replace(transfer, unchecked=transfer.unchecked - PartSet.of(event.digests))
    rechecks = (recheck(transfer),) if transfer.unchecked else ()
    transfer, effects = advance(transfer, event.now)
    return transfer, rechecks + effects


def _is_same_file(transfer: Transfer, found: Fingerprint) -> bool:
    """On a resume: device and inode decide nothing, for reboots change them."""
    source = transfer.source
    if source is None:
        return True
    if transfer.prefix:
        return found.size >= source.size
    return (found.size, found.mtime_ns, found.ctime_ns) == (source.size, source.mtime_ns, source.ctime_ns)


def source_fault(transfer: Transfer, seen: Seen) -> tuple[ErrorCode, str] | None:
    """What is wrong with the source: under `prefix` so far only the loss of bytes, else any change at all."""
    if seen.fingerprint is None:
        return None
    if transfer.prefix:
        shorter = seen.fingerprint.size < transfer.plan.file_size
        text = "the file became shorter than it was when the upload began"
        return (ErrorCode.SOURCE_CHANGED, text) if shorter else None
    if seen.gone:
        return ErrorCode.SOURCE_GONE, "the file was deleted while it was uploaded"
    if not seen.linked:
        return ErrorCode.SOURCE_CHANGED, "the file was replaced by another while it was uploaded"
    if seen.fingerprint != transfer.opened:
        return ErrorCode.SOURCE_CHANGED, "the file changed while it was uploaded"
    return None


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
_OPEN: Final = frozenset({State.REQUESTING, State.SENDING, State.WAITING, State.CHECKING})


def stored(transfer: Transfer, event: PartStored) -> Step:
    """A part is in the store, unless the file changed while it was read."""
    if transfer.state not in _OPEN:
        return _stored_late(transfer, event)
    transfer = replace(transfer, in_flight=transfer.in_flight - PartSet.of([event.number]))
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
    transfer = replace(transfer, in_flight=transfer.in_flight - PartSet.of([event.number]))
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
        retries=_without(transfer.retries, number),
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
    retries = _retry_of(transfer, event)
    retries = replace(retries, failures=retries.failures + 1, text=event.text)
    transfer = replace(transfer, failures=transfer.failures + 1)
    if retries.failures >= MAX_PART_FAILURES or transfer.failures >= MAX_UPLOAD_FAILURES:
        return fail(transfer, event.now, ErrorCode.STORAGE_UNAVAILABLE, event.text)
    if event.retry_after is not None:
        pause = min(event.retry_after, LONGEST_PAUSE)
        transfer = replace(transfer, hold_until=max(transfer.hold_until, event.now + pause))
    return _later(transfer, event, retries, retries.failures), ()


def _forbidden(transfer: Transfer, event: PartFailed) -> Step:
    """Past its life a URL is merely renewed. A refusal before that counts, and the URL is renewed too: keys rotate."""
    grant = transfer.grants.get(event.number)
    without = replace(transfer, grants=_without(transfer.grants, event.number))
    expired = grant is not None and grant.expires_at is not None and event.now >= grant.expires_at
    if expired and event.kind is PutFailure.EXPIRED_OR_FORBIDDEN:
        return replace(without, renewals=transfer.renewals + 1), ()
    retries = _retry_of(transfer, event)
    retries = replace(retries, refusals=retries.refusals + 1, text=event.text)
    if retries.refusals >= MAX_REFUSALS:
        return fail(transfer, event.now, ErrorCode.STORAGE_REFUSED, event.text)
    if retries.refusals < MAX_REFUSALS - 1:
        return _later(without, event, retries, retries.refusals), ()
    return _pause_upload(without, event, retries), ()


def _pause_upload(transfer: Transfer, event: PartFailed, retries: PartRetry) -> Transfer:
    """A fresh URL was refused too. The last try has to wait for whoever mends the key, and for URLs signed after that.

    What was granted beforehand for good nobody may be there to grant again: it is kept.
    """
    until = event.now + REFUSAL_PAUSE * (1 + event.jitter)
    return replace(
        transfer,
        grants=transfer.grants if transfer.order.pregranted else {},
        retries={**transfer.retries, event.number: replace(retries, until=until)},
        hold_until=max(transfer.hold_until, until),
        request_after=max(transfer.request_after, until),
    )


def _mismatched(transfer: Transfer, event: PartFailed) -> Step:
    retries = _retry_of(transfer, event)
    retries = replace(retries, mismatches=retries.mismatches + 1, text=event.text)
    if retries.mismatches >= MAX_MISMATCHES:
        return fail(transfer, event.now, ErrorCode.DIGEST_MISMATCH, event.text)
    return _later(transfer, event, retries, retries.mismatches), ()


def _later(transfer: Transfer, event: PartFailed, retries: PartRetry, times: int) -> Transfer:
    backoff = event.jitter * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2**times)
    retries = replace(retries, until=event.now + backoff)
    return replace(transfer, retries={**transfer.retries, event.number: retries})


def _retry_of(transfer: Transfer, event: PartFailed) -> PartRetry:
    return transfer.retries.get(event.number, PartRetry())


def _without(parts: Mapping[int, T], number: int) -> dict[int, T]:
    return {known: value for known, value in parts.items() if known != number}
