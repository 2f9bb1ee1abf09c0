"""The owner's side of one upload, event by event."""

from dataclasses import replace
from typing import get_args

import pytest

from control_plane.domain.errors import IllegalTransition
from control_plane.domain.reasons import Reason, WaitCode
from control_plane.domain.uploads.duties import Duty, Kind, duties
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
    StepTimedOut,
    Succeeded,
)
from control_plane.domain.uploads.machine import HANDLERS, TRANSITIONS, apply
from control_plane.domain.uploads.model import OPEN, TERMINAL, Proof, State
from schemas.parts import MIB
from schemas.values import DigestName, ErrorCode, Fingerprint, WantedPart
from tests.support.uploads import FINGERPRINT, after, an_offer, an_upload, completing, dispatched, opened, wanted

ETAGS = {1: '"e1"', 2: '"e2"', 3: '"e3"'}


def kinds(effects: tuple[Duty, ...]) -> list[Kind]:
    """What is to be done, in order."""
    return [effect.kind for effect in effects]


def test_terminal_states_have_empty_rows_and_open_ones_can_end() -> None:
    """The table says the same as the sets of states."""
    assert {state for state, row in TRANSITIONS.items() if not row} == TERMINAL
    assert all(set(TRANSITIONS[state].values()) & TERMINAL for state in OPEN)
    assert set(TRANSITIONS) == set(State)


def test_a_new_upload_obliges_to_tell_the_client() -> None:
    """Nothing else is due before the client has spoken."""
    assert kinds(duties(an_upload())) == [Kind.SEND_DOWNLOAD]


def test_the_whole_way() -> None:
    """Queued, dispatched, in progress, completing, completed."""
    upload = an_upload()
    upload, effects = apply(upload, Dispatched(now=1.0))
    assert (upload.state, effects) == (State.DISPATCHED, ())
    upload, effects = apply(upload, an_offer())
    assert (upload.state, kinds(effects)) == (State.IN_PROGRESS, [Kind.CREATE_MULTIPART])
    upload, effects = apply(upload, MultipartCreated(now=3.0, attempt=1, s3_upload_id="s3-1"))
    assert (upload.s3_upload_id, kinds(effects)) == ("s3-1", [Kind.SEND_GRANT])
    upload, effects = apply(upload, Succeeded(now=4.0, attempt=1, sequence=2, etags=ETAGS))
    assert (upload.state, kinds(effects)) == (State.COMPLETING, [Kind.COMPLETE])
    upload, effects = apply(upload, CompletionProven(now=5.0, attempt=1, proof=Proof.ETAG))
    assert (upload.state, kinds(effects)) == (State.COMPLETED, [Kind.SEND_CLOSE])
    assert (upload.proof, upload.completed_at, duties(upload)) == (Proof.ETAG, 5.0, ())


def test_a_question_carries_etags_and_wants_more() -> None:
    """What was reported is kept, what is asked next is granted."""
    upload = opened()
    upload, effects = apply(
        upload,
        PartsRequested(
            now=5.0, attempt=1, sequence=2, etags={1: '"e1"'}, file_size=12 * MIB, wanted=wanted(12 * MIB, 3)
        ),
    )
    assert upload.stored_parts == [1]
    assert [part.part_number for part in upload.to_grant] == [3]
    assert kinds(effects) == [Kind.SEND_GRANT]


def test_a_repeated_question_is_answered_and_changes_nothing() -> None:
    """The answer may have been lost."""
    upload = opened()
    again, effects = apply(upload, an_offer(now=9.0))
    assert again is upload
    assert kinds(effects) == [Kind.SEND_GRANT]


def test_a_message_of_an_older_attempt_is_dropped() -> None:
    """Whatever it says."""
    upload = after(opened(), ErrorReported(now=4.0, attempt=1, sequence=2, code=ErrorCode.SOURCE_CHANGED))
    assert (upload.attempt, upload.state) == (2, State.QUEUED)
    again, effects = apply(upload, Succeeded(now=5.0, attempt=1, sequence=3, etags=ETAGS))
    assert again is upload
    assert effects == ()


