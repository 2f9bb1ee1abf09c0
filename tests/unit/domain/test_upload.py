"""The owner's machine of one upload, event by event."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from msgspec import structs

from control_plane.domain.errors import IllegalTransition
from control_plane.domain.reasons import Reason, ReasonCode
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
    Observed,
    PartsRequested,
    Progressed,
    Rejected,
    SetBack,
    StepTimedOut,
    Succeeded,
)
from control_plane.domain.uploads.machine import HANDLERS, TRANSITIONS, UNSEEN_STRAY_WAIT, apply
from control_plane.domain.uploads.model import MAX_SETBACKS, OPEN, TERMINAL, Proof, State, Stray
from schemas.parts import MIB
from schemas.values import DigestName, ErrorCode, Fingerprint, UploadOptions, WantedPart
from tests.support.uploads import FINGERPRINT, after, an_offer, an_upload, completing, dispatched, opened, wanted

ETAGS = {1: '"e1"', 2: '"e2"', 3: '"e3"'}


def kinds(effects: tuple[Duty, ...]) -> list[Kind]:
    """The kinds of these duties, in order."""
    return [effect.kind for effect in effects]


def test_terminal_states_have_no_transitions_and_open_ones_can_end() -> None:
    """The table agrees with the sets of states."""
    assert {state for state, row in TRANSITIONS.items() if not row} == TERMINAL
    assert all(set(TRANSITIONS[state].values()) & TERMINAL for state in OPEN)
    assert set(TRANSITIONS) == set(State)


def test_a_new_upload_has_one_duty_to_send_the_download() -> None:
    """Nothing else is due before the first response."""
    assert kinds(duties(an_upload())) == [Kind.SEND_DOWNLOAD]


def test_an_upload_from_queued_to_completed() -> None:
    """Through dispatched, in progress and completing."""
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


def test_a_request_reports_etags_and_wants_more_parts() -> None:
    """Reported etags are stored, and the wanted parts are granted."""
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


def test_a_repeated_request_is_answered_and_changes_nothing() -> None:
    """The first grant may be lost."""
    upload = opened()
    again, effects = apply(upload, an_offer(now=9.0))
    assert again is upload
    assert kinds(effects) == [Kind.SEND_GRANT]


def test_a_message_of_an_older_attempt_is_dropped() -> None:
    """A success too."""
    upload = after(opened(), ErrorReported(now=4.0, attempt=1, sequence=2, code=ErrorCode.SOURCE_CHANGED))
    assert (upload.attempt, upload.state) == (2, State.QUEUED)
    again, effects = apply(upload, Succeeded(now=5.0, attempt=1, sequence=3, etags=ETAGS))
    assert again is upload
    assert effects == ()


def test_a_client_left_behind_in_an_older_attempt_is_released_after_the_end() -> None:
    """It receives no command of the attempt in which the upload ended, and would repeat its response for ever."""
    upload = after(opened(), ErrorReported(now=5.0, sequence=2, code=ErrorCode.UPLOAD_GONE), CancelRequested(now=6.0))
    assert (upload.attempt, upload.client_busy) == (2, False)
    same, effects = apply(upload, ErrorReported(now=7.0, attempt=1, sequence=2, code=ErrorCode.UPLOAD_GONE))
    assert (same, kinds(effects)) == (upload, [Kind.SEND_CLOSE])
    assert apply(upload, Progressed(now=7.0, attempt=1, bytes_sent=1)) == (upload, ())


def test_a_new_attempt_abandons_the_old_multipart_upload() -> None:
    """The old S3 upload id fences late parts, and is litter."""
    upload, effects = apply(opened(), ErrorReported(now=4.0, attempt=1, sequence=2, code=ErrorCode.UPLOAD_GONE))
    assert (upload.attempt, upload.s3_upload_id, upload.litter) == (2, None, ("s3-1",))
    assert (upload.sequence, dict(upload.parts), upload.plan) == (0, {}, None)
    assert kinds(effects) == [Kind.SEND_DOWNLOAD, Kind.ABORT_MULTIPART]
    assert upload.message_id != opened().message_id


def test_the_fourth_attempt_is_a_failure() -> None:
    """There are at most three."""
    upload = opened()
    for attempt in (1, 2, 3):
        upload = after(
            upload, ErrorReported(now=4.0, attempt=attempt, sequence=9, code=ErrorCode.SOURCE_CHANGED, text="x")
        )
    assert (upload.state, upload.error) == (State.FAILED, ErrorCode.SOURCE_CHANGED)
    assert upload.message == "x (attempt 3 of 3)"


def test_the_same_attempt_is_dispatched_again_after_a_pause() -> None:
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
    """The cancel is a duty until the client answers it."""
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


def test_a_cancelled_response_of_a_client_without_the_upload_ends_the_cancel() -> None:
    """That response has no sequence and names no attempt."""
    upload = after(
        opened(), ErrorReported(now=4.0, sequence=2, code=ErrorCode.UPLOAD_GONE), Dispatched(now=5.0, attempt=2)
    )
    upload = after(upload, CancelRequested(now=6.0), CancelledByClient(now=7.0))
    assert upload.client_busy is False


def test_cancelling_an_undispatched_upload_sends_nothing() -> None:
    """The client is not busy with it."""
    upload, effects = apply(an_upload(), CancelRequested(now=5.0))
    assert (upload.state, effects, duties(upload)) == (State.CANCELLED, (), ())


@pytest.mark.parametrize("state", [State.COMPLETING, *sorted(TERMINAL)])
def test_a_cancel_is_illegal_from_completing_on(state: State) -> None:
    """In `completing` the object may exist already."""
    upload = completing() if state is State.COMPLETING else an_upload(state=state)
    with pytest.raises(IllegalTransition, match=f"{state} cannot be cancelled"):
        apply(upload, CancelRequested(now=9.0))


def test_the_deadline_waits_for_completion() -> None:
    """A completing upload is proven or fails first."""
    upload = completing()
    assert apply(upload, DeadlinePassed(now=5000.0)) == (upload, ())
    assert after(opened(), DeadlinePassed(now=5000.0)).state is State.EXPIRED


def test_three_silent_steps_fail_a_connected_client() -> None:
    """Each of the first two step timers repeats the last command."""
    upload = opened()
    for strike in (1, 2):
        upload, effects = apply(upload, StepTimedOut(now=10.0))
        assert (upload.strikes, kinds(effects)) == (strike, [Kind.SEND_GRANT])
    upload, effects = apply(upload, StepTimedOut(now=20.0))
    assert (upload.state, upload.error) == (State.FAILED, "no_progress")
    assert Kind.SEND_CANCEL in kinds(effects)


def test_progress_resets_the_strikes() -> None:
    """More bytes, or a reason to wait, count as progress; the same number of bytes does not."""
    upload = after(opened(), StepTimedOut(now=10.0), Progressed(now=11.0, bytes_sent=100))
    assert (upload.strikes, upload.bytes_sent, upload.touched_at) == (0, 100, 11.0)
    assert apply(upload, Progressed(now=12.0, bytes_sent=100))[0] is upload
    waits = Reason(ReasonCode.CLIENT_REPORTED, "rate limit")
    assert after(upload, Progressed(now=13.0, bytes_sent=100, reason="rate limit")).reason == waits


def test_an_upload_missing_from_hello_is_dispatched_again() -> None:
    """A queued upload has that duty already."""
    upload, effects = apply(opened(), MissingFromHello(now=10.0))
    assert (upload.state, kinds(effects)) == (State.QUEUED, [Kind.SEND_DOWNLOAD])
    assert apply(an_upload(), MissingFromHello(now=1.0))[1] == ()


def test_success_without_any_grant_starts_a_new_attempt() -> None:
    """There is no multipart upload to complete."""
    upload, effects = apply(after(dispatched(), an_offer()), Succeeded(now=4.0, attempt=1, sequence=2, etags=ETAGS))
    assert (upload.state, upload.attempt, kinds(effects)) == (State.QUEUED, 2, [Kind.SEND_DOWNLOAD])


def test_a_client_that_was_not_missing_the_upload_gets_its_grant() -> None:
    """It answers the repeated command with its open request; to repeat the command once more would loop for ever."""
    upload = after(opened(), MissingFromHello(now=10.0), Dispatched(now=11.0))
    upload, effects = apply(upload, an_offer(now=12.0))
    assert (upload.state, kinds(effects)) == (State.IN_PROGRESS, [Kind.SEND_GRANT])


def test_a_hello_older_than_the_last_response_changes_nothing() -> None:
    """The client offered after it had sent the hello."""
    assert apply(opened(), MissingFromHello(now=1.5)) == (opened(), ())


def test_a_client_without_its_journal_is_not_granted_stored_parts() -> None:
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
    """Size, mtime and ctime are compared; device and inode change at a reboot."""
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
    """Both sides compute the same plan, so one of them has a fault."""
    upload, effects = apply(dispatched(), an_offer(wanted=(part,)))
    assert (upload.state, upload.error) == (State.FAILED, "bad_request")
    assert complaint in (upload.message or "")
    assert kinds(effects) == [Kind.SEND_CANCEL]


def test_a_file_beyond_the_limits_of_s3_fails() -> None:
    """48.8 TiB and one byte."""
    upload = after(dispatched(), an_offer(file_size=10_000 * 5 * 1024 * MIB + 1, wanted=()))
    assert (upload.state, upload.error) == (State.FAILED, "file_too_large")


def test_success_without_every_etag_starts_a_new_attempt() -> None:
    """The reason names the missing parts."""
    upload = after(opened(), Succeeded(now=4.0, sequence=2, etags={1: '"e1"'}))
    assert (upload.state, upload.attempt) == (State.QUEUED, 2)
    assert "parts 2, 3" in str(upload.reason)


def test_success_of_a_tombstone_completes_without_etags() -> None:
    """It has no sequence: the upload was completed once, and the database is older than that."""
    upload = after(opened(), Succeeded(now=4.0, sequence=None))
    assert (upload.state, upload.attempt) == (State.COMPLETING, 1)
    unplanned = after(dispatched(), Succeeded(now=4.0, sequence=None))
    assert (unplanned.state, unplanned.attempt) == (State.QUEUED, 2)


def test_a_one_put_upload_needs_no_multipart_and_leaves_a_stray_behind() -> None:
    """Only its expiry fences a PutObject URL, so the next attempt has another key."""
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
    """The first S3 upload id is used; the same id again changes nothing."""
    upload = after(opened(), MultipartCreated(now=4.0, attempt=1, s3_upload_id="s3-2"))
    assert (upload.s3_upload_id, upload.litter) == ("s3-1", ("s3-2",))
    assert after(upload, MultipartCreated(now=4.0, attempt=1, s3_upload_id="s3-1")) is upload


def test_a_multipart_upload_created_after_the_end_is_aborted() -> None:
    """CreateMultipartUpload was under way when the cancel came."""
    upload = after(dispatched(), an_offer(), CancelRequested(now=3.0))
    upload, effects = apply(upload, MultipartCreated(now=4.0, attempt=1, s3_upload_id="s3-1"))
    assert upload.litter == ("s3-1",)
    assert Kind.ABORT_MULTIPART in kinds(effects)


def test_a_completion_that_lost_its_parts_is_a_new_attempt() -> None:
    """The client has reported success; the new command replaces its attempt."""
    failed = CompletionFailed(now=6.0, attempt=1, error=ErrorCode.UPLOAD_GONE, text="gone", again=True)
    upload, effects = apply(completing(), failed)
    assert (upload.state, upload.attempt) == (State.QUEUED, 2)
    assert Kind.SEND_DOWNLOAD in kinds(effects)


def test_an_object_without_proof_is_a_failure_that_releases_the_client() -> None:
    """`REQUIRE_PROOF`."""
    upload, effects = apply(completing(), CompletionFailed(now=6.0, attempt=1, error="not_proven", text="t"))
    assert (upload.state, upload.error) == (State.FAILED, "not_proven")
    assert kinds(effects) == [Kind.ABORT_MULTIPART, Kind.SEND_CLOSE]


def test_a_late_completion_result_changes_nothing() -> None:
    """Another replica proved the object first."""
    done = after(completing(), CompletionProven(now=5.0, attempt=1, proof=Proof.ETAG))
    assert after(done, CompletionFailed(now=6.0, attempt=1, error="not_proven", text="t")) is done


def a_setback(setbacks: int, **changes: object) -> SetBack:
    """A step of the first attempt that came to nothing."""
    fields: dict[str, Any] = {
        "now": 10.0,
        "attempt": 1,
        "reason": Reason("object_store_refused", "no"),
        "error": "store_refused",
    }
    return SetBack(**{**fields, "setbacks": setbacks, "delay": 7.0, **changes})


def test_a_setback_delays_the_step_and_names_the_wait() -> None:
    """The kind: an attempt must not be spent on what may change within a second."""
    upload, effects = apply(completing(), a_setback(0))
    assert (upload.state, upload.attempt, upload.setbacks) == (State.COMPLETING, 1, 1)
    assert upload.reason == Reason("object_store_refused", "no")
    assert effects == (Duty(Kind.COMPLETE, 1, 17.0),)


def test_a_step_of_two_replicas_is_one_setback() -> None:
    once = after(completing(), a_setback(0))
    assert after(once, a_setback(0)) is once


@pytest.mark.parametrize(("again", "state"), [(True, State.QUEUED), (False, State.FAILED)])
def test_the_last_setback_ends_the_attempt_and_what_it_may_have_left_is_a_stray(again: bool, state: State) -> None:  # noqa: FBT001
    """An object that is shown later must not stay, and no later attempt may use its key."""
    before = completing(setbacks=0)
    upload = after(before, *(a_setback(n, again=again, left="the token") for n in range(MAX_SETBACKS)))
    assert (upload.state, upload.setbacks) == (state, 0 if again else MAX_SETBACKS - 1)
    assert upload.strays == (Stray(before.s3_key, "the token", 10.0 + UNSEEN_STRAY_WAIT),)
    assert (upload.s3_key != before.s3_key) is again


def test_an_upload_knows_the_object_keys_of_all_its_attempts() -> None:
    """Each is in the next one, so none is stored. An attempt that may use the key before it adds none."""
    first = an_upload(s3_key="uploads/till-1/20270115-080151-b c.bin")
    assert first.keys == (first.s3_key,)
    second = structs.replace(first, s3_key=first.next_key, attempt=2)
    third = structs.replace(second, s3_key=second.next_key, attempt=3)
    assert third.keys == (third.s3_key, second.s3_key, first.s3_key)
    assert structs.replace(second, attempt=3).keys == (second.s3_key, first.s3_key)
    same = structs.replace(first, attempt=2)
    assert structs.replace(same, s3_key=same.next_key, attempt=3).keys == (same.next_key, first.s3_key)
    assert structs.replace(third, token="of another").keys == (third.s3_key,)


def test_new_attempts_wait_longer_each_time() -> None:
    upload, delays = opened(), []
    for attempt in (1, 2):
        error = ErrorReported(now=4.0, attempt=attempt, sequence=9, code=ErrorCode.UPLOAD_GONE, delay=10.0)
        upload = after(upload, error)
        delays.append(upload.resume_at - 4.0)
    assert delays == [10.0, 20.0]


def refused(sequence: int, **changes: object) -> ErrorReported:
    """The client reports that the object store refuses its URLs."""
    text = "the object store answered 403 AccessDenied"
    fields: dict[str, Any] = {"now": 4.0, "code": ErrorCode.STORAGE_REFUSED, "text": text, "delay": 10.0}
    return ErrorReported(**{**fields, "sequence": sequence, **changes})


def test_a_refusal_that_a_client_reports_resumes_the_attempt_with_a_growing_pause() -> None:
    """The kind: only the owner knows whether the credentials or the policy may change."""
    upload, pauses = opened(), []
    for sequence in (2, 4, 6):
        upload = after(upload, refused(sequence))
        assert (upload.state, upload.attempt) == (State.QUEUED, 1)
        pauses.append(upload.resume_at - 4.0)
        upload = after(upload, an_offer(sequence=sequence + 1))
    assert pauses == [10.0, 20.0, 40.0]


def test_a_stored_part_ends_the_count_of_refusals() -> None:
    upload = after(opened(), refused(2), an_offer(sequence=3))
    assert upload.setbacks == 1
    assert after(upload, refused(4, etags={1: '"e1"'})).setbacks == 1
    assert after(upload, an_offer(sequence=4, etags={1: '"e1"'})).setbacks == 0


def test_refusals_without_end_fail_the_upload_with_the_answer_of_the_object_store() -> None:
    upload = opened()
    for count in range(MAX_SETBACKS):
        upload = after(upload, refused(2 + 2 * count), an_offer(sequence=3 + 2 * count))
    assert (upload.state, upload.error) == (State.FAILED, ErrorCode.STORAGE_REFUSED)
    assert "403 AccessDenied" in (upload.message or "")


def test_a_client_ahead_of_the_database_gets_a_new_attempt() -> None:
    """The database was restored from a backup."""
    upload = after(opened(), an_offer(attempt=2, sequence=5))
    assert (upload.attempt, upload.state) == (3, State.QUEUED)
    assert after(opened(), an_offer(attempt=3, sequence=5)).state is State.FAILED


def test_an_observed_upload_follows_its_messages() -> None:
    """A terminal state is final."""
    upload = an_upload(owner="cli-7")
    upload = after(upload, Observed(now=1.0, state=State.IN_PROGRESS, file_size=9, etags={1: '"a"'}))
    upload = after(upload, Observed(now=2.0, state=State.COMPLETING), Observed(now=3.0, state=State.IN_PROGRESS))
    assert (upload.state, upload.file_size, upload.stored_parts) == (State.COMPLETING, 9, [1])
    upload = after(upload, Observed(now=4.0, state=State.COMPLETED), Observed(now=5.0, state=State.FAILED))
    assert (upload.state, upload.completed_at) == (State.COMPLETED, 4.0)


def test_a_repeated_error_does_not_cut_its_pause_short() -> None:
    """The command stays due after the backoff."""
    error = ErrorReported(now=4.0, attempt=1, sequence=2, code=ErrorCode.BUSY, delay=30)
    upload = after(opened(), error)
    assert apply(upload, replace(error, now=5.0)) == (upload, ())


def test_a_chunk_size_outside_the_limits_of_s3_is_a_bad_request() -> None:
    """A command typed by hand may carry one."""
    upload = after(dispatched(chunk_size=5), an_offer())
    assert (upload.state, upload.error) == (State.FAILED, "bad_request")


def test_each_event_has_one_handler() -> None:
    """`HANDLERS` covers the union of all events."""
    assert set(HANDLERS) == set(get_args(Event))
    assert set(REMOTE_EVENTS) | set(get_args(LocalEvent)) == set(HANDLERS)


def test_an_offer_without_the_recipients_that_were_asked_for_is_granted_nothing() -> None:
    """An older agent ignores the option, and would send the file as it is."""
    recipients = ("age1" + "q" * 58,)
    upload = structs.replace(an_upload(), options=UploadOptions(encrypt_to=recipients))
    upload, _ = apply(upload, Dispatched(now=1.0))
    refused, effects = apply(upload, an_offer())
    assert (refused.state, refused.error) == (State.FAILED, ErrorCode.UNSUPPORTED)
    assert Kind.CREATE_MULTIPART not in kinds(effects)
    taken, effects = apply(upload, replace(an_offer(), encrypt_to=recipients))
    assert (taken.state, kinds(effects)) == (State.IN_PROGRESS, [Kind.CREATE_MULTIPART])
