"""Duties: what the owner must do while an upload is in its state.

Rule: duties follow from the state alone. After a crash, a restart or a lost message the same state gives the same
duties, on every replica.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never

from control_plane.domain.uploads.model import State, Upload


class Kind(StrEnum):
    """What a duty does. The values are stored in the outbox."""

    SEND_DOWNLOAD = "say_download"
    SEND_GRANT = "say_grant"
    SEND_CANCEL = "say_cancel"
    SEND_CLOSE = "say_close"
    CREATE_MULTIPART = "create_multipart"
    COMPLETE = "complete"
    ABORT_MULTIPART = "abort_multipart"
    DELETE_OBJECT = "delete_object"
    RECEIPT = "receipt"


COMMANDS: Final = frozenset({Kind.SEND_DOWNLOAD, Kind.SEND_GRANT, Kind.SEND_CANCEL, Kind.SEND_CLOSE})
"""Duties that publish a command; the others call the object store."""

CLEAN_UPS: Final = frozenset({Kind.ABORT_MULTIPART, Kind.DELETE_OBJECT, Kind.RECEIPT})
"""The duties that no upload waits for: a failed one explains nothing."""


@dataclass(frozen=True, slots=True)
class Duty:
    """One thing that the owner must do from `due_at` (s since the epoch) on, until the state no longer requires it.

    `target` distinguishes duties of one kind: the S3 upload id to abort, or the key of the object to delete. Performing
    a duty twice is safe.
    """

    kind: Kind
    attempt: int
    due_at: float
    target: str = ""


def duties(upload: Upload) -> tuple[Duty, ...]:
    """All that this upload requires, each from its `due_at` on; empty when it is over and nothing is left to remove."""
    main = _main(upload)
    kept = () if main is None else (Duty(main, upload.attempt, upload.resume_at),)
    aborts = tuple(Duty(Kind.ABORT_MULTIPART, upload.attempt, 0.0, one) for one in upload.litter)
    deletes = tuple(Duty(Kind.DELETE_OBJECT, upload.attempt, one.after, one.s3_key) for one in upload.strays)
    return kept + aborts + deletes + receipt_duty(upload)


def answer(upload: Upload, now: float) -> tuple[Duty, ...]:
    """The command to send again to a client that repeats itself at `now` (s): it may not have received the last one.

    A command that a backoff delays is not sent sooner for that; of one that the gate holds, the wait is sent again.
    """
    due = (duty for duty in duties(upload) if duty.kind in COMMANDS and (duty.due_at <= now or upload.held))
    return tuple(replace(duty, due_at=now) for duty in due)


def close(upload: Upload, now: float) -> tuple[Duty, ...]:
    """The command that releases the client. It is never stored: a client that was not released repeats its response."""
    return (Duty(Kind.SEND_CLOSE, upload.attempt, now),)


def receipt_duty(upload: Upload) -> tuple[Duty, ...]:
    """What is to be done for the receipt: to make it, once the device is waited for no longer, and to store it."""
    receipt = upload.receipt
    if receipt is None or receipt.done_at is not None:
        return ()
    waits = receipt.wanted and receipt.envelope is None
    return (Duty(Kind.RECEIPT, upload.attempt, receipt.wait_until if waits else 0.0),)


def _main(upload: Upload) -> Kind | None:
    match upload.state:
        case State.QUEUED | State.DISPATCHED:
            return Kind.SEND_DOWNLOAD
        case State.IN_PROGRESS:
            return Kind.SEND_GRANT if upload.opened else Kind.CREATE_MULTIPART
        case State.COMPLETING:
            return Kind.COMPLETE
        case State.COMPLETED | State.FAILED | State.REJECTED | State.CANCELLED | State.EXPIRED:
            return Kind.SEND_CANCEL if upload.client_busy else None
        case never:
            assert_never(never)
