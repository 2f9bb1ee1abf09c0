"""The life of one upload, as its owner sees it: `apply` understands an event, given what is known.

Rule: an event is first understood (which move does it mean?), then the table in `moves` says where that leads. An event
from the device that means nothing now changes nothing and is answered from the state, since it may be a repeat of one
whose answer was lost.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, assert_never

from control_plane.domain.errors import IllegalTransition
from control_plane.domain.reasons import Reason, WaitCode
from control_plane.domain.uploads.duties import Duty, answer, close, duties
from control_plane.domain.uploads.events import (
    REMOTE_EVENTS,
    CancelledByClient,
    CancelRequested,
    CleanupDone,
    CompletionFailed,
    CompletionProven,
    DeadlinePassed,
    Dispatched,
    ErrorReported,
    Event,
    LocalEvent,
    MissingFromHello,
    MultipartCreated,
    ObjectStoreRejected,
    Observed,
    PartsRequested,
    Progressed,
    Rejected,
    RemoteEvent,
    StepTimedOut,
    Succeeded,
)
from control_plane.domain.uploads.model import (
    MAX_ATTEMPTS,
    MAX_STRIKES,
    OPEN,
    TERMINAL,
    PartRecord,
    Refusal,
    State,
    Stray,
    Upload,
)
from control_plane.domain.uploads.observed import observed, unclosed
from schemas.digests import raw_digest
from schemas.errors import SchemaError
from schemas.parts import MAX_FILE_SIZE, PartPlan, plan_parts
from schemas.values import ERRORS, DigestName, ErrorCode, Fingerprint, Follow


def other_file(upload: Upload, offer: PartsRequested) -> bool:
    """Whether the offered file is another than the one that this attempt began with."""
    same_size = offer.file_size in {None, upload.file_size}
    if upload.options.on_change == "prefix" and same_size:
        return False
    return not same_size or not _same(offer.fingerprint, upload.fingerprint)


def contradiction(plan: PartPlan, digest: DigestName, offer: PartsRequested) -> str | None:
    """What of the offer does not fit the plan, as a sentence; None when all does."""
    for part in offer.wanted:
        if part.part_number not in plan.numbers or part.size != plan.part(part.part_number).size:
            return f"part {part.part_number} of {part.size} bytes is not in the plan of {plan.total} parts"
        if digest is not DigestName.NONE and part.digest is None:
            return f"part {part.part_number} was offered without its {digest}"
        if part.digest is not None and raw_digest(digest, part.digest) is None:
            return f"part {part.part_number} was offered with {part.digest!r}, which is not a {digest} in base64"
    return None


def _same(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Compares what survives a reboot; device and inode numbers do not."""
    if one is None or other is None:
        return True
    return (one.size, one.mtime_ns, one.ctime_ns) == (other.size, other.mtime_ns, other.ctime_ns)


PUT_URL_LIFE: Final = 300.0
"""Seconds that a PutObject URL lives at most: nothing but time fences it (protocol.md section 3)."""

_CLOCK_MARGIN: Final = 60.0


class Transition(StrEnum):
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
    Transition.FAIL: State.FAILED,
    Transition.REJECT: State.REJECTED,
    Transition.CANCEL: State.CANCELLED,
    Transition.EXPIRE: State.EXPIRED,
}
_WORKING: Final = {
    Transition.OFFER: State.IN_PROGRESS,
    Transition.RESUME: State.QUEUED,
    Transition.RESTART: State.QUEUED,
    Transition.FINISH: State.COMPLETING,
    **ENDS,
}

TRANSITIONS: Final[Mapping[State, Mapping[Transition, State]]] = {
    State.QUEUED: {Transition.DISPATCH: State.DISPATCHED, **_WORKING},
    State.DISPATCHED: _WORKING,
    State.IN_PROGRESS: _WORKING,
    State.COMPLETING: {
        Transition.PROVE: State.COMPLETED,
        Transition.RESTART: State.QUEUED,
        Transition.FAIL: State.FAILED,
    },
    State.COMPLETED: {},
    State.FAILED: {},
    State.REJECTED: {},
    State.CANCELLED: {},
    State.EXPIRED: {},
}

Applied = tuple[Upload, tuple[Duty, ...]]


