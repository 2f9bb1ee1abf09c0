"""What an upload's state obliges its owner to do.

Rule: read off the state alone, so that whoever looks (after a crash, a restart, a lost message) finds the same duties.
"""

from dataclasses import replace
from typing import assert_never

from control_plane.domain.events import SAYINGS, Duty, Kind
from control_plane.domain.record import Upload
from control_plane.domain.values import State


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
    due = (duty for duty in duties(upload) if duty.kind in SAYINGS and duty.due_at <= now)
    return tuple(replace(duty, due_at=now) for duty in due)


def close(upload: Upload, now: float) -> tuple[Duty, ...]:
    """Release the client. Never kept: a client that was not released asks again."""
    return (Duty(Kind.SAY_CLOSE, upload.attempt, now),)


def _main(upload: Upload) -> Kind | None:
    match upload.state:
        case State.QUEUED | State.DISPATCHED:
            return Kind.SAY_DOWNLOAD
        case State.IN_PROGRESS:
            opened = upload.one_put or upload.s3_upload_id is not None
            return Kind.SAY_GRANT if opened else Kind.CREATE_MULTIPART
        case State.COMPLETING:
            return Kind.COMPLETE
        case State.COMPLETED | State.FAILED | State.REJECTED | State.CANCELLED | State.EXPIRED:
            return Kind.SAY_CANCEL if upload.client_busy else None
        case never:
            assert_never(never)