def test_a_client_left_behind_in_an_older_attempt_is_released_after_the_end() -> None:
    """It never hears of the attempt in which the upload ended, and would repeat its last word for ever."""
    upload = after(opened(), ErrorReported(now=5.0, sequence=2, code=ErrorCode.UPLOAD_GONE), CancelRequested(now=6.0))
    assert (upload.attempt, upload.client_busy) == (2, False)
    same, effects = apply(upload, ErrorReported(now=7.0, attempt=1, sequence=2, code=ErrorCode.UPLOAD_GONE))
    assert (same, kinds(effects)) == (upload, [Kind.SEND_CLOSE])
    assert apply(upload, Progressed(now=7.0, attempt=1, bytes_sent=1)) == (upload, ())


def test_a_new_attempt_abandons_the_old_multipart_upload() -> None:
    """The old S3 upload id is a fence, and litter."""
    upload, effects = apply(opened(), ErrorReported(now=4.0, attempt=1, sequence=2, code=ErrorCode.UPLOAD_GONE))
    assert (upload.attempt, upload.s3_upload_id, upload.litter) == (2, None, ("s3-1",))
    assert (upload.sequence, dict(upload.parts), upload.plan) == (0, {}, None)
    assert kinds(effects) == [Kind.SEND_DOWNLOAD, Kind.ABORT_MULTIPART]
    assert upload.message_id != opened().message_id


def test_the_fourth_attempt_is_a_failure() -> None:
    """At most three."""
    upload = opened()
    for attempt in (1, 2, 3):
        upload = after(
            upload, ErrorReported(now=4.0, attempt=attempt, sequence=9, code=ErrorCode.SOURCE_CHANGED, text="x")
        )
    assert (upload.state, upload.error) == (State.FAILED, ErrorCode.SOURCE_CHANGED)
    assert upload.message == "x (attempt 3 of 3)"


def test_the_same_attempt_is_told_again_after_a_pause() -> None:
    """With its parts, its S3 upload id and an ack of the error."""
    upload, effects = apply(
        opened(),
        ErrorReported(now=4.0, attempt=1, sequence=2, etags={1: '"e1"'}, code=ErrorCode.BUSY, text="full", delay=30),
    )
    assert (upload.state, upload.sequence, upload.s3_upload_id) == (State.QUEUED, 2, "s3-1")
    assert effects == (Duty(Kind.SEND_DOWNLOAD, 1, 34.0),)
    assert (upload.reason, upload.stored_parts) == (Reason(ErrorCode.BUSY, "busy: full"), [1])


@pytest.mark.parametrize(
    ("event", "state", "error"),
    [
        (ErrorReported(now=4.0, sequence=2, code=ErrorCode.FILE_NOT_FOUND), State.FAILED, "file_not_found"),
        (ErrorReported(now=4.0, sequence=2, code=ErrorCode.UNKNOWN), State.FAILED, "unknown"),
        (Rejected(now=4.0, sequence=2, code=ErrorCode.PATH_NOT_ALLOWED), State.REJECTED, "path_not_allowed"),
        (CancelledByClient(now=4.0, sequence=2), State.CANCELLED, None),
    ],
)
def test_an_end_on_the_client_is_final_and_releases_it(
    event: ErrorReported | Rejected | CancelledByClient, state: State, error: str | None
) -> None:
    """State, code, an abort, and a close."""
    upload, effects = apply(opened(), event)
    assert (upload.state, upload.error, upload.client_busy) == (state, error, False)
    assert kinds(effects) == [Kind.ABORT_MULTIPART, Kind.SEND_CLOSE]


def test_cancel_stops_a_busy_client_until_it_answers() -> None:
    """The order is repeated by its duty, not by luck."""
    upload, effects = apply(opened(), CancelRequested(now=5.0))
    assert upload.state is State.CANCELLED
    assert kinds(effects) == [Kind.SEND_CANCEL, Kind.ABORT_MULTIPART]
    repeated, effects = apply(upload, an_offer(now=6.0, sequence=3))
    assert repeated is upload
    assert kinds(effects) == [Kind.SEND_CANCEL]
    upload, effects = apply(upload, CancelledByClient(now=7.0, sequence=3))
    assert kinds(effects) == [Kind.SEND_CLOSE]
    assert kinds(duties(upload)) == [Kind.ABORT_MULTIPART]
    assert duties(after(upload, CleanupDone(now=8.0, target="s3-1"))) == ()


