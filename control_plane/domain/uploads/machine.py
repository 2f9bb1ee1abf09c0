"""The state machine of one upload, on the owner's side: `apply(upload, event)` returns the new state and its effects.

Rule: `HANDLERS` has one handler per event; only `transition` changes the state of an own upload, by the table
`TRANSITIONS`. A repeated or late remote event changes nothing and is answered from the state, because the first answer
may be lost. An illegal local event raises `IllegalTransition`.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, assert_never

from msgspec.structs import replace

from control_plane.domain.errors import IllegalTransition
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.reported import reported
from control_plane.domain.uploads.afterwards import after_reported
from control_plane.domain.uploads.approved import changed_since_listing
from control_plane.domain.uploads.duties import Duty, answer, close, duties, receipt_duty
from control_plane.domain.uploads.events import (
    REMOTE_EVENTS,
    RESPONSES,
    AfterReported,
    CancelledByClient,
    CancelRequested,
    CleanupDone,
    CompletionFailed,
    CompletionProven,
    DeadlineMoved,
    DeadlinePassed,
    Dispatched,
    ErrorReported,
    Event,
    GateOpened,
    Held,
    MissingFromHello,
    MultipartCreated,
    Observed,
    OverQuota,
    PartsRequested,
    Progressed,
    ReceiptDone,
    ReceiptRefused,
    ReceiptSigned,
    Rejected,
    RemoteEvent,
    SetBack,
    StepTimedOut,
    Succeeded,
    UploadResponse,
)
from control_plane.domain.uploads.holding import deadline_moved, gate_opened, held
from control_plane.domain.uploads.model import (
    MAX_ATTEMPTS,
    MAX_DEADLINE,
    MAX_SETBACKS,
    MAX_STRIKES,
    OPEN,
    TERMINAL,
    PartRecord,
    State,
    Stray,
    Upload,
)
from control_plane.domain.uploads.observed import expired_unclosed, observed
from control_plane.domain.uploads.receipts import receipt_done, receipt_refused, receipt_signed
from schemas.digests import raw_digest
from schemas.errors import SchemaError
from schemas.parts import MAX_FILE_SIZE, PartPlan, plan_parts
from schemas.values import ERRORS, DigestName, ErrorCode, Fingerprint, Follow

PUT_URL_LIFE: Final = 300.0
"""Seconds that a PutObject URL lives at most: it has no S3 upload id, so only its expiry fences it (protocol.md
section 3)."""

UNSEEN_STRAY_WAIT: Final = 600.0
"""Seconds before an object is looked for that an attempt may have left and that the object store did not show."""

_LONGEST_DELAY: Final = 300.0
"""Seconds between two tries of one upload, at most."""

CLOCK_MARGIN: Final = 60.0
"""Seconds by which another clock may differ from this one: the object store's, or the one that wrote an instant."""

_LONGEST_TEXT: Final = 1_000
"""Characters of an error's text."""

Applied = tuple[Upload, tuple[Duty, ...]]
"""The upload after an event, and the effects: duties to perform at once. The same object means that nothing changed."""

Handler = Callable[[Upload, Any], Applied]
"""Applies one type of event; the second argument is an event of that type."""


# --- the table of transitions ----------------------------------------------------------------------------------------


class Transition(StrEnum):
    """A change of the state, with its label in the state diagram."""

    DISPATCH = "the command is published"
    OFFER = "the client requests URLs"
    RESUME = "the same attempt is resumed"
    RESTART = "a new attempt"
    FINISH = "every part is stored"
    PROVE = "the object is proven"
    FAIL = "given up"
    REJECT = "the client rejects it"
    CANCEL = "cancelled"
    EXPIRE = "the deadline passes"


_WORKING: Final = {
    Transition.OFFER: State.IN_PROGRESS,
    Transition.RESUME: State.QUEUED,
    Transition.RESTART: State.QUEUED,
    Transition.FINISH: State.COMPLETING,
    Transition.FAIL: State.FAILED,
    Transition.REJECT: State.REJECTED,
    Transition.CANCEL: State.CANCELLED,
    Transition.EXPIRE: State.EXPIRED,
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
    **{state: {} for state in State if state in TERMINAL},
}


