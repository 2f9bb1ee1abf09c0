"""Reading an offer: is it still the same file, and does it fit the part plan?

Rule: questions only.
"""

from control_plane.domain.events import Asked
from control_plane.domain.record import Upload
from schemas.digests import raw_digest
from schemas.parts import PartPlan
from schemas.values import DigestName, Fingerprint


def other_file(upload: Upload, offer: Asked) -> bool:
    """Whether the offered file is another than the one that this attempt began with."""
    same_size = offer.file_size in {None, upload.file_size}
    if upload.options.on_change == "prefix" and same_size:
        return False
    return not same_size or not _same(offer.fingerprint, upload.fingerprint)


def contradiction(plan: PartPlan, digest: DigestName, offer: Asked) -> str | None:
    """What of the offer does not fit the plan, as a sentence; None when all does."""
    for part in offer.wanted:
        if part.part_number not in plan.numbers or part.size != plan.part(part.part_number).size:
            return f"part {part.part_number} of {part.size} bytes is not in the plan of {plan.total} parts"
        if digest is not DigestName.NONE and part.digest is None:
            return f"part {part.part_number} was offered without its {digest}"
        if part.digest is not None and raw_digest(digest, part.digest) is None:
            return f"part {part.part_number} was offered with {part.digest!r}, which is not a {digest} in base64"
    return None


def _same(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Compares what survives a reboot; device and inode numbers do not."""
    if one is None or other is None:
        return True
    return (one.size, one.mtime_ns, one.ctime_ns) == (other.size, other.mtime_ns, other.ctime_ns)