def test_a_client_that_never_knew_the_upload_ends_the_cancel() -> None:
    """Its answer has no sequence and cannot name the attempt."""
    upload = after(
        opened(), ErrorReported(now=4.0, sequence=2, code=ErrorCode.UPLOAD_GONE), Dispatched(now=5.0, attempt=2)
    )
    upload = after(upload, CancelRequested(now=6.0), CancelledByClient(now=7.0))
    assert upload.client_busy is False


def test_cancel_of_an_upload_nobody_was_told_needs_no_words() -> None:
    """The client is not busy with it."""
    upload, effects = apply(an_upload(), CancelRequested(now=5.0))
    assert (upload.state, effects, duties(upload)) == (State.CANCELLED, (), ())


@pytest.mark.parametrize("state", [State.COMPLETING, *sorted(TERMINAL)])
def test_cancel_is_illegal_once_it_is_too_late(state: State) -> None:
    """In `completing` the object may be there already."""
    upload = completing() if state is State.COMPLETING else an_upload(state=state)
    with pytest.raises(IllegalTransition, match=f"{state} cannot be cancelled"):
        apply(upload, CancelRequested(now=9.0))


def test_the_deadline_waits_for_completion() -> None:
    """In doubt is settled first."""
    upload = completing()
    assert apply(upload, DeadlinePassed(now=5000.0)) == (upload, ())
    assert after(opened(), DeadlinePassed(now=5000.0)).state is State.EXPIRED


def test_three_silent_steps_fail_a_connected_client() -> None:
    """Each of the first two repeats the last command."""
    upload = opened()
    for strike in (1, 2):
        upload, effects = apply(upload, StepTimedOut(now=10.0))
        assert (upload.strikes, kinds(effects)) == (strike, [Kind.SEND_GRANT])
    upload, effects = apply(upload, StepTimedOut(now=20.0))
    assert (upload.state, upload.error) == (State.FAILED, "no_progress")
    assert Kind.SEND_CANCEL in kinds(effects)


def test_progress_resets_the_strikes() -> None:
    """Bytes, or a named reason to wait, are signs of life; a mere repeat is not."""
    upload = after(opened(), StepTimedOut(now=10.0), Progressed(now=11.0, bytes_sent=100))
    assert (upload.strikes, upload.bytes_sent, upload.touched_at) == (0, 100, 11.0)
    assert apply(upload, Progressed(now=12.0, bytes_sent=100))[0] is upload
    waits = Reason(WaitCode.CLIENT_REPORTED, "rate limit")
    assert after(upload, Progressed(now=13.0, bytes_sent=100, reason="rate limit")).reason == waits


def test_a_client_that_forgot_is_told_again() -> None:
    """It said hello without the upload."""
    upload, effects = apply(opened(), MissingFromHello(now=10.0))
    assert (upload.state, kinds(effects)) == (State.QUEUED, [Kind.SEND_DOWNLOAD])
    assert apply(an_upload(), MissingFromHello(now=1.0))[1] == ()


def test_success_before_anything_was_granted_is_not_believed() -> None:
    """There is no multipart upload to complete, so it would be completing for ever."""
    upload, effects = apply(after(dispatched(), an_offer()), Succeeded(now=4.0, attempt=1, sequence=2, etags=ETAGS))
    assert (upload.state, upload.attempt, kinds(effects)) == (State.QUEUED, 2, [Kind.SEND_DOWNLOAD])


def test_a_client_wrongly_taken_for_forgetful_gets_its_grant() -> None:
    """Told again, it repeats its open question; the command once more would only have it repeated for ever."""
    upload = after(opened(), MissingFromHello(now=10.0), Dispatched(now=11.0))
    upload, effects = apply(upload, an_offer(now=12.0))
    assert (upload.state, kinds(effects)) == (State.IN_PROGRESS, [Kind.SEND_GRANT])


def test_a_hello_knows_nothing_of_what_came_after_it() -> None:
    """The client offered while its hello waited."""
    assert apply(opened(), MissingFromHello(now=1.5)) == (opened(), ())


def test_an_amnesiac_client_is_not_granted_what_is_stored() -> None:
    """Parts whose offered digest equals the stored one need no URL; others do, and lose their etag."""
    upload = after(
        opened(),
        PartsRequested(now=5.0, sequence=2, etags=ETAGS, file_size=12 * MIB, wanted=()),
        MissingFromHello(now=6.0),
    )
    offer = an_offer(sequence=3, wanted=(*wanted(12 * MIB, 1, 2), *wanted(12 * MIB, 3, salt="other")))
    upload = after(upload, offer)
    assert [part.part_number for part in upload.to_grant] == [3]
    assert upload.stored_parts == [1, 2]


