"""What the owner of an upload says: the command once more, and URLs for some of its parts.

Rule: pure. What was heard before changes nothing.
"""

from dataclasses import replace
from typing import Final

from device_agent.part_set import PartSet
from device_agent.records import PartKept, Settled
from device_agent.transfer_answers import latest_response
from device_agent.transfer_events import Effect, Granted, Keep, Repeated, Say
from device_agent.transfer_state import State, Transfer, acknowledge, grant_of, progress_record, settle
from device_agent.transfer_steps import BEFORE_OPEN, Step, advance, fail, may_resume, say_again
from schemas.values import DigestName, ErrorCode

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
    transfer, again = say_again(transfer, event.now)
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
        return say_again(transfer, event.now)
    before = transfer.settled
    transfer, effects = _settle_completed(transfer, event)
    transfer = _take_urls(transfer, event, answers=answers, news=transfer.settled != before)
    if transfer.state in BEFORE_OPEN:
        return transfer, effects
    again = _echo(transfer, event.now) if transfer.asking else ()
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
        trouble={},
        failures=0,
        renewals=0,
        hold_until=0.0,
        ask_after=0.0,
        empty_answers=0,
        say_at=None,
        unanswered_since=None,
    )
    return transfer, (Keep(progress_record(transfer)),)


def _echo(transfer: Transfer, now: float) -> tuple[Effect, ...]:
    response = latest_response(transfer)
    return () if response is None or now - transfer.said_at < _LOOP_PAUSE else (Say(response),)


def _answers(transfer: Transfer, event: Granted) -> bool:
    """Whether this grant answers the question at hand; an owner that never acknowledges is known by what it grants."""
    if transfer.question is None or not transfer.asking:
        return False
    if event.acknowledges:
        return event.acknowledges >= transfer.question.sequence
    return any(url.part_number in transfer.question.numbers for url in event.parts)


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
    useless = transfer.done | transfer.flying
    if not answers:
        useless |= PartSet.of(transfer.grants)
    taken = {
        url.part_number: grant_of(url, event.now, event.lifetime)
        for url in event.parts
        if url.part_number not in useless and (total is None or url.part_number <= total)
    }
    transfer = replace(transfer, grants={**transfer.grants, **taken})
    if taken:
        transfer = replace(transfer, last_granted=PartSet.of(taken), empty_answers=0)
    if not answers or transfer.question is None:
        return transfer
    question = replace(transfer.question, answered=True)
    transfer = replace(transfer, question=question, say_at=None, unanswered_since=None)
    return transfer if taken or news else _pause_asking(transfer, event.now)


def _pause_asking(transfer: Transfer, now: float) -> Transfer:
    pause = min(_LONGEST_EMPTY_PAUSE, _EMPTY_PAUSE * 2 ** min(transfer.empty_answers, 16))
    return replace(transfer, empty_answers=transfer.empty_answers + 1, ask_after=now + pause)