def transition(upload: Upload, by: Transition, **changes: Any) -> Upload:  # noqa: ANN401 - any field of `Upload`
    """The upload in the state that the table gives, with `changes` to its other fields.

    `KeyError` when the table has no such transition from the upload's state: that is a fault of the handler.
    """
    return replace(upload, state=TRANSITIONS[upload.state][by], held=False, **changes)


# --- apply -----------------------------------------------------------------------------------------------------------


def apply(upload: Upload, event: Event) -> Applied:
    """The upload after `event`, and its effects.

    The same object comes back when nothing changed. `IllegalTransition` for a local event that the state forbids.
    """
    known = _guard(upload, event) if isinstance(event, REMOTE_EVENTS) else None
    if known is not None:
        after, effects = known
    elif isinstance(event, RESPONSES):
        after, effects = HANDLERS[type(event)](_count(upload, event), event)
        if after.state in TERMINAL and not after.client_busy:
            effects += close(after, event.now)
    else:
        after, effects = HANDLERS[type(event)](upload, event)
    if after is not upload:
        after = replace(after, updated_at=event.now)
    return after, effects


def _guard(upload: Upload, event: RemoteEvent) -> Applied | None:
    """The result of a remote event that its handler must not see; None when the handler is to run.

    Filters by attempt, terminal state and sequence, in this order.
    """
    if isinstance(event, AfterReported):
        return None
    progress = isinstance(event, Progressed)
    if event.attempt < upload.attempt and not _lacks_attempt(event):
        # An older attempt is dropped. After the end its client receives no newer command, so a close releases it.
        released = upload.state in TERMINAL and not progress
        return upload, close(upload, event.now) if released else ()
    if upload.state in TERMINAL:
        return (upload, ()) if progress else _after_the_end(upload, event)
    if progress:
        return None
    if event.attempt > upload.attempt:
        text = f"the client is at attempt {event.attempt}, which this database does not know"
        return new_attempt(replace(upload, attempt=event.attempt), event.now, ErrorCode.UPLOAD_GONE, text)
    if _is_repeat(upload, event) or upload.state is State.COMPLETING:
        return upload, answer(upload, event.now)
    return None


def _lacks_attempt(event: RemoteEvent) -> bool:
    """Whether the response cannot name an attempt: it answers a cancel of an upload that the client does not know."""
    return isinstance(event, CancelledByClient) and event.sequence is None


def _after_the_end(upload: Upload, event: RemoteEvent) -> Applied:
    if isinstance(event, PartsRequested) and upload.client_busy:
        return upload, answer(upload, event.now)
    return (replace(upload, client_busy=False) if upload.client_busy else upload), close(upload, event.now)


def _is_repeat(upload: Upload, event: RemoteEvent) -> bool:
    """Whether the response was committed before and means nothing new.

    A client answers a repeated command with its latest request. An owner that took the request for lost must apply it:
    to answer it with the command again would loop for ever.
    """
    if event.sequence is None or event.sequence > upload.sequence:
        return False
    resuming = upload.state in {State.QUEUED, State.DISPATCHED}
    return not (resuming and isinstance(event, PartsRequested) and event.sequence == upload.sequence)


def _count(upload: Upload, event: UploadResponse) -> Upload:
    """The upload with a new response counted: its sequence and etags are stored, and the client is alive."""
    parts = dict(upload.parts)
    plan = upload.plan
    progress = False
    for number, etag in event.etags.items():
        if plan is not None and number in plan.numbers:
            known = parts.get(number, PartRecord())
            progress = progress or not known.stored
            parts[number] = replace(known, etag=etag)
    return replace(
        upload,
        parts=parts,
        setbacks=0 if progress else upload.setbacks,
        sequence=upload.sequence if event.sequence is None else event.sequence,
        touched_at=event.now,
        strikes=0,
        resume_at=0.0,
        reason=None,
        held=False,
        client_busy=isinstance(event, PartsRequested),
    )


# --- handlers of remote events ---------------------------------------------------------------------------------------


