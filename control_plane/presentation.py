"""How uploads are shown: status values, progress, instants, and the one document of an upload.

Rule: pure functions over the domain and the services' views. REST and the command line show an upload with
`upload_document` and nothing else, so both always agree. A fact that is not known yet is None, never a guess.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

from control_plane.domain.changes import Change, NumberedChange, subject_of
from control_plane.domain.reasons import Reason
from control_plane.domain.uploads.afterwards import after_state
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.uploads.views import UploadView


class Status(StrEnum):
    """The coarse state of an upload: one value for several of the domain's states."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ReceiptState(StrEnum):
    """How far the receipt of an upload is: it is to be made, or who has signed it.

    `CONTROL_PLANE` has signed alone, and vouches alone; with `DEVICE` both have.
    """

    AWAITED = "awaited"
    CONTROL_PLANE = "control-plane"
    DEVICE = "device"


STATUS: Final[Mapping[State, Status]] = {
    State.QUEUED: Status.QUEUED,
    State.DISPATCHED: Status.IN_PROGRESS,
    State.IN_PROGRESS: Status.IN_PROGRESS,
    State.COMPLETING: Status.IN_PROGRESS,
    State.COMPLETED: Status.COMPLETED,
    State.FAILED: Status.FAILED,
    State.REJECTED: Status.FAILED,
    State.CANCELLED: Status.CANCELLED,
    State.EXPIRED: Status.FAILED,
}
_INSTANTS: Final = frozenset({"at", "nominal_at"})
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - of UTC
_YEAR_10000: Final = 253_402_300_800.0
"""The first instant that no calendar can show."""


def states_of(status: Status | None, state: State | None) -> frozenset[State] | None:
    """The states that match both filters; None when neither is given."""
    if status is None and state is None:
        return None
    return frozenset(one for one in State if status in (None, STATUS[one]) and state in (None, one))


def instant(at: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond; None for an instant that never comes.

    >>> instant(1761991200.25)
    '2025-11-01T10:00:00.250Z'
    """
    return None if at is None or at >= _YEAR_10000 else known_instant(at)


def known_instant(at: float) -> str:
    """`instant` of an event in the past, which always has one."""
    # Without a time zone, which would double the time: a page of uploads has hundreds of instants.
    return (_EPOCH + timedelta(seconds=at)).isoformat(timespec="milliseconds") + "Z"


def bytes_uploaded(upload: Upload) -> int:
    """The size of the stored parts, or the bytes that the client reports as sent, whichever is more."""
    plan = upload.plan
    if plan is None or upload.file_size is None:
        return 0
    if upload.state is State.COMPLETED:
        return upload.file_size
    # A row of a list may hold thousands of parts. All but the last have one size, so counting them is enough.
    stored = [number for number, part in upload.parts.items() if part.stored and 1 <= number <= plan.total]
    missing_from_last = plan.part_size * plan.total - upload.file_size if plan.total in stored else 0
    return max(len(stored) * plan.part_size - missing_from_last, min(upload.bytes_sent, upload.file_size))


def progress(upload: Upload) -> float:
    """0 to 100 by bytes, rounded down to a tenth, so that 100 means that every byte is uploaded."""
    if upload.state is State.COMPLETED:
        return 100.0
    return math.floor(1000 * bytes_uploaded(upload) / upload.file_size) / 10 if upload.file_size else 0.0


def completed_parts(upload: Upload) -> int:
    """How many parts the client reported as stored; all of them once the object is complete."""
    plan = upload.plan
    if plan is not None and upload.state is State.COMPLETED:
        return plan.total
    return sum(part.stored for part in upload.parts.values())


def reason_document(reason: Reason | None, next_wake_at: float | None = None) -> dict[str, str | None] | None:
    """A reason, ready for JSON; None while nothing has to wait, and nothing ended badly.

    `next_wake_at` (s since the epoch) is when the cause is looked at next, if that is known.
    """
    if reason is None:
        return None
    return {"code": str(reason.code), "text": reason.text, "next_wake_at": instant(next_wake_at)}


def progress_document(upload: Upload) -> dict[str, Any]:
    """How far one upload is, ready for JSON: what changes between two changes of its state.

    `reason_code` is the last cause of a wait that its client reported.
    """
    return {
        "upload_id": upload.upload_id,
        "client_id": upload.client_id,
        "state": upload.state,
        "attempt": upload.attempt,
        "progress": progress(upload),
        "bytes_uploaded": bytes_uploaded(upload),
        "file_size": upload.file_size,
        "completed_parts": completed_parts(upload),
        "total_parts": None if upload.plan is None else upload.plan.total,
        "reason_code": None if upload.reason is None else str(upload.reason.code),
    }


def change_document(change: Change) -> dict[str, Any]:
    """The facts of one change, ready for JSON; its type and number are not among them."""
    facts = {one.name: getattr(change, one.name) for one in fields(change)}
    return {name: known_instant(value) if name in _INSTANTS else value for name, value in facts.items()}


def cloud_event(numbered: NumberedChange, source: str) -> dict[str, Any]:
    """One change as CloudEvents 1.0; `source` identifies the installation."""
    change = numbered.change
    return {
        "specversion": "1.0",
        "id": str(numbered.number),
        "source": source,
        "type": change.name,
        "subject": subject_of(change),
        "time": known_instant(change.at),
        "datacontenttype": "application/json",
        "data": change_document(change),
    }


def cloud_event_json(numbered: NumberedChange, source: str) -> str:
    """`cloud_event` as one line of JSON."""
    return msgspec.json.encode(cloud_event(numbered, source)).decode()


def after_document(upload: Upload) -> dict[str, str | None] | None:
    """What the device is to do with the file, and what became of it; None where the file stays as it is."""
    found = after_state(upload)
    if found is None:
        return None
    code, text = found.code, found.text
    return {"asked": found.asked, "outcome": found.outcome, "at": instant(found.at), "code": code, "text": text}


def receipt_state(upload: Upload) -> ReceiptState | None:
    """How far the receipt is; None where none is made."""
    receipt = upload.receipt
    if receipt is None:
        return None
    if receipt.envelope is None:
        return ReceiptState.AWAITED
    return ReceiptState.CONTROL_PLANE if receipt.device_key is None else ReceiptState.DEVICE


def upload_document(view: UploadView) -> dict[str, Any]:
    """One upload with REST's member names, ready for JSON."""
    upload = view.upload
    return {
        "upload_id": upload.upload_id,
        "client_id": upload.client_id,
        "file_path": upload.file_path,
        "s3_key": upload.s3_key,
        "status": STATUS[upload.state],
        "state": upload.state,
        "progress": progress(upload),
        "completed_parts": completed_parts(upload),
        "total_parts": None if upload.plan is None else upload.plan.total,
        "bytes_uploaded": bytes_uploaded(upload),
        "file_size": upload.file_size,
        "attempt": upload.attempt,
        "proof": upload.proof,
        "receipt": receipt_state(upload),
        "reason": reason_document(view.reason, view.next_wake_at),
        "error": upload.error,
        "message": upload.message,
        "metadata": dict(upload.metadata),
        "after": after_document(upload),
        "encrypt_to": list(upload.options.encrypt_to),
        "origin": upload.origin,
        "job_id": upload.job_id,
        "deadline": instant(upload.deadline),
        "created_at": known_instant(upload.created_at),
        "updated_at": known_instant(upload.updated_at),
        "completed_at": instant(upload.completed_at),
    }
