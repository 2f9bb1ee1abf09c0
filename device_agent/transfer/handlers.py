"""One function for each event: the transfer after it, and the effects that it requests.

Rule: pure. `machine.HANDLERS` maps events to these functions, and `machine.ALLOWED` decides in which states each runs.
Failed PUTs are counted per part, and per upload since a part was last stored. Backoff is exponential with full jitter,
and never shorter than the object store requested. After `storage_unavailable` the owner resumes the attempt until its
deadline, so an outage of hours ends no upload.
"""

from collections.abc import Mapping
from typing import Final, TypeVar, assert_never

from msgspec.structs import replace

from device_agent.backoff import exponential, full_jitter
from device_agent.errors import PutFailure
from device_agent.transfer.advance import (
    BEFORE_OPEN,
    Step,
    advance,
    drop_stale,
    end,
    fail,
    give_up_at,
    latest_effects,
    may_resume,
    pick_part,
    prepare_request,
    rechecks_due,
    republish,
    schedule_republish,
)
from device_agent.transfer.closing import tombstone_of
from device_agent.transfer.events import (
    Admitted,
    Barred,
    CancelRequested,
    CloseReceived,
    Digested,
    Effect,
    Faulted,
    Granted,
    GrantRefused,
    HostPaused,
    Keep,
    Measured,
    Opened,
    OpenRefused,
    OpenSource,
    PartFailed,
    PartStored,
    PutPart,
    Rechecked,
    Repeated,
    StopParts,
    Tick,
    WorkerFree,
    WriteTombstone,
)
from device_agent.transfer.model import Hold, Kept, PartRetry, State, Transfer, acknowledge, grant_of, plan_of, settle
from device_agent.transfer.part_set import PartSet
from device_agent.transfer.records import Ending, PartKept, Settled
from device_agent.transfer.replay import progress_record
from device_agent.transfer.source_change import is_same_file, source_fault
from schemas.errors import SchemaError
from schemas.parts import MAX_FILE_SIZE, PartPlan
from schemas.values import DigestName, ErrorCode, Outcome, ResponseStatus

MAX_REFUSALS: Final = 2
"""Refusals of one part, each of another URL, before the object store's answer is reported.

What follows is the owner's decision: it knows the credentials, and it may resume the attempt.
"""

MAX_MISMATCHES: Final = 3
MAX_PART_FAILURES: Final = 8
MAX_UPLOAD_FAILURES: Final = 24
"""Failed PUTs of one upload with no part stored in between."""

FIRST_BACKOFF: Final = 1.0
LONGEST_BACKOFF: Final = 60.0
SOURCE_FAILURES: Final = 8
SOURCE_PATIENCE: Final = 3600.0
"""Seconds, and failures, with no part stored in between, after which a source that cannot be read ends the upload.

A file server that restarts, or a disk that is connected again, needs less; a sector that is broken stays so.
"""

LONGEST_PAUSE: Final = 3600.0
"""Seconds: a longer Retry-After counts as this."""

_ECHO_PAUSE: Final = 5.0
"""A repeated grant is not answered within this time of the request that it belongs to: both sides would loop."""

_EMPTY_PAUSE: Final = (5.0, 300.0)
"""Seconds before the next request when an answer granted nothing: the first time, and at most."""

T = TypeVar("T")
_OPEN: Final = frozenset({State.REQUESTING, State.SENDING, State.WAITING, State.CHECKING})


# From the owner.


def repeated(transfer: Transfer, event: Repeated) -> Step:
    """The command came again: publish the latest response again, and resume after an error that allows it."""
    transfer, effects = _acknowledged(transfer, event)
    ending = transfer.ending
    if ending is not None and event.acknowledges >= transfer.sequence and may_resume(ending):
        return _resume(transfer)
    transfer, again = republish(transfer, event.now)
    return transfer, effects + again


