"""A direct upload with REST's names, so that both ways print alike.

Rule: pure functions (protocol.md section 6).
"""

from datetime import UTC, datetime
from typing import Final

from control_plane.cli.rest.progress import Document
from control_plane.domain.uploads.model import TERMINAL, State, Upload
from control_plane.services.uploads.service import UploadView

_STATUS: Final = {
    State.QUEUED: "queued",
    State.COMPLETED: "completed",
    State.CANCELLED: "cancelled",
    State.FAILED: "failed",
    State.REJECTED: "failed",
    State.EXPIRED: "failed",
}


def document(view: UploadView) -> Document:
    """The upload with REST's names (protocol.md section 6)."""
    upload = view.upload
    plan, whole = upload.plan, upload.state is State.COMPLETED
    sent = _sent(upload)
    return {
        "upload_id": upload.upload_id,
        "client_id": upload.client_id,
        "file_path": upload.file_path,
        "s3_key": upload.s3_key,
        "status": _STATUS.get(upload.state, "in_progress"),
        "state": upload.state,
        "progress": 100.0 if whole else round(100 * sent / upload.file_size, 1) if upload.file_size else 0.0,
        "completed_parts": plan.total if plan and whole else len(upload.stored_parts),
        "total_parts": plan.total if plan else None,
        "bytes_uploaded": sent,
        "file_size": upload.file_size,
        "attempt": upload.attempt,
        "proof": upload.proof,
        "reason": None if upload.state in TERMINAL else view.reason,
        "next_wake_at": _instant(view.next_wake_at),
        "error": upload.error,
        "message": upload.message,
        "metadata": dict(upload.metadata),
        "origin": upload.origin,
        "created_at": _instant(upload.created_at),
        "updated_at": _instant(upload.updated_at),
        "completed_at": _instant(upload.completed_at),
    }


def _sent(upload: Upload) -> int:
    plan = upload.plan
    if plan is None or upload.file_size is None:
        return 0
    if upload.state is State.COMPLETED:
        return upload.file_size
    stored = plan.size_of(number for number in upload.stored_parts if number in plan.numbers)
    return max(stored, min(upload.bytes_sent, upload.file_size))


def _instant(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