def transition(upload: Upload, by: Transition, **changes: Any) -> Upload:  # noqa: ANN401 - any field, checked by the dataclass
    """The upload after one row of the table, with `changes` to its other fields."""
    return replace(upload, state=TRANSITIONS[upload.state][by], **changes)


def new_attempt(upload: Upload, now: float, error: str, text: str, *, delay: float = 0.0) -> Applied:
    """A new S3 upload id fences the old attempt; an object that was PUT whole gets another key."""
    if upload.attempt >= MAX_ATTEMPTS:
        return ended(upload, Transition.FAIL, now, error, f"{text} (attempt {upload.attempt} of {MAX_ATTEMPTS})")
    after = transition(
        _left_behind(upload, now),
        Transition.RESTART,
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
        reason=_reason(error, text),
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


def ended(upload: Upload, by: Transition, now: float, error: str | None, text: str) -> Applied:
    """The upload is over. A client that may still be working on it has to be told so."""
    changes = {"error": error, "message": text, "reason": None, "wanted": (), "completed_at": now, "strikes": 0}
    after = transition(_left_behind(upload, now), by, **changes)
    return after, duties(after)


def _left_behind(upload: Upload, now: float) -> Upload:
    """Note what an abandoned attempt leaves at the store, to be removed."""
    litter, strays = upload.litter, upload.strays
    if upload.s3_upload_id is not None:
        litter = (*litter, upload.s3_upload_id)
    if upload.one_put:
        strays = (*strays, Stray(upload.s3_key, upload.object_token, now + PUT_URL_LIFE + _CLOCK_MARGIN))
    return replace(upload, s3_upload_id=None, litter=litter, strays=strays)


def _reason(code: str, text: str) -> Reason:
    """An error code with the text that its sender gave."""
    return Reason(code, f"{code}: {text}" if text else str(code))


def apply(upload: Upload, event: Event) -> Applied:
    """The upload after `event`, and what is to be done at once.

    The same object comes back when nothing changed. `IllegalTransition` for a request of ours that the state forbids.
    """
    after, effects = _remote(upload, event) if isinstance(event, REMOTE_EVENTS) else _local(upload, event)
    if after is not upload:
        after = replace(after, updated_at=event.now)
    return after, effects


# --- what the device says --------------------------------------------------------------------------------------------


def _remote(upload: Upload, event: RemoteEvent) -> Applied:
    if event.attempt < upload.attempt and not _knows_nothing(event):
        return upload, _to_the_past(upload, event)
    if upload.state in TERMINAL:
        return _after_the_end(upload, event)
    if isinstance(event, Progressed):
        return _progressed(upload, event), ()
    if event.attempt > upload.attempt:
        text = f"the client is at attempt {event.attempt}, which this database does not know"
        return new_attempt(replace(upload, attempt=event.attempt), event.now, ErrorCode.UPLOAD_GONE, text)
    if _repeated(upload, event) or upload.state is State.COMPLETING:
        return upload, answer(upload, event.now)
    after, effects = _new_response(_heard(upload, event), event)
    released = after.state in TERMINAL and not after.client_busy
    return after, effects + (close(after, event.now) if released else ())


def _repeated(upload: Upload, event: RemoteEvent) -> bool:
    """Whether this was heard before and means nothing new.

    To a command said again the client answers with its latest question: that is news to an owner that took the
    question for lost, and answering it with the command once more would go round for ever.
    """
    if event.sequence is None or event.sequence > upload.sequence:
        return False
    told_again = upload.state in {State.QUEUED, State.DISPATCHED}
    return not (told_again and isinstance(event, PartsRequested) and event.sequence == upload.sequence)


def _knows_nothing(event: RemoteEvent) -> bool:
    """A client that was told to cancel what it never heard of cannot name the attempt."""
    return isinstance(event, CancelledByClient) and event.sequence is None


def _to_the_past(upload: Upload, event: RemoteEvent) -> tuple[Duty, ...]:
    """A message of an older attempt is dropped. After the end its client never hears of a newer one: release it."""
    over = upload.state in TERMINAL and not isinstance(event, Progressed)
    return close(upload, event.now) if over else ()


def _new_response(
    heard: Upload, event: PartsRequested | Succeeded | ErrorReported | Rejected | CancelledByClient
) -> Applied:
    match event:
        case PartsRequested():
            return _asked(heard, event)
        case Succeeded():
            return _succeeded(heard, event)
        case ErrorReported():
            return _errored(heard, event)
        case Rejected():
            return ended(heard, Transition.REJECT, event.now, event.code, event.text)
        case CancelledByClient():
            return ended(heard, Transition.CANCEL, event.now, None, "cancelled on the client")
        case _:
            assert_never(event)


def _after_the_end(upload: Upload, event: RemoteEvent) -> Applied:
    if isinstance(event, Progressed):
        return upload, ()
    if isinstance(event, PartsRequested) and upload.client_busy:
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
        client_busy=isinstance(event, PartsRequested),
    )