def granted(transfer: Transfer, event: Granted) -> Step:
    """Take the usable URLs, the acknowledgement, the parts that the owner lists as completed; or the wait."""
    answers = _answers_request(transfer, event) or _holds(transfer, event)
    transfer, effects = _acknowledged(transfer, event)
    contradiction = _contradiction(transfer, event)
    if transfer.ending is not None:
        transfer, more = republish(transfer, event.now)
    elif contradiction is not None:
        transfer, more = fail(transfer, event.now, ErrorCode.BAD_REQUEST, contradiction)
    else:
        transfer, more = _take_grant(transfer, event, answers=answers)
    return transfer, effects + more


def cancel_requested(transfer: Transfer, event: CancelRequested) -> Step:
    """Stop; after another end that end is published again."""
    return end(transfer, event.now, Ending(ResponseStatus.CANCELLED))


def close_received(transfer: Transfer, event: CloseReceived) -> Step:
    """The owner needs nothing more of this upload."""
    return _close(transfer, tombstone_of(transfer, event))


def ended_with_code(transfer: Transfer, event: GrantRefused | Faulted) -> Step:
    """The grant cannot be used, or the agent failed: end with the event's error."""
    if event.code is ErrorCode.SOURCE_UNREADABLE:
        return _unreadable(transfer, event.now, event.text)
    return fail(transfer, event.now, event.code, event.text)


def _close(transfer: Transfer, tombstone: WriteTombstone) -> Step:
    return replace(transfer, state=State.CLOSED, opened=None), (StopParts(), tombstone)


def _acknowledged(transfer: Transfer, event: Granted | Repeated) -> Step:
    """Take the acknowledgement; any message of the owner restarts the give-up timer."""
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
        paused_until=0.0,
        request_after=0.0,
        hold=None,
        empty_grants=0,
        republish_at=None,
        unanswered_since=None,
    )
    return transfer, (Keep(progress_record(transfer)),)


def _take_grant(transfer: Transfer, event: Granted, *, answers: bool) -> Step:
    before = transfer.settled
    transfer, effects = _settle_completed(transfer, event)
    transfer = _take_urls(transfer, event, answers=answers, news=transfer.settled != before)
    transfer = _take_terms(transfer, event)
    if transfer.state in BEFORE_OPEN:
        return transfer, effects
    echo = transfer.awaiting_grant and event.now - transfer.published_at >= _ECHO_PAUSE
    again = latest_effects(transfer) if echo else ()
    transfer, more = advance(transfer, event.now)
    return transfer, effects + again + more


def _answers_request(transfer: Transfer, event: Granted) -> bool:
    """Whether this grant answers the open request; without an acknowledgement, the granted parts decide."""
    if transfer.request is None or not transfer.awaiting_grant:
        return False
    if event.acknowledges:
        return event.acknowledges >= transfer.request.sequence
    return any(url.part_number in transfer.request.numbers for url in event.parts)


def _holds(transfer: Transfer, event: Granted) -> bool:
    """Whether this is a wait that knows of the latest request; an older one waits for nothing."""
    return event.wait is not None and not event.parts and event.acknowledges >= transfer.sequence


def _take_terms(transfer: Transfer, event: Granted) -> Transfer:
    """The rate, and the wait: no request before its end, also not one that is being prepared. URLs end a wait."""
    if event.parts or event.rate is not None:
        # Each grant has all terms: one without a rate ends a limit that was set before.
        transfer = replace(transfer, rate=event.rate)
    if event.parts and transfer.hold is not None:
        return replace(transfer, hold=None, request_after=0.0)
    if event.wait is None or not _holds(transfer, event):
        return transfer
    until = event.now + event.wait.for_seconds
    request = None if transfer.preparing_request else transfer.request
    return replace(transfer, hold=Hold(event.wait.reason, until), request_after=until, request=request, empty_grants=0)


