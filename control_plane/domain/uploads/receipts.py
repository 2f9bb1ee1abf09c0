"""The receipt of a completed upload: waited for, signed, stored.

Rule: pure. The upload is completed without it. The first receipt that its device has signed counts, also after the
control plane has signed one alone; a close then releases the device.
"""

from msgspec.structs import replace

from control_plane.domain.uploads.duties import Duty, close, receipt_duty
from control_plane.domain.uploads.events import ReceiptDone, ReceiptRefused, ReceiptSigned
from control_plane.domain.uploads.model import State, Upload, UploadReceipt


def receipt_signed(upload: Upload, event: ReceiptSigned) -> tuple[Upload, tuple[Duty, ...]]:
    """The upload with this receipt, which is to be stored; unless it has one that is as good."""
    receipt = _receipt(upload, event)
    effects = close(upload, event.now) if event.device_key is not None else ()
    better = receipt is not None and (receipt.envelope is None or (receipt.wanted and event.device_key is not None))
    if receipt is None or not better:
        return upload, effects
    signed = replace(
        receipt,
        envelope=event.envelope,
        witness_key=event.witness_key,
        device_key=event.device_key,
        done_at=None,
    )
    after = replace(upload, receipt=signed)
    return after, (close(after, event.now) if effects else ()) + receipt_duty(after)


def receipt_refused(upload: Upload, event: ReceiptRefused) -> tuple[Upload, tuple[Duty, ...]]:
    """The upload, without another request to its device: the control plane signs alone."""
    receipt = _receipt(upload, event)
    if receipt is None or not receipt.wanted:
        return upload, close(upload, event.now)
    after = replace(upload, receipt=replace(receipt, refused=event.text))
    return after, close(after, event.now) + receipt_duty(after)


def receipt_done(upload: Upload, event: ReceiptDone) -> tuple[Upload, tuple[Duty, ...]]:
    """The upload with nothing left to be done for its receipt, unless a better one came meanwhile."""
    receipt = _receipt(upload, event)
    if receipt is None or receipt.envelope != event.envelope:
        return upload, ()
    return replace(upload, receipt=replace(receipt, done_at=event.now)), ()


def _receipt(upload: Upload, event: ReceiptSigned | ReceiptRefused | ReceiptDone) -> UploadReceipt | None:
    return upload.receipt if upload.state is State.COMPLETED and event.attempt == upload.attempt else None
