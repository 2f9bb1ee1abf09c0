"""The source file of one upload: opened, cut into parts, digested, and compared with what it was.

Rule: pure. Within one open file every change counts; across a restart device and inode decide nothing, for reboots
change them.
"""

from dataclasses import replace

from device_agent.part_set import PartSet
from device_agent.transfer_events import Digested, Keep, Opened, Rechecked, Seen
from device_agent.transfer_state import Transfer, plan_of, progress_record
from device_agent.transfer_steps import Step, advance, fail, prepare, recheck
from schemas.errors import SchemaError
from schemas.parts import MAX_FILE_SIZE, PartPlan
from schemas.values import ErrorCode, Fingerprint


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
    transfer, effects = prepare(transfer, event.now) if transfer.preparing else (transfer, ())
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
