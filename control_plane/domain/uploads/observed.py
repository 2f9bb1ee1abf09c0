"""Uploads of other owners, as far as they are overheard.

Rule: nobody here decides anything about them, so the table of moves does not apply; an end that was heard is final.
"""

from dataclasses import replace

from control_plane.domain.uploads.events import Observed
from control_plane.domain.uploads.model import TERMINAL, PartRecord, State, Upload
from schemas.values import ErrorCode


def observed(upload: Upload, event: Observed) -> Upload:
    """The upload after something was overheard."""
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


def unclosed(upload: Upload, now: float) -> Upload:
    """The upload whose client sent everything, and whose owner never said what became of it."""
    text = "the client sent everything; its owner never said what became of it"
    return replace(upload, state=State.EXPIRED, error=ErrorCode.OWNER_SILENT, message=text, completed_at=now)