def _contradiction(transfer: Transfer, event: Granted) -> str | None:
    """The reason why the grant does not fit this file; None when it fits."""
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
    keep: tuple[Effect, ...] = ()
    if transfer.digested or (transfer.prefix and transfer.order.digest is not DigestName.NONE):
        # The other parts were stored by an earlier installation, whose journal is lost; no fingerprint shows
        # what they hold. They are requested with their digests, which the owner compares.
        new &= PartSet.of(transfer.digests) | PartSet.of(transfer.offered)
        offered = {number: digest for number, digest in transfer.offered.items() if number in new}
        keep = tuple(Keep(PartKept(transfer.order.upload_id, n, None, digest)) for n, digest in offered.items())
        transfer = replace(transfer, digests={**transfer.digests, **offered})
    if not new or transfer.source is None:
        return transfer, ()
    return settle(transfer, new), (*keep, Keep(Settled(transfer.order.upload_id, new.ranges())))


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
        if url.part_number not in useless
        and (total is None or url.part_number <= total)
        and (transfer.order.seal is None or url.part_number in transfer.contents)
    }
    transfer = replace(transfer, grants={**transfer.grants, **taken})
    if taken:
        transfer = replace(transfer, last_granted=PartSet.of(taken), empty_grants=0)
    if not answers or transfer.request is None:
        return transfer
    request = replace(transfer.request, answered=True)
    transfer = replace(transfer, request=request, republish_at=None, unanswered_since=None)
    return transfer if taken or news else _pause_requests(transfer, event.now)


def _pause_requests(transfer: Transfer, now: float) -> Transfer:
    pause = exponential(transfer.empty_grants, *_EMPTY_PAUSE)
    return replace(transfer, empty_grants=transfer.empty_grants + 1, request_after=now + pause)


# The source.


def measured(transfer: Transfer, event: Measured) -> Step:
    """A small file need not wait for a slot."""
    return replace(transfer, measured=event.size), ()


def admitted(transfer: Transfer, _event: Admitted) -> Step:
    """Open the source."""
    return replace(transfer, state=State.OPENING), (OpenSource(transfer.order),)


def opened(transfer: Transfer, event: Opened) -> Step:
    """Cut the file into parts, or on a resume compare it with the file that was cut before."""
    if transfer.ending is not None:
        return transfer, ()
    transfer, effects = (_cut if transfer.source is None else _compare)(transfer, event)
    if transfer.ending is not None:
        return transfer, effects
    rechecks = rechecks_due(transfer)
    transfer, more = advance(transfer, event.now)
    return transfer, effects + rechecks + more


def open_refused(transfer: Transfer, event: OpenRefused) -> Step:
    """The source does not open; if it was open before, a missing file is `source_gone`."""
    code = event.code
    if transfer.source is not None and code is ErrorCode.FILE_NOT_FOUND:
        code = ErrorCode.SOURCE_GONE
    if code is ErrorCode.SOURCE_UNREADABLE:
        return _unreadable(transfer, event.now, event.text)
    return fail(transfer, event.now, code, event.text)


def _unreadable(transfer: Transfer, now: float, text: str) -> Step:
    """The system cannot read the source: `internal`, which the owner answers with the same attempt; not for ever."""
    if transfer.ending is not None:
        return fail(transfer, now, ErrorCode.INTERNAL, text)
    since = now if transfer.unreadable_since is None else transfer.unreadable_since
    transfer = replace(transfer, unreadable=transfer.unreadable + 1, unreadable_since=since)
    lasts = transfer.unreadable >= SOURCE_FAILURES and now - since >= SOURCE_PATIENCE
    return fail(transfer, now, ErrorCode.SOURCE_UNREADABLE if lasts else ErrorCode.INTERNAL, text)


def digested(transfer: Transfer, event: Digested) -> Step:
    """Publish the request that waits for these parts; without one, they are ready for the next request."""
    if transfer.ending is not None or not transfer.digesting:
        return transfer, ()
    digests = {number: digest for number, digest in event.digests.items() if digest is not None}
    if len(digests) < len(event.digests):
        return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "the file became shorter while it was read")
    if any(transfer.contents.get(number, content) != content for number, content in event.contents.items()):
        # Such a part may have left, under this attempt's key.
        return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "the file changed after a part of it was sealed")
    transfer = replace(transfer, ahead={**transfer.ahead, **digests}, digesting=())
    transfer, kept = _keep_contents(transfer, event.contents)
    transfer, effects = prepare_request(transfer, event.now) if transfer.preparing_request else (transfer, ())
    transfer, more = advance(transfer, event.now) if transfer.ending is None else (transfer, ())
    return transfer, kept + effects + more


