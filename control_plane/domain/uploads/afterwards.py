"""What is done with the file of a device after its upload: what was asked, and the device's receipt.

Rule: pure. A receipt changes nothing but itself, and the first one counts. It is acknowledged by a close, like every
response of an upload that is over; an upload that is not over here (a database from before) has no use for it yet.
"""

from msgspec import Struct
from msgspec.structs import replace

from control_plane.domain.uploads.duties import Duty, answer, close
from control_plane.domain.uploads.events import AfterReported
from control_plane.domain.uploads.model import TERMINAL, AfterReceipt, State, Upload
from schemas.messages import KEEP
from schemas.values import AfterOutcome


class AfterState(Struct, frozen=True):
    """What was asked, and what became of the file; `at` in seconds since the epoch."""

    asked: str
    outcome: AfterOutcome
    at: float | None = None
    code: str | None = None
    text: str | None = None


def after_reported(upload: Upload, event: AfterReported) -> tuple[Upload, tuple[Duty, ...]]:
    """The upload with its receipt, and the close that acknowledges it."""
    if upload.state not in TERMINAL:
        return upload, answer(upload, event.now)
    known = upload.after == KEEP or upload.after_receipt is not None
    if not known and upload.state is State.COMPLETED:
        receipt = AfterReceipt(event.outcome, event.now, event.code, event.text)
        upload = replace(upload, after_receipt=receipt)
    if event.sequence is not None and event.sequence > upload.sequence:
        upload = replace(upload, sequence=event.sequence)
    return upload, close(upload, event.now)


def after_state(upload: Upload) -> AfterState | None:
    """What the device is to do and what became of it; None for an upload without such a request."""
    if upload.after == KEEP:
        return None
    receipt = upload.after_receipt
    if receipt is not None:
        return AfterState(upload.after, AfterOutcome.read(receipt.outcome), receipt.at, receipt.code, receipt.text)
    if upload.state in TERMINAL and upload.state is not State.COMPLETED:
        text = f"the upload ended as {upload.state}: nothing is proven"
        return AfterState(upload.after, AfterOutcome.KEPT, upload.completed_at, text=text)
    return AfterState(upload.after, AfterOutcome.PENDING)
