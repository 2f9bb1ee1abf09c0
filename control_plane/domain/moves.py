"""The table of moves, and the moves themselves.

Rule: the state of an upload changes here and nowhere else, by `move`, and only as `TRANSITIONS` has it.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

from control_plane.domain.duties import duties
from control_plane.domain.events import Effect
from control_plane.domain.record import Stray, Upload
from control_plane.domain.values import MAX_ATTEMPTS, State

PUT_URL_LIFE: Final = 300.0
"""Seconds that a PutObject URL lives at most: nothing but time fences it (protocol.md section 3)."""

_CLOCK_MARGIN: Final = 60.0


class Move(StrEnum):
    """What an event comes to."""

    DISPATCH = "the command is published"
    OFFER = "the client offers or asks"
    RESUME = "the same attempt is told again"
    RESTART = "a new attempt"
    FINISH = "every part is stored"
    PROVE = "the object is proven"
    FAIL = "given up"
    REJECT = "the client refuses"
    CANCEL = "cancelled"
    EXPIRE = "the deadline passes"


ENDS: Final = {
    Move.FAIL: State.FAILED,
    Move.REJECT: State.REJECTED,
    Move.CANCEL: State.CANCELLED,
    Move.EXPIRE: State.EXPIRED,
}
_WORKING: Final = {
    Move.OFFER: State.IN_PROGRESS,
    Move.RESUME: State.QUEUED,
    Move.RESTART: State.QUEUED,
    Move.FINISH: State.COMPLETING,
    **ENDS,
}

TRANSITIONS: Final[Mapping[State, Mapping[Move, State]]] = {
    State.QUEUED: {Move.DISPATCH: State.DISPATCHED, **_WORKING},
    State.DISPATCHED: _WORKING,
    State.IN_PROGRESS: _WORKING,
    State.COMPLETING: {Move.PROVE: State.COMPLETED, Move.RESTART: State.QUEUED, Move.FAIL: State.FAILED},
    State.COMPLETED: {},
    State.FAILED: {},
    State.REJECTED: {},
    State.CANCELLED: {},
    State.EXPIRED: {},
}

Applied = tuple[Upload, tuple[Effect, ...]]


def move(upload: Upload, by: Move, **changes: Any) -> Upload:  # noqa: ANN401 - any field, checked by the dataclass
    """The upload after one row of the table, with `changes` to its other fields."""
    return replace(upload, state=TRANSITIONS[upload.state][by], **changes)


def new_attempt(upload: Upload, now: float, error: str, text: str, *, delay: float = 0.0) -> Applied:
    """A new S3 upload id fences the old attempt; an object that was PUT whole gets another key."""
    if upload.attempt >= MAX_ATTEMPTS:
        return ended(upload, Move.FAIL, now, error, f"{text} (attempt {upload.attempt} of {MAX_ATTEMPTS})")
    after = move(
        _left_behind(upload, now),
        Move.RESTART,
        attempt=upload.attempt + 1,
        sequence=0,
        s3_key=_next_key(upload) if _key_is_used(upload) else upload.s3_key,
        one_put=False,
        file_size=None,
        part_size=None,
        fingerprint=None,
        parts={},
        wanted=(),
        resume_at=now + delay,
        reason=sentence(error, text),
        bytes_sent=0,
        strikes=0,
    )
    return after, duties(after)


def _key_is_used(upload: Upload) -> bool:
    """Whether an object is, or may come to be, under the key: what is to be deleted must not be the next attempt's."""
    return upload.one_put or any(stray.s3_key == upload.s3_key for stray in upload.strays)


def _next_key(upload: Upload) -> str:
    folder, _, name = upload.s3_key.rpartition("/")
    return f"{folder}/{upload.token[:8]}-{upload.attempt + 1}-{name}"


def ended(upload: Upload, by: Move, now: float, error: str | None, text: str) -> Applied:
    """The upload is over. A client that may still be working on it has to be told so."""
    changes = {"error": error, "message": text, "reason": None, "wanted": (), "completed_at": now, "strikes": 0}
    after = move(_left_behind(upload, now), by, **changes)
    return after, duties(after)


def _left_behind(upload: Upload, now: float) -> Upload:
    """Note what an abandoned attempt leaves at the store, to be removed."""
    litter, strays = upload.litter, upload.strays
    if upload.s3_upload_id is not None:
        litter = (*litter, upload.s3_upload_id)
    if upload.one_put:
        strays = (*strays, Stray(upload.s3_key, upload.object_token, now + PUT_URL_LIFE + _CLOCK_MARGIN))
    return replace(upload, s3_upload_id=None, litter=litter, strays=strays)


def sentence(code: str, text: str) -> str:
    """An error code and what its sender said about it."""
    return f"{code}: {text}" if text else str(code)
