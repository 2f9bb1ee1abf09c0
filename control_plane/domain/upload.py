"""The life of one upload, as its owner sees it: a table of moves, and `apply`.

Rule: whatever changes an upload is in this file. An event is first understood (which move does it mean, given what is
known?), then the table says where the move leads. An event from the device that means nothing now changes nothing and
is answered from the state, since it may be a repeat of one whose answer was lost.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Final, assert_never

from control_plane.domain.duties import answer, close, duties
from control_plane.domain.errors import IllegalTransition
from control_plane.domain.events import (
    REMOTE_EVENTS,
    Asked,
    CancelledByClient,
    CancelRequested,
    CompletionFailed,
    CompletionProven,
    DeadlinePassed,
    Dispatched,
    Effect,
    Errored,
    Event,
    Forgotten,
    LocalEvent,
    MultipartCreated,
    Progressed,
    Rejected,
    RemoteEvent,
    StepTimedOut,
    Succeeded,
    Swept,
)
from control_plane.domain.offers import contradiction, other_file
from control_plane.domain.record import Stray, Upload
from control_plane.domain.values import MAX_ATTEMPTS, MAX_STRIKES, OPEN, TERMINAL, PartRecord, Refusal, State
from schemas.errors import SchemaError
from schemas.parts import plan_parts
from schemas.values import ERRORS, ErrorCode, Follow

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


_ENDS: Final = {
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
    **_ENDS,
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


def apply(upload: Upload, event: Event) -> Applied:
    """The upload after `event`, and what is to be done at once.

    The same object comes back when nothing changed. `IllegalTransition` for a request of ours that the state forbids.
    """
    after, effects = _remote(upload, event) if isinstance(event, REMOTE_EVENTS) else _local(upload, event)
    if after is not upload:
        after = replace(after, updated_at=event.now)
    return after, effects


def _move(upload: Upload, move: Move, **changes: object) -> Upload:
    return replace(upload, state=TRANSITIONS[upload.state][move], **changes)  # type: ignore[arg-type]


# --- what the device says --------------------------------------------------------------------------------------------


def _remote(upload: Upload, event: RemoteEvent) -> Applied:
    if event.attempt < upload.attempt and not _knows_nothing(event):
        return upload, ()
    if upload.state in TERMINAL:
        return _after_the_end(upload, event)
    if isinstance(event, Progressed):
        return _progressed(upload, event), ()
    if event.attempt > upload.attempt:
        text = f"the client is at attempt {event.attempt}, which this database does not know"
        return _new_attempt(replace(upload, attempt=event.attempt), event.now, ErrorCode.UPLOAD_GONE, text)
    repeated = event.sequence is not None and event.sequence <= upload.sequence
    if repeated or upload.state is State.COMPLETING:
        return upload, answer(upload, event.now)
    after, effects = _new_response(_heard(upload, event), event)
    released = after.state in TERMINAL and not after.client_busy
    return after, effects + (close(after, event.now) if released else ())


def _knows_nothing(event: RemoteEvent) -> bool:
    """A client that was told to cancel what it never heard of cannot name the attempt."""
    return isinstance(event, CancelledByClient) and event.sequence is None


def _new_response(heard: Upload, event: Asked | Succeeded | Errored | Rejected | CancelledByClient) -> Applied:
    match event:
        case Asked():
            return _asked(heard, event)
        case Succeeded():
            return _succeeded(heard, event)
        case Errored():
            return _errored(heard, event)
        case Rejected():
            return _ended(heard, Move.REJECT, event.now, event.code, event.text)
        case CancelledByClient():
            return _ended(heard, Move.CANCEL, event.now, None, "cancelled on the client")
        case _:
            assert_never(event)


def _after_the_end(upload: Upload, event: RemoteEvent) -> Applied:
    if isinstance(event, Progressed):
        return upload, ()
    if isinstance(event, Asked) and upload.client_busy:
        return upload, answer(upload, event.now)
    return (replace(upload, client_busy=False) if upload.client_busy else upload), close(upload, event.now)


def _heard(upload: Upload, event: RemoteEvent) -> Upload:
    """A new response: its etags are kept, and it counts as a sign of life."""
    parts = dict(upload.parts)
    plan = upload.plan
    for number, etag in event.etags.items():
        if plan is not None and number in plan.numbers:
            parts[number] = replace(parts.get(number, PartRecord()), etag=etag)
    sequence = upload.sequence if event.sequence is None else event.sequence
    return replace(
        upload,
        parts=parts,
        sequence=sequence,
        touched_at=event.now,
        strikes=0,
        resume_at=0.0,
        reason=None,
        client_busy=isinstance(event, Asked),
    )


def _asked(upload: Upload, event: Asked) -> Applied:
    if upload.plan is None:
        offered = _with_plan(upload, event)
        if isinstance(offered, SchemaError):
            return _ended(upload, Move.FAIL, event.now, ErrorCode.FILE_TOO_LARGE, str(offered))
        upload = offered
    elif other_file(upload, event):
        return _new_attempt(upload, event.now, ErrorCode.SOURCE_CHANGED, "the file changed since its upload began")
    plan = upload.plan
    assert plan is not None  # noqa: S101 - for the type checker: the branches above saw to it
    if complaint := contradiction(plan, upload.digest, event):
        return _ended(upload, Move.FAIL, event.now, ErrorCode.BAD_REQUEST, complaint)
    parts = dict(upload.parts)
    for part in event.wanted:
        record = parts.get(part.part_number)
        if record is None or record.digest != part.digest or part.digest is None:
            parts[part.part_number] = PartRecord(digest=part.digest)
    after = _move(upload, Move.OFFER, parts=parts, wanted=event.wanted)
    return after, duties(after)


def _with_plan(upload: Upload, event: Asked) -> Upload | SchemaError:
    try:
        plan = plan_parts(event.file_size, upload.chunk_size)
    except SchemaError as error:
        return error
    parts = {n: PartRecord(etag=etag) for n, etag in event.etags.items() if n in plan.numbers}
    one_put = event.one_put and plan.total == 1 and upload.s3_upload_id is None
    return replace(
        upload,
        file_size=plan.file_size,
        part_size=plan.part_size,
        fingerprint=event.fingerprint,
        parts=parts,
        one_put=one_put,
    )


def _succeeded(upload: Upload, event: Succeeded) -> Applied:
    if upload.plan is None or upload.missing_parts:
        missing = ", ".join(map(str, upload.missing_parts[:5])) or "all"
        text = f"the client reported success, but nobody knows the etags of parts {missing}"
        return _new_attempt(upload, event.now, ErrorCode.BAD_REQUEST, text)
    after = _move(upload, Move.FINISH, wanted=())
    return after, duties(after)


def _errored(upload: Upload, event: Errored) -> Applied:
    match ERRORS[event.code].follow:
        case Follow.SAME_ATTEMPT:
            at = event.now + event.delay
            after = _move(upload, Move.RESUME, resume_at=at, reason=_sentence(event.code, event.text), wanted=())
            return after, duties(after)
        case Follow.NEW_ATTEMPT:
            return _new_attempt(upload, event.now, event.code, event.text, delay=event.delay)
        case Follow.FINAL:
            return _ended(upload, Move.FAIL, event.now, event.code, event.text)
        case never:
            assert_never(never)


def _sentence(code: str, text: str) -> str:
    return f"{code}: {text}" if text else str(code)


def _progressed(upload: Upload, event: Progressed) -> Upload:
    moved = event.bytes_sent != upload.bytes_sent
    if upload.state is State.COMPLETING or not (moved or event.reason):
        return upload
    return replace(
        upload, bytes_sent=event.bytes_sent, reason=event.reason, touched_at=event.now, strikes=0, client_busy=True
    )


# --- what we and the store do ----------------------------------------------------------------------------------------


def _local(upload: Upload, event: LocalEvent) -> Applied:
    match event:
        case CancelRequested() | DeadlinePassed():
            return _stopped(upload, event)
        case Dispatched():
            return _dispatched(upload, event), ()
        case Forgotten() | StepTimedOut():
            return _unheard(upload, event)
        case MultipartCreated():
            return _created(upload, event)
        case CompletionProven() | CompletionFailed():
            return _settled(upload, event)
        case Swept():
            return _swept(upload, event), ()
        case never:
            assert_never(never)


def _stopped(upload: Upload, event: CancelRequested | DeadlinePassed) -> Applied:
    late = isinstance(event, DeadlinePassed)
    move = Move.EXPIRE if late else Move.CANCEL
    if move in TRANSITIONS[upload.state]:
        if late:
            text = "the deadline passed before the upload was complete"
            return _ended(upload, move, event.now, Refusal.DEADLINE_PASSED, text)
        return _ended(upload, move, event.now, None, "cancelled by an operator")
    if late:
        return upload, ()
    request = "cancelled"
    raise IllegalTransition(request, upload.state)


def _dispatched(upload: Upload, event: Dispatched) -> Upload:
    # The client's answer may overtake this event: then there is nothing left to note.
    if upload.state is not State.QUEUED or event.attempt != upload.attempt:
        return upload
    return _move(upload, Move.DISPATCH, touched_at=event.now, client_busy=True)


def _unheard(upload: Upload, event: Forgotten | StepTimedOut) -> Applied:
    """What the client was told did not reach it, or moved nothing."""
    if upload.state in TERMINAL and upload.client_busy and isinstance(event, Forgotten):
        return replace(upload, client_busy=False), ()
    if upload.state not in {State.DISPATCHED, State.IN_PROGRESS}:
        return upload, ()
    if isinstance(event, Forgotten):
        after = _move(upload, Move.RESUME, resume_at=event.now, wanted=())
        return after, duties(after)
    strikes = upload.strikes + 1
    if strikes >= MAX_STRIKES:
        text = f"the client was connected and silent through {strikes} step timers"
        return _ended(upload, Move.FAIL, event.now, Refusal.NO_PROGRESS, text)
    after = replace(upload, strikes=strikes, touched_at=event.now)
    return after, duties(after)


def _created(upload: Upload, event: MultipartCreated) -> Applied:
    wanted = upload.state in OPEN and event.attempt == upload.attempt and not upload.one_put
    if wanted and upload.s3_upload_id is None:
        after = replace(upload, s3_upload_id=event.s3_upload_id)
    elif event.s3_upload_id in {upload.s3_upload_id, *upload.litter}:
        return upload, ()
    else:
        # Made by the loser of a race, or for an upload that ended meanwhile.
        after = replace(upload, litter=(*upload.litter, event.s3_upload_id))
    return after, duties(after)


def _settled(upload: Upload, event: CompletionProven | CompletionFailed) -> Applied:
    if upload.state is not State.COMPLETING or event.attempt != upload.attempt:
        return upload, ()
    if isinstance(event, CompletionProven):
        after = _move(upload, Move.PROVE, proof=event.proof, completed_at=event.now, s3_upload_id=None, reason=None)
        return after, close(after, event.now)
    if event.again:
        after, effects = _new_attempt(upload, event.now, event.error, event.text)
    else:
        after, effects = _ended(upload, Move.FAIL, event.now, event.error, event.text)
    return after, effects + (close(after, event.now) if after.state in TERMINAL else ())


def _swept(upload: Upload, event: Swept) -> Upload:
    return replace(
        upload,
        litter=tuple(one for one in upload.litter if one != event.subject),
        strays=tuple(one for one in upload.strays if one.s3_key != event.subject),
    )


# --- new attempts and ends -------------------------------------------------------------------------------------------


def _new_attempt(upload: Upload, now: float, error: str, text: str, *, delay: float = 0.0) -> Applied:
    """A new S3 upload id fences the old attempt; an object that was PUT whole gets another key."""
    if upload.attempt >= MAX_ATTEMPTS:
        return _ended(upload, Move.FAIL, now, error, f"{text} (attempt {upload.attempt} of {MAX_ATTEMPTS})")
    after = _move(
        _left_behind(upload, now),
        Move.RESTART,
        attempt=upload.attempt + 1,
        sequence=0,
        s3_key=_next_key(upload) if upload.one_put else upload.s3_key,
        one_put=False,
        file_size=None,
        part_size=None,
        fingerprint=None,
        parts={},
        wanted=(),
        resume_at=now + delay,
        reason=_sentence(error, text),
        bytes_sent=0,
        strikes=0,
    )
    return after, duties(after)


def _next_key(upload: Upload) -> str:
    folder, _, name = upload.s3_key.rpartition("/")
    return f"{folder}/{upload.token[:8]}-{upload.attempt + 1}-{name}"


def _ended(upload: Upload, move: Move, now: float, error: str | None, text: str) -> Applied:
    """The upload is over. A client that may still be working on it has to be told so."""
    changes = {"error": error, "message": text, "reason": None, "wanted": (), "completed_at": now}
    after = _move(_left_behind(upload, now), move, **changes)
    return after, duties(after)


def _left_behind(upload: Upload, now: float) -> Upload:
    """Note what an abandoned attempt leaves at the store, to be removed."""
    litter, strays = upload.litter, upload.strays
    if upload.s3_upload_id is not None:
        litter = (*litter, upload.s3_upload_id)
    if upload.one_put:
        strays = (*strays, Stray(upload.s3_key, upload.object_token, now + PUT_URL_LIFE + _CLOCK_MARGIN))
    return replace(upload, s3_upload_id=None, litter=litter, strays=strays)
