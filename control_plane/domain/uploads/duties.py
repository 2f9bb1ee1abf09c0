"""What an upload's state obliges its owner to do.

Rule: read off the state alone, so that whoever looks (after a crash, a restart, a lost message) finds the same duties.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never

from control_plane.domain.uploads.model import State, Upload


class Kind(StrEnum):
    """What a duty or a reply does."""

    SEND_DOWNLOAD = "say_download"
    SEND_GRANT = "say_grant"
    SEND_CANCEL = "say_cancel"
    SEND_CLOSE = "say_close"
    CREATE_MULTIPART = "create_multipart"
    COMPLETE = "complete"
    ABORT_MULTIPART = "abort_multipart"
    DELETE_OBJECT = "delete_object"


COMMANDS: Final = frozenset({Kind.SEND_DOWNLOAD, Kind.SEND_GRANT, Kind.SEND_CANCEL, Kind.SEND_CLOSE})


@dataclass(frozen=True, slots=True)
class Duty:
    """One thing that the state obliges the owner to do, from `due_at` on, until the state says otherwise.

    `target` tells duties of one kind apart: the S3 upload id to abort, the key of the object to delete.
    """

    kind: Kind
    attempt: int
    due_at: float
    target: str = ""


def duties(upload: Upload) -> tuple[Duty, ...]:
    """Everything to be done for this upload, each from its `due_at` on; empty when it is over and clean."""
    main = _main(upload)
    kept = () if main is None else (Duty(main, upload.attempt, upload.resume_at),)
    aborts = tuple(Duty(Kind.ABORT_MULTIPART, upload.attempt, 0.0, one) for one in upload.litter)
    deletes = tuple(Duty(Kind.DELETE_OBJECT, upload.attempt, one.after, one.s3_key) for one in upload.strays)
    return kept + aborts + deletes


def answer(upload: Upload, now: float) -> tuple[Duty, ...]:
    """What to say again to a client that repeats itself: it may not have heard the last time.

    What is only due later, after a backoff, is not said sooner for being asked.
    """
    due = (duty for duty in duties(upload) if duty.kind in COMMANDS and duty.due_at <= now)
    return tuple(replace(duty, due_at=now) for duty in due)


def close(upload: Upload, now: float) -> tuple[Duty, ...]:
    """Release the client. Never kept: a client that was not released asks again."""
    return (Duty(Kind.SEND_CLOSE, upload.attempt, now),)


def _main(upload: Upload) -> Kind | None:
    match upload.state:
        case State.QUEUED | State.DISPATCHED:
            return Kind.SEND_DOWNLOAD
        case State.IN_PROGRESS:
            opened = upload.one_put or upload.s3_upload_id is not None
            return Kind.SEND_GRANT if opened else Kind.CREATE_MULTIPART
        case State.COMPLETING:
            return Kind.COMPLETE
        case State.COMPLETED | State.FAILED | State.REJECTED | State.CANCELLED | State.EXPIRED:
            return Kind.SEND_CANCEL if upload.client_busy else None
        case never:
            assert_never(never)
