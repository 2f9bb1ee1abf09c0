"""Invariants of an upload under any events, in any order and number."""

from collections.abc import Sequence
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.errors import IllegalTransition
from control_plane.domain.reasons import Reason
from control_plane.domain.uploads.duties import COMMANDS, Kind, duties
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
    MissingFromHello,
    MultipartCreated,
    PartsRequested,
    Progressed,
    Rejected,
    SetBack,
    StepTimedOut,
    Succeeded,
)
from control_plane.domain.uploads.machine import TRANSITIONS, apply
from control_plane.domain.uploads.model import MAX_ATTEMPTS, MAX_SETBACKS, TERMINAL, Proof, State
from schemas.parts import MIB
from schemas.values import DigestName, ErrorCode
from tests.support.examples import examples
from tests.support.uploads import an_upload, wanted

SIZE = 12 * MIB
PARTS = (1, 2, 3)

nows = st.floats(min_value=0, max_value=2000)
attempts = st.integers(1, 4)
sequences = st.one_of(st.none(), st.integers(0, 6))
etags = st.dictionaries(st.sampled_from((*PARTS, 4)), st.sampled_from(('"a"', '"b"', "")), max_size=3)
codes = st.sampled_from(ErrorCode)
remote: dict[str, Any] = {"now": nows, "attempt": attempts, "sequence": sequences, "etags": etags}
requests = st.builds(
    PartsRequested,
    **remote,
    file_size=st.sampled_from((None, 0, MIB, SIZE)),
    wanted=st.lists(st.sampled_from(wanted(SIZE)), max_size=3, unique=True).map(tuple),
    one_put=st.sampled_from((frozenset(), frozenset({DigestName.MD5}))),
)
events: st.SearchStrategy[Event] = st.one_of(
    requests,
    st.builds(Succeeded, **remote),
    st.builds(ErrorReported, **remote, code=codes, text=st.just("x"), delay=st.sampled_from((0.0, 9.0))),
    st.builds(Rejected, **remote, code=codes),
    st.builds(CancelledByClient, **remote),
    st.builds(Progressed, now=nows, attempt=attempts, bytes_sent=st.integers(0, SIZE)),
    st.builds(Dispatched, now=nows, attempt=attempts),
    st.builds(MissingFromHello, now=nows),
    st.builds(StepTimedOut, now=nows),
    st.builds(CancelRequested, now=nows),
    st.builds(DeadlinePassed, now=nows),
    st.builds(MultipartCreated, now=nows, attempt=attempts, s3_upload_id=st.sampled_from(("m1", "m2", "m3"))),
    st.builds(CompletionProven, now=nows, attempt=attempts, proof=st.sampled_from(Proof)),
    st.builds(CompletionFailed, now=nows, attempt=attempts, error=st.just("e"), text=st.just("t"), again=st.booleans()),
    st.builds(
        SetBack,
        now=nows,
        attempt=attempts,
        setbacks=st.integers(0, MAX_SETBACKS - 1),
        reason=st.just(Reason("object_store_refused", "t")),
        error=st.just("e"),
        delay=st.sampled_from((0.0, 9.0)),
        again=st.booleans(),
        left=st.sampled_from((None, "token")),
    ),
    st.builds(CleanupDone, now=nows, target=st.sampled_from(("m1", "m2", "m3"))),
)
histories = st.lists(events, max_size=40)


def check_step(history: Sequence[Event]) -> None:
    """Apply a history and check every invariant after each event."""
    upload = an_upload()
    opened: set[str] = set()
    ended_as: State | None = None
    from_tombstone = False
    for event in history:
        before = upload
        try:
            upload, effects = apply(before, event)
        except IllegalTransition:
            assert isinstance(event, CancelRequested)
            assert not set(TRANSITIONS[before.state].values()) & {State.CANCELLED}
            continue
        if isinstance(event, MultipartCreated):
            opened.add(event.s3_upload_id)
        if before.state in TERMINAL:
            assert upload.state is before.state, "terminal is final"
        if upload.state is not before.state:
            assert upload.state in TRANSITIONS[before.state].values(), "only by the table"
        if upload.state is State.COMPLETING:
            if before.state is not State.COMPLETING:
                # A success without a sequence is a tombstone's: the parts may be those of an object that is whole
                # already, and only the object store can tell.
                from_tombstone = isinstance(event, Succeeded) and event.sequence is None
            assert from_tombstone or not upload.missing_parts, "complete names every part"
            assert upload.plan is not None
            assert upload.one_put or upload.s3_upload_id is not None or upload.file_size is not None
        if upload.state is State.COMPLETED and ended_as is None:
            assert before.state is State.COMPLETING, "completed only by proof"
            assert isinstance(event, CompletionProven)
        if upload.state in TERMINAL and ended_as is None:
            ended_as = upload.state
        assert upload.attempt <= MAX_ATTEMPTS + 1
        # Each effect is a duty of the state, or a close, which the client requests again by repeating itself.
        required = {(duty.kind, duty.target) for duty in duties(upload)}
        assert all(effect.kind is Kind.SEND_CLOSE or (effect.kind, effect.target) in required for effect in effects)


@settings(max_examples=examples(1_500))
@example(
    [
        ErrorReported(now=0.0, attempt=2, code=ErrorCode.PATH_NOT_ALLOWED),
        PartsRequested(now=0.0, attempt=3, file_size=1),
        MultipartCreated(now=0.0, attempt=3, s3_upload_id="m1"),
        Succeeded(now=0.0, attempt=3),
    ]
)
@given(histories)
def test_every_history_keeps_the_laws(history: list[Event]) -> None:
    """Terminal states are final, a completion names every part, effects are duties."""
    check_step(history)


@settings(max_examples=examples(500))
@given(histories, events)
def test_an_event_twice_is_an_event_once(history: list[Event], event: Event) -> None:
    """A response with a sequence changes nothing the second time."""
    upload = an_upload()
    for one in history:
        try:
            upload, _ = apply(upload, one)
        except IllegalTransition:
            continue
    if isinstance(event, REMOTE_EVENTS) and event.sequence is not None and event.attempt == upload.attempt:
        once, _ = apply(upload, event)
        twice, effects = apply(once, event)
        assert replace(twice, updated_at=0) == replace(once, updated_at=0)
        assert all(effect.kind in COMMANDS for effect in effects)


@settings(max_examples=examples(500))
@given(histories)
def test_every_opened_multipart_upload_is_used_or_aborted(history: list[Event]) -> None:
    """Each created multipart upload is the current one, is litter to be aborted, or was cleaned up."""
    upload = an_upload()
    opened: set[str] = set()
    cleaned: set[str] = set()
    for event in history:
        if isinstance(event, CleanupDone):
            cleaned.add(event.target)
        if isinstance(event, MultipartCreated):
            opened.add(event.s3_upload_id)
            cleaned.discard(event.s3_upload_id)
        try:
            upload, _ = apply(upload, event)
        except IllegalTransition:
            continue
        if upload.state is State.COMPLETED:
            return
        assert opened <= {upload.s3_upload_id, *upload.litter, *cleaned}