def _asked(upload: Upload, event: PartsRequested) -> Applied:
    if upload.plan is None:
        try:
            upload = _with_plan(upload, event)
        except SchemaError as error:
            too_large = (event.file_size or 0) > MAX_FILE_SIZE
            code = ErrorCode.FILE_TOO_LARGE if too_large else ErrorCode.BAD_REQUEST
            return ended(upload, Transition.FAIL, event.now, code, str(error))
    elif other_file(upload, event):
        return new_attempt(upload, event.now, ErrorCode.SOURCE_CHANGED, "the file changed since its upload began")
    plan = upload.plan
    assert plan is not None  # noqa: S101 - for the type checker: the branches above saw to it
    if complaint := contradiction(plan, upload.digest, event):
        return ended(upload, Transition.FAIL, event.now, ErrorCode.BAD_REQUEST, complaint)
    parts = dict(upload.parts)
    for part in event.wanted:
        record = parts.get(part.part_number)
        if record is None or record.digest != part.digest or part.digest is None:
            parts[part.part_number] = PartRecord(digest=part.digest)
    after = transition(upload, Transition.OFFER, parts=parts, wanted=event.wanted)
    return after, duties(after)


def _with_plan(upload: Upload, event: PartsRequested) -> Upload:
    """An offer without a size is taken for an empty file: the parts that it wants will then contradict the plan."""
    plan = plan_parts(event.file_size or 0, upload.chunk_size)
    parts = {n: PartRecord(etag=etag) for n, etag in event.etags.items() if n in plan.numbers}
    one_put = upload.digest in event.one_put and plan.total == 1 and upload.s3_upload_id is None
    return replace(
        upload,
        file_size=plan.file_size,
        part_size=plan.part_size,
        fingerprint=event.fingerprint,
        parts=parts,
        one_put=one_put,
    )


def _succeeded(upload: Upload, event: Succeeded) -> Applied:
    if upload.s3_upload_id is None and not upload.one_put:
        text = "the client reported success, but no part could be stored: nothing was granted yet"
        return new_attempt(upload, event.now, ErrorCode.BAD_REQUEST, text)
    # Without a sequence only a tombstone speaks: the upload was over once, and our database is older than that. The
    # store knows what became of it.
    remembered = event.sequence is None and upload.plan is not None
    if not remembered and (upload.plan is None or upload.missing_parts):
        missing = ", ".join(map(str, upload.missing_parts[:5])) or "all"
        text = f"the client reported success, but nobody knows the etags of parts {missing}"
        return new_attempt(upload, event.now, ErrorCode.BAD_REQUEST, text)
    after = transition(upload, Transition.FINISH, wanted=())
    return after, duties(after)


def _errored(upload: Upload, event: ErrorReported) -> Applied:
    match ERRORS[event.code].follow:
        case Follow.SAME_ATTEMPT:
            at = event.now + event.delay
            after = transition(
                upload, Transition.RESUME, resume_at=at, reason=_reason(event.code, event.text), wanted=()
            )
            return after, duties(after)
        case Follow.NEW_ATTEMPT:
            return new_attempt(upload, event.now, event.code, event.text, delay=event.delay)
        case Follow.FINAL:
            return ended(upload, Transition.FAIL, event.now, event.code, event.text)
        case never:
            assert_never(never)


def _progressed(upload: Upload, event: Progressed) -> Upload:
    moved = event.bytes_sent != upload.bytes_sent
    if upload.state is State.COMPLETING or not (moved or event.reason):
        return upload
    reason = None if event.reason is None else Reason(WaitCode.CLIENT_REPORTED, event.reason)
    return replace(
        upload, bytes_sent=event.bytes_sent, reason=reason, touched_at=event.now, strikes=0, client_busy=True
    )


