"""Whether the source is still the file that was read: while it is open, and after a restart.

Rule: pure. Every comparison of a source with what was read of it is here.
"""

from device_agent.transfer.events import Seen
from device_agent.transfer.model import Transfer
from schemas.values import ErrorCode, Fingerprint


def source_fault(transfer: Transfer, seen: Seen) -> tuple[ErrorCode, str] | None:
    """How the source has changed: under `prefix` only lost bytes count, else any change.

    Within one open file every change counts, so device and inode are compared too.
    """
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


def is_same_file(transfer: Transfer, found: Fingerprint) -> bool:
    """Compare for a resume: device and inode are left out, because a reboot changes them."""
    source = transfer.source
    if source is None:
        return True
    if transfer.prefix:
        return found.size >= source.size
    return (found.size, found.mtime_ns, found.ctime_ns) == (source.size, source.mtime_ns, source.ctime_ns)
