"""Uploads of other owners, as far as their commands and responses pass by.

Rule: an observed upload has no duties, and the table of transitions does not apply to it. A terminal state is final.
"""

from msgspec.structs import replace

from control_plane.domain.uploads.events import Observed
from control_plane.domain.uploads.model import TERMINAL, PartRecord, State, Upload
from schemas.values import ErrorCode


def observed(upload: Upload, event: Observed) -> Upload:
    """The upload after an observed command or response. An older attempt changes nothing."""
    if upload.state in TERMINAL or event.attempt < upload.attempt:
        return upload
    etags = {number: PartRecord(etag=etag) for number, etag in event.etags.items()}
    finished = upload.state is State.COMPLETING and event.state is State.IN_PROGRESS
    return replace(
        upload,
        state=upload.state if finished else event.state,
        attempt=event.attempt,
        file_size=upload.file_size if event.file_size is None else event.file_size,
        part_size=upload.chunk_size,
        parts={**upload.parts, **etags},
        error=event.error,
        message=event.text,
        completed_at=event.now if event.state in TERMINAL else None,
        client_busy=False,
    )


def expired_unclosed(upload: Upload, now: float) -> Upload:
    """The upload after its deadline: the client sent every part, and no close of its owner was observed."""
    text = "the client sent every part; its owner never published the outcome"
    return replace(upload, state=State.EXPIRED, error=ErrorCode.OWNER_SILENT, message=text, completed_at=now)