# --- what we and the store do ----------------------------------------------------------------------------------------


def _local(upload: Upload, event: LocalEvent) -> Applied:
    match event:
        case CancelRequested() | DeadlinePassed():
            return _stopped(upload, event)
        case Dispatched() | CleanupDone() | Observed():
            return _noted(upload, event), ()
        case MissingFromHello() | StepTimedOut():
            return _unheard(upload, event)
        case MultipartCreated():
            return _created(upload, event)
        case CompletionProven() | CompletionFailed():
            return _settled(upload, event)
        case ObjectStoreRejected():
            return _refused(upload, event)
        case never:
            assert_never(never)


def _stopped(upload: Upload, event: CancelRequested | DeadlinePassed) -> Applied:
    possible = TRANSITIONS[upload.state]
    if isinstance(event, DeadlinePassed):
        if Transition.EXPIRE not in possible:
            overheard = upload.state is State.COMPLETING and not upload.opened
            return (unclosed(upload, event.now) if overheard else upload), ()
        text = "the deadline passed before the upload was complete"
        return ended(upload, Transition.EXPIRE, event.now, Refusal.DEADLINE_PASSED, text)
    if Transition.CANCEL in possible:
        return ended(upload, Transition.CANCEL, event.now, None, "cancelled by an operator")
    request = "cancelled"
    raise IllegalTransition(request, upload.state)


def _noted(upload: Upload, event: Dispatched | CleanupDone | Observed) -> Upload:
    if isinstance(event, Observed):
        return observed(upload, event)
    if isinstance(event, CleanupDone):
        litter = tuple(one for one in upload.litter if one != event.target)
        return replace(upload, litter=litter, strays=tuple(one for one in upload.strays if one.s3_key != event.target))
    # The client's answer may overtake this event: then there is nothing left to note.
    if upload.state is not State.QUEUED or event.attempt != upload.attempt:
        return upload
    return transition(upload, Transition.DISPATCH, touched_at=event.now, client_busy=True)


def _unheard(upload: Upload, event: MissingFromHello | StepTimedOut) -> Applied:
    """What the client was told did not reach it, or moved nothing."""
    if isinstance(event, MissingFromHello) and upload.touched_at > event.now:
        # It was told, or spoke, after that hello, which could not know.
        return upload, ()
    if upload.state in TERMINAL and upload.client_busy:
        return _uncancelled(upload, event)
    if upload.state not in {State.DISPATCHED, State.IN_PROGRESS}:
        return upload, ()
    if isinstance(event, MissingFromHello):
        after = transition(upload, Transition.RESUME, resume_at=event.now, wanted=())
        return after, duties(after)
    strikes = upload.strikes + 1
    if strikes >= MAX_STRIKES:
        text = f"the client was connected and silent through {strikes} step timers"
        return ended(upload, Transition.FAIL, event.now, Refusal.NO_PROGRESS, text)
    after = replace(upload, strikes=strikes, touched_at=event.now)
    return after, duties(after)


def _uncancelled(upload: Upload, event: MissingFromHello | StepTimedOut) -> Applied:
    """The client does not say that it stopped. Told so often enough it is let be: if it ever speaks, it is released."""
    strikes = upload.strikes + 1
    if isinstance(event, MissingFromHello) or strikes >= MAX_STRIKES:
        return replace(upload, client_busy=False), ()
    after = replace(upload, strikes=strikes, touched_at=event.now)
    return after, answer(after, event.now)


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
        after = transition(
            upload, Transition.PROVE, proof=event.proof, completed_at=event.now, s3_upload_id=None, reason=None
        )
        return after, close(after, event.now)
    if event.left and not upload.one_put:
        stray = Stray(upload.s3_key, upload.object_token, event.now)
        upload = replace(upload, strays=(*upload.strays, stray))
    if event.again:
        after, effects = new_attempt(upload, event.now, event.error, event.text)
    else:
        after, effects = ended(upload, Transition.FAIL, event.now, event.error, event.text)
    return after, effects + (close(after, event.now) if after.state in TERMINAL else ())


def _refused(upload: Upload, event: ObjectStoreRejected) -> Applied:
    if upload.state in TERMINAL or event.attempt != upload.attempt:
        return upload, ()
    return ended(upload, Transition.FAIL, event.now, Refusal.STORE_REFUSED, event.text)
