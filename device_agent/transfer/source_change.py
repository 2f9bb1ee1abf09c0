"""Whether the source is still the file that was read: while it is open, and after a restart.

Rule: pure. Every comparison of a source with what was read of it is here. A size and a time come from the file
system; where they do not show whether the content changed, the answer is `DOUBTFUL`, and what was read is digested
again.
"""

from enum import Enum
from typing import Final

from device_agent.transfer.events import Seen
from device_agent.transfer.model import Transfer
from device_agent.transfer.part_set import NO_PARTS, PartSet
from schemas.values import ErrorCode, Fingerprint

_TICK: Final = 20_000_000
"""Nanoseconds: the kernel moves file times with its tick of 1 to 10 ms, however many digits they have."""

_COARSEST: Final = 2_000_000_000
"""Nanoseconds: FAT has two seconds. Whole seconds do not show whether there are one or two."""


class Sameness(Enum):
    """What a comparison of two fingerprints shows about the content."""

    SAME = "same"
    DOUBTFUL = "doubtful"
    """Only the content can show it."""
    CHANGED = "changed"


def granularity(found: Fingerprint) -> int:
    """Nanoseconds within which two changes may leave equal times, as the trailing zeros of these times show."""
    return min(_granularity(found.mtime_ns), _granularity(found.ctime_ns))


def _granularity(time_ns: int) -> int:
    step = 1
    while step < _COARSEST and time_ns % step == 0:
        step *= 10
    return _COARSEST if step > _COARSEST else max(_TICK, step // 10)


def is_racy(found: Fingerprint, now_ns: int) -> bool:
    """Whether a later change could leave this fingerprint as it is: the file changed too short a time before `now_ns`.

    `now_ns` is the device's clock, not later than the moment of the fingerprint. A time in the future is racy too.
    """
    return now_ns - max(found.mtime_ns, found.ctime_ns) < granularity(found)


def compare(before: Fingerprint, after: Fingerprint, *, prefix: bool, racy: bool = False) -> Sameness:
    """Compare two fingerprints of one open file; `racy` of the first. Under `prefix` only lost bytes are a change."""
    if before == after:
        return Sameness.DOUBTFUL if racy else Sameness.SAME
    if prefix:
        return Sameness.CHANGED if after.size < before.size else Sameness.DOUBTFUL
    return Sameness.DOUBTFUL if _only_ctime_differs(before, after) else Sameness.CHANGED


def source_fault(transfer: Transfer, seen: Seen, number: int) -> tuple[ErrorCode, str] | None:
    """How the source has changed after part `number` was read; None also while a comparison of digests can decide.

    Within one open file every change counts, so device and inode are compared too.
    """
    if seen.fingerprint is None or transfer.opened is None:
        return None
    if transfer.prefix:
        text = "the file became shorter than it was when the upload began"
        return (ErrorCode.SOURCE_CHANGED, text) if seen.fingerprint.size < transfer.plan.file_size else None
    if seen.gone:
        return ErrorCode.SOURCE_GONE, "the file was deleted while it was uploaded"
    if not seen.linked:
        return ErrorCode.SOURCE_CHANGED, "the file was replaced by another while it was uploaded"
    verdict = compare(transfer.opened, seen.fingerprint, prefix=False)
    undecidable = verdict is Sameness.DOUBTFUL and not _have_digests(transfer, PartSet.of([number]))
    if verdict is Sameness.CHANGED or undecidable:
        return ErrorCode.SOURCE_CHANGED, "the file changed while it was uploaded"
    if not seen.ends:
        return ErrorCode.SOURCE_CHANGED, "the file has more bytes than its size"
    return None


def is_same_file(transfer: Transfer, found: Fingerprint) -> bool:
    """Compare for a resume, after which stored parts are digested again.

    Device and inode are left out, because a reboot changes them. ctime is left out where every stored part has a
    digest: a new owner, mode or link changes it too.
    """
    source = transfer.source
    if source is None:
        return True
    if transfer.prefix:
        return found.size >= source.size
    if (found.size, found.mtime_ns) != (source.size, source.mtime_ns):
        return False
    return found.ctime_ns == source.ctime_ns or _have_digests(transfer)


def compare_later(before: Fingerprint, after: Fingerprint) -> Sameness:
    """Compare a file with what was sent of it, maybe before a reboot: never `SAME`, only the content can show that.

    A reboot changes device and inode, a rename the ctime. The file is digested before anything is given up.
    """
    same = (before.size, before.mtime_ns) == (after.size, after.mtime_ns)
    return Sameness.DOUBTFUL if same else Sameness.CHANGED


def compare_renamed(before: Fingerprint, after: Fingerprint) -> Sameness:
    """Compare one open file before and after it was renamed, which changes its ctime and nothing else."""
    return Sameness.SAME if before == after or _only_ctime_differs(before, after) else Sameness.CHANGED


def _only_ctime_differs(before: Fingerprint, after: Fingerprint) -> bool:
    return (before.size, before.mtime_ns, before.device, before.inode) == (
        after.size,
        after.mtime_ns,
        after.device,
        after.inode,
    )


def _have_digests(transfer: Transfer, more: PartSet = NO_PARTS) -> bool:
    """Whether every stored part, and each of `more`, has a digest that the file can be compared with."""
    known = PartSet.of(transfer.digests) | PartSet.of(transfer.offered)
    return not (transfer.done | more) - known