def _keep_contents(transfer: Transfer, contents: Mapping[int, str]) -> Step:
    """Durable before the parts are requested, and so before one of them is sent."""
    new = {n: content for n, content in contents.items() if n not in transfer.contents and n not in transfer.done}
    keep = tuple(Keep(PartKept(transfer.order.upload_id, n, content=content)) for n, content in new.items())
    return replace(transfer, contents={**transfer.contents, **new}), keep


def rechecked(transfer: Transfer, event: Rechecked) -> Step:
    """Compare the digests of stored parts with those of the reopened source."""
    if transfer.ending is not None:
        return transfer, ()
    if any(transfer.digests.get(number) != digest for number, digest in event.digests.items()):
        return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "parts already stored differ from the file")
    transfer = replace(transfer, unchecked=transfer.unchecked - PartSet.of(event.digests))
    rechecks = rechecks_due(transfer)
    transfer, effects = advance(transfer, event.now)
    return transfer, rechecks + effects


def _cut(transfer: Transfer, event: Opened) -> Step:
    size = event.fingerprint.size
    try:
        plan = plan_of(transfer.order, size)
    except SchemaError as error:
        code = ErrorCode.FILE_TOO_LARGE if size > MAX_FILE_SIZE else ErrorCode.BAD_REQUEST
        return fail(transfer, event.now, code, str(error))
    transfer = _with_urls_for(
        plan, replace(transfer, source=event.fingerprint, opened=event.fingerprint, doubtful=event.racy)
    )
    if event.digest is not None:
        transfer = replace(transfer, ahead={1: event.digest})
    if event.racy and not transfer.prefix and not transfer.digested:
        return _still_changing(transfer, event)
    # A request keeps the source in its own record; parts that need no request must find it in the journal.
    return transfer, (Keep(progress_record(transfer)),) if transfer.grants else ()


def _compare(transfer: Transfer, event: Opened) -> Step:
    if not is_same_file(transfer, event.fingerprint):
        return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "the file changed while the upload was interrupted")
    if event.racy and not transfer.prefix and not transfer.digested:
        return _still_changing(transfer, event)
    unchecked = PartSet.of(transfer.digests)
    transfer = replace(transfer, opened=event.fingerprint, doubtful=event.racy, unchecked=unchecked)
    return _with_urls_for(transfer.plan, transfer), ()


def _still_changing(transfer: Transfer, event: Opened) -> Step:
    return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "the file kept changing when it was opened")


def _with_urls_for(plan: PartPlan, transfer: Transfer) -> Transfer:
    """Surplus parts of a pre-granted command are ignored."""
    grants = {number: grant for number, grant in transfer.grants.items() if number <= plan.total}
    return replace(transfer, grants=grants, last_granted=PartSet.of(grants))


# Parts.


def worker_free(transfer: Transfer, event: WorkerFree) -> Step:
    """Start the next part whose URL lives long enough for it."""
    transfer = drop_stale(transfer, event.now, event.rate)
    number = pick_part(transfer, event.now)
    effects: tuple[Effect, ...] = ()
    if number is not None:
        transfer = replace(transfer, in_flight=transfer.in_flight | PartSet.of([number]))
        effects = (PutPart(transfer.grants[number].url, transfer.plan.part(number), transfer.contents.get(number)),)
    transfer, more = advance(transfer, event.now)
    return transfer, effects + more


def host_paused(transfer: Transfer, event: HostPaused) -> Step:
    """Start no part before the pause of its host is over."""
    return advance(replace(transfer, paused_until=max(transfer.paused_until, event.until)), event.now)