def test_another_file_under_the_same_path_is_a_new_attempt() -> None:
    """What survives a reboot is compared: size, mtime, ctime."""
    other = Fingerprint(size=12 * MIB, mtime_ns=99, ctime_ns=4, device=1, inode=2)
    assert after(opened(), an_offer(sequence=2, fingerprint=other)).attempt == 2
    moved = Fingerprint(size=12 * MIB, mtime_ns=3, ctime_ns=4, device=9, inode=9)
    assert after(opened(), an_offer(sequence=2, fingerprint=moved)).attempt == 1
    assert moved != FINGERPRINT


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (WantedPart(4, 1, "AAAAAAAAAAAAAAAAAAAAAA=="), "not in the plan of 3 parts"),
        (WantedPart(1, 1, "AAAAAAAAAAAAAAAAAAAAAA=="), "not in the plan of 3 parts"),
        (WantedPart(1, 5 * MIB, None), "without its md5"),
        (WantedPart(1, 5 * MIB, "short"), "not a md5 in base64"),
    ],
)
def test_an_offer_that_contradicts_the_plan_fails_and_stops_the_client(part: WantedPart, complaint: str) -> None:
    """Both sides compute the plan alike, so one of them is broken."""
    upload, effects = apply(dispatched(), an_offer(wanted=(part,)))
    assert (upload.state, upload.error) == (State.FAILED, "bad_request")
    assert complaint in (upload.message or "")
    assert kinds(effects) == [Kind.SEND_CANCEL]


def test_a_file_beyond_the_limits_of_s3_fails() -> None:
    """48.8 TiB and one byte."""
    upload = after(dispatched(), an_offer(file_size=10_000 * 5 * 1024 * MIB + 1, wanted=()))
    assert (upload.state, upload.error) == (State.FAILED, "file_too_large")


def test_success_without_every_etag_is_not_believed() -> None:
    """A new attempt, with the missing parts named."""
    upload = after(opened(), Succeeded(now=4.0, sequence=2, etags={1: '"e1"'}))
    assert (upload.state, upload.attempt) == (State.QUEUED, 2)
    assert "parts 2, 3" in str(upload.reason)


def test_success_without_a_sequence_is_left_to_the_store() -> None:
    """Only a tombstone speaks so: somebody knew once that the upload was completed."""
    upload = after(opened(), Succeeded(now=4.0, sequence=None))
    assert (upload.state, upload.attempt) == (State.COMPLETING, 1)
    unplanned = after(dispatched(), Succeeded(now=4.0, sequence=None))
    assert (unplanned.state, unplanned.attempt) == (State.QUEUED, 2)


def test_a_one_put_upload_needs_no_multipart_and_leaves_a_stray_behind() -> None:
    """Nothing but time fences a PutObject URL, so the next attempt has another key."""
    upload, effects = apply(dispatched(), an_offer(file_size=MIB, one_put=frozenset({DigestName.MD5})))
    assert kinds(effects) == [Kind.SEND_GRANT]
    upload = after(upload, ErrorReported(now=10.0, sequence=2, code=ErrorCode.DIGEST_MISMATCH))
    (stray,) = upload.strays
    assert stray.s3_key != upload.s3_key
    assert stray.after > 10.0 + 300.0
    assert Duty(Kind.DELETE_OBJECT, 2, stray.after, stray.s3_key) in duties(upload)
    assert after(upload, CleanupDone(now=999.0, target=stray.s3_key)).strays == ()


def test_a_completed_one_put_leaves_no_stray() -> None:
    """The object is the upload."""
    upload = after(
        dispatched(),
        an_offer(file_size=MIB, one_put=frozenset({DigestName.MD5})),
        Succeeded(now=4.0, sequence=2, etags={1: '"e"'}),
        CompletionProven(now=5.0, attempt=1, proof=Proof.ETAG),
    )
    assert (upload.state, upload.strays, duties(upload)) == (State.COMPLETED, (), ())