def _parts_requested(upload: Upload, event: PartsRequested) -> Applied:
    if upload.file_path is None:
        # The agent's default file was meant, and this client's presence did not name it.
        upload = replace(upload, file_path=event.file_path)
    if event.file_path not in {None, upload.file_path}:
        text = f"the client offered {event.file_path!r} in place of {upload.file_path!r}"
        return ended(upload, Transition.FAIL, event.now, ErrorCode.BAD_REQUEST, text[:_LONGEST_TEXT])
    if upload.options.encrypt_to != event.encrypt_to:
        # An older agent leaves out what it does not know, and would send the file as it is.
        text = "the client does not seal the file for the recipients of encrypt_to: nothing was granted"
        return ended(upload, Transition.FAIL, event.now, ErrorCode.UNSUPPORTED, text)
    if upload.plan is None:
        if other := changed_since_listing(upload, event):
            return ended(upload, Transition.FAIL, event.now, ReasonCode.CHANGED_SINCE_LISTING, other)
        try:
            upload = _with_plan(upload, event)
        except SchemaError as error:
            too_large = (event.file_size or 0) > MAX_FILE_SIZE
            code = ErrorCode.FILE_TOO_LARGE if too_large else ErrorCode.BAD_REQUEST
            return ended(upload, Transition.FAIL, event.now, code, str(error))
    elif _is_other_file(upload, event):
        return new_attempt(upload, event.now, ErrorCode.SOURCE_CHANGED, "the file changed since its upload began")
    plan = upload.plan
    assert plan is not None  # noqa: S101 - for the type checker: `_with_plan` sets it
    if contradiction := _contradiction(plan, upload.digest, event):
        return ended(upload, Transition.FAIL, event.now, ErrorCode.BAD_REQUEST, contradiction)
    parts = dict(upload.parts)
    for part in event.wanted:
        record = parts.get(part.part_number)
        if record is None or record.digest != part.digest or part.digest is None:
            parts[part.part_number] = PartRecord(digest=part.digest)
    after = transition(upload, Transition.OFFER, parts=parts, wanted=event.wanted)
    return after, duties(after)


def _with_plan(upload: Upload, event: PartsRequested) -> Upload:
    """The upload after its first offer. No size counts as 0: the wanted parts then contradict the plan."""
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


def _is_other_file(upload: Upload, offer: PartsRequested) -> bool:
    """Whether the offered file differs from the one that this attempt began with."""
    same_size = offer.file_size in {None, upload.file_size}
    if upload.options.on_change == "prefix" and same_size:
        return False
    return not same_size or not _same_fingerprint(offer.fingerprint, upload.fingerprint)