def barred(transfer: Transfer, event: Barred) -> Step:
    """Begin no part and request no URL while there is a reason; what is in flight continues. URLs expire meanwhile."""
    if transfer.state in BEFORE_OPEN:
        return replace(transfer, barred=event.reason), ()
    transfer = drop_stale(transfer, event.now)
    request = None if transfer.preparing_request else transfer.request
    return advance(replace(transfer, barred=event.reason, request=request), event.now)


def part_stored(transfer: Transfer, event: PartStored) -> Step:
    """A part is in the object store, unless the file changed while it was read."""
    if transfer.state not in _OPEN:
        return _stored_late(transfer, event)
    transfer = replace(transfer, in_flight=transfer.in_flight - PartSet.of([event.number]))
    if event.seen.fingerprint is None:
        return advance(transfer, event.now)
    fault = source_fault(transfer, event.seen, event.number)
    if fault is not None:
        return fail(transfer, event.now, *fault)
    transfer, effects = _keep(_doubted(transfer, event), event)
    transfer, more = advance(transfer, event.now)
    return transfer, effects + more


def part_failed(transfer: Transfer, event: PartFailed) -> Step:
    """A part is not in the object store: end when the source changed, else as the kind of failure demands."""
    if transfer.state not in _OPEN:
        return transfer, ()
    transfer = replace(transfer, in_flight=transfer.in_flight - PartSet.of([event.number]))
    fault = None if event.kind is PutFailure.STOPPED else source_fault(transfer, event.seen, event.number)
    if fault is not None:
        return fail(transfer, event.now, *fault)
    transfer, effects = _after_failure(_doubted(transfer, event), event)
    if transfer.ending is not None:
        return transfer, effects
    transfer, more = advance(transfer, event.now)
    return transfer, effects + more


def _doubted(transfer: Transfer, event: PartStored | PartFailed) -> Transfer:
    changed = event.seen.fingerprint not in {None, transfer.opened}
    return replace(transfer, doubtful=True) if changed else transfer


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
        contents=_without(transfer.contents, number),
        offered=_without(transfer.offered, number),
        grants=_without(transfer.grants, number),
        retries=_without(transfer.retries, number),
        failures=0,
        renewals=0,
        unreadable=0,
        unreadable_since=None,
    )
    return transfer, (Keep(PartKept(upload_id, number, event.etag, digest)),)


def _stored_late(transfer: Transfer, event: PartStored) -> Step:
    """A part that was in flight when the upload was interrupted: kept if the upload may be resumed.

    The file is not examined now, so only a part with a digest is kept: it is digested again after a resume.
    """
    ending = transfer.ending
    final = ending is not None and not may_resume(ending)
    return (transfer, ()) if final or event.number not in transfer.offered else _keep(transfer, event)


_FINAL: Final[Mapping[PutFailure, ErrorCode]] = {
    PutFailure.GONE: ErrorCode.UPLOAD_GONE,
    PutFailure.SOURCE_CHANGED: ErrorCode.SOURCE_CHANGED,
    PutFailure.HOST_NOT_ALLOWED: ErrorCode.HOST_NOT_ALLOWED,
    PutFailure.BAD_HEADER: ErrorCode.BAD_REQUEST,
}
"""Failures that end the attempt at once."""


def _after_failure(transfer: Transfer, event: PartFailed) -> Step:
    match event.kind:
        case PutFailure.STOPPED:
            return transfer, ()
        case PutFailure.TRY_AGAIN:
            return _try_again(transfer, event)
        case PutFailure.EXPIRED_OR_FORBIDDEN | PutFailure.REFUSED:
            return _forbidden(transfer, event)
        case PutFailure.BAD_DIGEST:
            return _mismatched(transfer, event)
        case PutFailure.SOURCE_UNREADABLE:
            return _unreadable(transfer, event.now, event.text)
        case PutFailure.GONE | PutFailure.SOURCE_CHANGED | PutFailure.HOST_NOT_ALLOWED | PutFailure.BAD_HEADER:
            return fail(transfer, event.now, _FINAL[event.kind], event.text)
        case _:
            assert_never(event.kind)