def test_the_loser_of_a_race_to_create_is_aborted() -> None:
    """The first id wins; the same id again is no news."""
    upload = after(opened(), MultipartCreated(now=4.0, attempt=1, s3_upload_id="s3-2"))
    assert (upload.s3_upload_id, upload.litter) == ("s3-1", ("s3-2",))
    assert after(upload, MultipartCreated(now=4.0, attempt=1, s3_upload_id="s3-1")) is upload


def test_an_upload_that_ended_meanwhile_aborts_what_was_created() -> None:
    """Created after the cancel."""
    upload = after(dispatched(), an_offer(), CancelRequested(now=3.0))
    upload, effects = apply(upload, MultipartCreated(now=4.0, attempt=1, s3_upload_id="s3-1"))
    assert upload.litter == ("s3-1",)
    assert Kind.ABORT_MULTIPART in kinds(effects)


def test_a_completion_that_lost_its_parts_is_a_new_attempt() -> None:
    """The client waits with `success`; the new command replaces it."""
    failed = CompletionFailed(now=6.0, attempt=1, error=ErrorCode.UPLOAD_GONE, text="gone", again=True)
    upload, effects = apply(completing(), failed)
    assert (upload.state, upload.attempt) == (State.QUEUED, 2)
    assert Kind.SEND_DOWNLOAD in kinds(effects)


def test_an_object_without_proof_is_a_failure_that_releases_the_client() -> None:
    """`REQUIRE_PROOF`."""
    upload, effects = apply(completing(), CompletionFailed(now=6.0, attempt=1, error="not_proven", text="t"))
    assert (upload.state, upload.error) == (State.FAILED, "not_proven")
    assert kinds(effects) == [Kind.ABORT_MULTIPART, Kind.SEND_CLOSE]


def test_a_late_verdict_changes_nothing() -> None:
    """Another replica settled it."""
    done = after(completing(), CompletionProven(now=5.0, attempt=1, proof=Proof.ETAG))
    assert after(done, CompletionFailed(now=6.0, attempt=1, error="not_proven", text="t")) is done


def test_a_store_that_refuses_ends_the_upload() -> None:
    """No permission to create a multipart upload, say."""
    upload = after(dispatched(), an_offer(), ObjectStoreRejected(now=3.0, attempt=1, text="AccessDenied"))
    assert (upload.state, upload.error, upload.message) == (State.FAILED, "store_refused", "AccessDenied")


def test_a_client_ahead_of_our_database_gets_a_new_attempt() -> None:
    """The database was restored from a backup."""
    upload = after(opened(), an_offer(attempt=2, sequence=5))
    assert (upload.attempt, upload.state) == (3, State.QUEUED)
    assert after(opened(), an_offer(attempt=3, sequence=5)).state is State.FAILED


def test_history_follows_what_is_overheard() -> None:
    """An end that was heard is final."""
    upload = an_upload(owner="cli-7")
    upload = after(upload, Observed(now=1.0, state=State.IN_PROGRESS, file_size=9, etags={1: '"a"'}))
    upload = after(upload, Observed(now=2.0, state=State.COMPLETING), Observed(now=3.0, state=State.IN_PROGRESS))
    assert (upload.state, upload.file_size, upload.stored_parts) == (State.COMPLETING, 9, [1])
    upload = after(upload, Observed(now=4.0, state=State.COMPLETED), Observed(now=5.0, state=State.FAILED))
    assert (upload.state, upload.completed_at) == (State.COMPLETED, 4.0)


def test_a_repeated_error_does_not_cut_its_pause_short() -> None:
    """The command is due after the backoff, and not sooner for being asked for."""
    error = ErrorReported(now=4.0, attempt=1, sequence=2, code=ErrorCode.BUSY, delay=30)
    upload = after(opened(), error)
    assert apply(upload, replace(error, now=5.0)) == (upload, ())


def test_a_chunk_size_that_nobody_may_use_is_a_bad_request() -> None:
    """Typed by hand; the file is not to blame."""
    upload = after(dispatched(chunk_size=5), an_offer())
    assert (upload.state, upload.error) == (State.FAILED, "bad_request")


def test_each_event_has_one_handler() -> None:
    """`HANDLERS` covers the union of all events."""
    assert set(HANDLERS) == set(get_args(Event))
    assert set(REMOTE_EVENTS) | set(get_args(LocalEvent)) == set(HANDLERS)