def _same_fingerprint(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Compares what a reboot does not change; device and inode numbers it does."""
    if one is None or other is None:
        return True
    return (one.size, one.mtime_ns, one.ctime_ns) == (other.size, other.mtime_ns, other.ctime_ns)


def _contradiction(plan: PartPlan, digest: DigestName, offer: PartsRequested) -> str | None:
    """The first wanted part that does not fit the plan, as a sentence; None when all fit."""
    for part in offer.wanted:
        if part.part_number not in plan.numbers or part.size != plan.part(part.part_number).size:
            return f"part {part.part_number} of {part.size} bytes is not in the plan of {plan.total} parts"
        if digest is not DigestName.NONE and part.digest is None:
            return f"part {part.part_number} was offered without its {digest}"
        if part.digest is not None and raw_digest(digest, part.digest) is None:
            return f"part {part.part_number} was offered with {part.digest!r}, which is not a {digest} in base64"
    return None


def _succeeded(upload: Upload, event: Succeeded) -> Applied:
    if not upload.opened:
        text = "the client reported success, but no part could be stored: nothing was granted yet"
        return new_attempt(upload, event.now, ErrorCode.BAD_REQUEST, text)
    # Only a tombstone's success has no sequence: the upload was over once, and the database was restored from before
    # that. ListParts or HEAD will show the etags.
    tombstone = event.sequence is None and upload.plan is not None
    if not tombstone and (upload.plan is None or upload.missing_parts):
        numbers = ", ".join(map(str, upload.missing_parts[:5]))
        text = f"the client reported success without the etags of {f'parts {numbers}' if numbers else 'all parts'}"
        return new_attempt(upload, event.now, ErrorCode.BAD_REQUEST, text)
    after = transition(upload, Transition.FINISH, wanted=(), setbacks=0)
    return after, duties(after)


def _error_reported(upload: Upload, event: ErrorReported) -> Applied:
    match ERRORS[event.code].follow:
        case Follow.SAME_ATTEMPT:
            setbacks = upload.setbacks + (event.code is ErrorCode.STORAGE_REFUSED)
            if setbacks >= MAX_SETBACKS:
                text = f"{event.text} (refused {setbacks} times in a row)"
                return ended(upload, Transition.FAIL, event.now, event.code, text)
            resume_at = event.now + _grown(event.delay, setbacks - 1)
            changes = {"resume_at": resume_at, "reason": _reason(event.code, event.text), "setbacks": setbacks}
            after = transition(upload, Transition.RESUME, wanted=(), **changes)
            return after, duties(after)
        case Follow.NEW_ATTEMPT:
            return new_attempt(upload, event.now, event.code, event.text, delay=event.delay)
        case Follow.FINAL:
            return ended(upload, Transition.FAIL, event.now, event.code, event.text)
        case never:
            assert_never(never)


def _rejected(upload: Upload, event: Rejected) -> Applied:
    return ended(upload, Transition.REJECT, event.now, event.code, event.text)


def _cancelled_by_client(upload: Upload, event: CancelledByClient) -> Applied:
    return ended(upload, Transition.CANCEL, event.now, None, "cancelled on the client")


def _progressed(upload: Upload, event: Progressed) -> Applied:
    moved = event.bytes_sent != upload.bytes_sent
    if upload.state is State.COMPLETING or not (moved or event.reason):
        return upload, ()
    if upload.held and not moved:
        # The client reports the wait that it was sent: the gate's own reason has the code.
        return upload, ()
    reason = None if event.reason is None else reported(event.reason)
    reason = upload.reason if upload.held else reason
    after = replace(
        upload, bytes_sent=event.bytes_sent, reason=reason, touched_at=event.now, strikes=0, client_busy=True
    )
    return after, ()


# --- handlers of local events ----------------------------------------------------------------------------------------


def _dispatched(upload: Upload, event: Dispatched) -> Applied:
    # The client's response may be committed before this event: then the upload has left `queued`.
    if upload.state is not State.QUEUED or event.attempt != upload.attempt:
        return upload, ()
    return transition(upload, Transition.DISPATCH, touched_at=event.now, client_busy=True), ()


def _missing_from_hello(upload: Upload, event: MissingFromHello) -> Applied:
    if event.now < upload.touched_at <= event.now + CLOCK_MARGIN:
        # A command was published, or a response received, after that hello.
        return upload, ()
    if upload.state in TERMINAL and upload.client_busy:
        return replace(upload, client_busy=False), ()
    if upload.state not in {State.DISPATCHED, State.IN_PROGRESS}:
        return upload, ()
    after = transition(upload, Transition.RESUME, resume_at=event.now, wanted=())
    return after, duties(after)


def _step_timed_out(upload: Upload, event: StepTimedOut) -> Applied:
    """Repeats the last command. After MAX_STRIKES an open upload fails, and of an ended one the cancel stops.

    If the client reports the upload after that, a close releases it.
    """
    strikes = upload.strikes + 1
    if upload.state in TERMINAL and upload.client_busy:
        if strikes >= MAX_STRIKES:
            return replace(upload, client_busy=False), ()
        after = replace(upload, strikes=strikes, touched_at=event.now)
        return after, answer(after, event.now)
    if upload.state not in {State.DISPATCHED, State.IN_PROGRESS} or upload.held:
        # While the gate holds it, the client has nothing to answer.
        return upload, ()
    if strikes >= MAX_STRIKES:
        text = f"the client was connected and silent through {strikes} step timers"
        return ended(upload, Transition.FAIL, event.now, ReasonCode.NO_PROGRESS, text)
    after = replace(upload, strikes=strikes, touched_at=event.now)
    return after, duties(after)


def _cancel_requested(upload: Upload, event: CancelRequested) -> Applied:
    if Transition.CANCEL in TRANSITIONS[upload.state]:
        return ended(upload, Transition.CANCEL, event.now, None, event.text)
    request = "cancelled"
    raise IllegalTransition(request, upload.state)


def _deadline_passed(upload: Upload, event: DeadlinePassed) -> Applied:
    if upload.deadline > event.now + MAX_DEADLINE:
        # A clock that was wrong wrote it, and the instant of the creation: the span between them counts from now.
        return replace(upload, deadline=event.now + upload.deadline - upload.created_at), ()
    if upload.deadline > event.now:
        # It was moved after it was found to have passed.
        return upload, ()
    if Transition.EXPIRE in TRANSITIONS[upload.state]:
        text = "the deadline passed before the upload was complete"
        return ended(upload, Transition.EXPIRE, event.now, ReasonCode.DEADLINE_PASSED, text)
    of_other_owner = upload.state is State.COMPLETING and not upload.opened
    return (expired_unclosed(upload, event.now) if of_other_owner else upload), ()


def _multipart_created(upload: Upload, event: MultipartCreated) -> Applied:
    wanted = upload.state in OPEN and event.attempt == upload.attempt and not upload.one_put
    if wanted and upload.s3_upload_id is None:
        after = replace(upload, s3_upload_id=event.s3_upload_id, setbacks=0)
        # The refusals of its creation explain nothing any more; what the client reported still holds.
        after = replace(after, reason=None) if upload.setbacks else after
    elif event.s3_upload_id in {upload.s3_upload_id, *upload.litter}:
        return upload, ()
    else:
        # The loser of a race created it, or the upload ended meanwhile.
        after = replace(upload, litter=(*upload.litter, event.s3_upload_id))
    return after, duties(after)


def _completion_proven(upload: Upload, event: CompletionProven) -> Applied:
    if upload.state is not State.COMPLETING or event.attempt != upload.attempt:
        return upload, ()
    changes = {"proof": event.proof, "completed_at": event.now, "s3_upload_id": None, "reason": None}
    after = transition(upload, Transition.PROVE, receipt=event.receipt, **changes)
    return after, close(after, event.now) + receipt_duty(after)


def _completion_failed(upload: Upload, event: CompletionFailed) -> Applied:
    if upload.state is not State.COMPLETING or event.attempt != upload.attempt:
        return upload, ()
    if event.left and not upload.one_put:
        upload = _with_stray(upload, Stray(upload.s3_key, upload.object_token, event.now))
    return _given_up(upload, event, event.text)


def _set_back(upload: Upload, event: SetBack) -> Applied:
    if upload.state in TERMINAL or (event.attempt, event.setbacks) != (upload.attempt, upload.setbacks):
        return upload, ()
    if event.setbacks + 1 < MAX_SETBACKS:
        resume_at = event.now + event.delay
        after = replace(upload, setbacks=event.setbacks + 1, resume_at=resume_at, reason=event.reason, held=False)
        return after, duties(after)
    if event.left is not None:
        upload = _with_stray(upload, Stray(upload.s3_key, event.left, event.now + UNSEEN_STRAY_WAIT))
    return _given_up(upload, event, event.reason.text)


def _with_stray(upload: Upload, stray: Stray) -> Upload:
    return replace(upload, strays=(*upload.strays, stray))


def _given_up(upload: Upload, event: CompletionFailed | SetBack, text: str) -> Applied:
    """The next attempt or the end, after a step of the owner that came to nothing."""
    if event.again:
        after, effects = new_attempt(upload, event.now, event.error, text, delay=event.delay)
    else:
        after, effects = ended(upload, Transition.FAIL, event.now, event.error, text)
    return after, effects + (close(after, event.now) if after.state in TERMINAL else ())


def _over_quota(upload: Upload, event: OverQuota) -> Applied:
    return ended(upload, Transition.FAIL, event.now, ReasonCode.QUOTA_EXCEEDED, event.text)


def _cleanup_done(upload: Upload, event: CleanupDone) -> Applied:
    litter = tuple(s3_upload_id for s3_upload_id in upload.litter if s3_upload_id != event.target)
    strays = tuple(stray for stray in upload.strays if stray.s3_key != event.target)
    return replace(upload, litter=litter, strays=strays), ()


def _observed(upload: Upload, event: Observed) -> Applied:
    return observed(upload, event), ()


HANDLERS: Final[Mapping[type[Event], Handler]] = {
    PartsRequested: _parts_requested,
    Succeeded: _succeeded,
    ErrorReported: _error_reported,
    Rejected: _rejected,
    CancelledByClient: _cancelled_by_client,
    Progressed: _progressed,
    AfterReported: after_reported,
    Dispatched: _dispatched,
    MissingFromHello: _missing_from_hello,
    StepTimedOut: _step_timed_out,
    CancelRequested: _cancel_requested,
    DeadlinePassed: _deadline_passed,
    MultipartCreated: _multipart_created,
    CompletionProven: _completion_proven,
    ReceiptSigned: receipt_signed,
    ReceiptRefused: receipt_refused,
    ReceiptDone: receipt_done,
    CompletionFailed: _completion_failed,
    SetBack: _set_back,
    Held: held,
    GateOpened: gate_opened,
    DeadlineMoved: deadline_moved,
    OverQuota: _over_quota,
    CleanupDone: _cleanup_done,
    Observed: _observed,
}
"""What applies each event. A remote event reaches its handler only through `_guard`."""


# --- the end of an attempt, and of the upload ------------------------------------------------------------------------


def new_attempt(upload: Upload, now: float, error: str, text: str, *, delay: float = 0.0) -> Applied:
    """The next attempt, due `delay` (s) after `now`; the third is due after twice the delay.

    After the third the upload fails with `error` and `text`. A new S3 upload id fences the old attempt. After a
    PutObject, which has none, the next attempt has another key.
    """
    if upload.attempt >= MAX_ATTEMPTS:
        return ended(upload, Transition.FAIL, now, error, f"{text} (attempt {upload.attempt} of {MAX_ATTEMPTS})")
    after = transition(
        _left_behind(upload, now),
        Transition.RESTART,
        attempt=upload.attempt + 1,
        sequence=0,
        s3_key=upload.next_key if _key_is_used(upload) else upload.s3_key,
        one_put=False,
        file_size=None,
        part_size=None,
        fingerprint=None,
        parts={},
        wanted=(),
        resume_at=now + _grown(delay, upload.attempt - 1),
        reason=_reason(error, text),
        bytes_sent=0,
        strikes=0,
        setbacks=0,
    )
    return after, duties(after)


def _key_is_used(upload: Upload) -> bool:
    """Whether an object exists, or may come to exist, under the key: its deletion must not hit the next attempt's."""
    return upload.one_put or any(stray.s3_key == upload.s3_key for stray in upload.strays)


def ended(upload: Upload, by: Transition, now: float, error: str | None, text: str) -> Applied:
    """The upload in a terminal state. While its client may be busy with it, a cancel is one of its duties."""
    changes = {"error": error, "message": text, "reason": None, "wanted": (), "completed_at": now, "strikes": 0}
    # A pause before the next try does not delay the cancel.
    after = transition(_left_behind(upload, now), by, resume_at=0.0, **changes)
    return after, duties(after)


def _left_behind(upload: Upload, now: float) -> Upload:
    """The upload with all that an abandoned attempt leaves in the object store noted for removal."""
    litter, strays = upload.litter, upload.strays
    if upload.s3_upload_id is not None:
        litter = (*litter, upload.s3_upload_id)
    if upload.one_put:
        strays = (*strays, Stray(upload.s3_key, upload.object_token, now + PUT_URL_LIFE + CLOCK_MARGIN))
    return replace(upload, s3_upload_id=None, litter=litter, strays=strays)


def _grown(delay: float, times: int) -> float:
    """`delay` (s), doubled `times` times."""
    return min(delay * 2.0 ** max(times, 0), max(delay, _LONGEST_DELAY))


def _reason(code: str, text: str) -> Reason:
    """An error code with the text that its sender gave."""
    return Reason(code, f"{code}: {text}" if text else str(code))