def _try_again(transfer: Transfer, event: PartFailed) -> Step:
    retry = _retry_of(transfer, event)
    retry = replace(retry, failures=retry.failures + 1, text=event.text)
    transfer = replace(transfer, failures=transfer.failures + 1)
    if retry.failures >= MAX_PART_FAILURES or transfer.failures >= MAX_UPLOAD_FAILURES:
        return fail(transfer, event.now, ErrorCode.STORAGE_UNAVAILABLE, event.text)
    if event.retry_after is not None:
        pause = min(event.retry_after, LONGEST_PAUSE)
        transfer = replace(transfer, paused_until=max(transfer.paused_until, event.now + pause))
    return _later(transfer, event, retry, retry.failures), ()


def _forbidden(transfer: Transfer, event: PartFailed) -> Step:
    """After its life a URL is only renewed. A refusal before that counts, and the URL is renewed too: keys rotate."""
    grant = transfer.grants.get(event.number)
    without = replace(transfer, grants=_without(transfer.grants, event.number))
    expired = grant is not None and grant.expires_at is not None and event.now >= grant.expires_at
    if expired and event.kind is PutFailure.EXPIRED_OR_FORBIDDEN:
        return replace(without, renewals=transfer.renewals + 1), ()
    retry = _retry_of(transfer, event)
    retry = replace(retry, refusals=retry.refusals + 1, text=event.text)
    if retry.refusals >= MAX_REFUSALS:
        return fail(transfer, event.now, ErrorCode.STORAGE_REFUSED, event.text)
    return _later(without, event, retry, retry.refusals), ()


def _mismatched(transfer: Transfer, event: PartFailed) -> Step:
    if transfer.doubtful and not transfer.prefix:
        return fail(transfer, event.now, ErrorCode.SOURCE_CHANGED, "the file changed before a part of it was sent")
    retry = _retry_of(transfer, event)
    retry = replace(retry, mismatches=retry.mismatches + 1, text=event.text)
    if retry.mismatches >= MAX_MISMATCHES:
        return fail(transfer, event.now, ErrorCode.DIGEST_MISMATCH, event.text)
    return _later(transfer, event, retry, retry.mismatches), ()


def _later(transfer: Transfer, event: PartFailed, retry: PartRetry, tries: int) -> Transfer:
    pause = full_jitter(tries, FIRST_BACKOFF, LONGEST_BACKOFF, event.jitter)
    retry = replace(retry, until=event.now + pause)
    return replace(transfer, retries={**transfer.retries, event.number: retry})


def _retry_of(transfer: Transfer, event: PartFailed) -> PartRetry:
    return transfer.retries.get(event.number, PartRetry())


def _without(parts: Mapping[int, T], number: int) -> dict[int, T]:
    return {known: value for known, value in parts.items() if known != number}


# Time.


def ticked(transfer: Transfer, event: Tick) -> Step:
    """Publish an unanswered response again, give up a silent owner, and continue where a pause is over."""
    if transfer.state in BEFORE_OPEN:
        return transfer, ()
    gives_up = give_up_at(transfer)
    if gives_up is not None and event.now >= gives_up:
        if transfer.ending is not None:
            return _close(transfer, WriteTombstone(_outcome_of(transfer.ending)))
        return fail(transfer, event.now, ErrorCode.OWNER_SILENT, "the owner of the upload has not answered")
    again: tuple[Effect, ...] = ()
    due = transfer.republish_at is not None and event.now >= transfer.republish_at
    if due and (transfer.awaiting_grant or transfer.ending):
        transfer = schedule_republish(replace(transfer, repeats=transfer.repeats + 1), event.now, event.jitter)
        again = latest_effects(transfer)
    if transfer.ending is not None:
        return transfer, again
    transfer, effects = advance(transfer, event.now)
    return transfer, again + effects


def _outcome_of(ending: Ending) -> Outcome:
    return {
        ResponseStatus.SUCCESS: Outcome.COMPLETED,
        ResponseStatus.CANCELLED: Outcome.CANCELLED,
        ResponseStatus.REJECTED: Outcome.REJECTED,
    }.get(ending.status, Outcome.FAILED)
