"""The device's side of one upload, word for word as the protocol has it."""

import pytest

from device_agent.errors import IllegalTransition, PutFailure
from device_agent.transfer import TRANSITIONS, State, apply, derive, wake_at
from device_agent.transfer_events import (
    Admitted,
    CancelAsked,
    CloseAsked,
    Digested,
    Granted,
    GrantRefused,
    OpenRefused,
    OpenSource,
    PartStored,
    Rechecked,
    Repeated,
    Say,
    Seen,
    Tick,
    WorkerFree,
)
from device_agent.transfer_state import replay, snapshot
from schemas.parts import MAX_FILE_SIZE, MIB
from schemas.values import DigestName, ErrorCode, ResponseStatus, UploadOptions
from tests.unit.device_agent.device import CHUNK, Device, durable, fingerprint, order, report, urls


class TestOffer:
    def test_says_what_the_owner_needs_to_begin(self) -> None:
        device = Device(size=7 * MIB, order=order(metadata={"k": 1}, options=UploadOptions(priority=3)))
        device.start()
        offer = report(device.last)
        assert device.last.status == ResponseStatus.IN_PROGRESS
        assert (device.last.message_id, device.last.sequence) == ("m1", 1)
        assert (offer.file_size, offer.fingerprint) == (7 * MIB, fingerprint(7 * MIB))
        assert (offer.chunk_size, offer.digest, offer.owner) == (CHUNK, DigestName.MD5, "control-plane")
        assert (offer.metadata, offer.options.priority, offer.etags) == ({"k": 1}, 3, {})
        wanted = [(part.part_number, part.size, part.digest) for part in offer.wanted_parts]
        assert wanted == [(1, CHUNK, "d1"), (2, 2 * MIB, "d2")]

    def test_opens_nothing_before_its_turn(self) -> None:
        device = Device()
        assert device.is_in(State.QUEUED)
        assert device.work == []
        device.on(Admitted(now=1.0))
        assert device.work == [OpenSource(device.order)]

    def test_asks_for_64_mib(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        assert device.wanted == list(range(1, 13))

    def test_asks_for_one_part_of_an_empty_file(self) -> None:
        device = Device(size=0)
        device.start()
        assert device.wanted == [1]

    def test_asks_for_one_part_however_large(self) -> None:
        device = Device(size=1000 * MIB, order=order(chunk_size=200 * MIB))
        device.start()
        assert device.wanted == [1]

    def test_without_digest_asks_at_once(self) -> None:
        device = Device(order=order(digest=DigestName.NONE))
        device.start()
        assert [part.digest for part in report(device.last).wanted_parts] == [None, None]

    def test_counts_on_from_what_the_owner_acknowledges_when_the_entry_was_gone(self) -> None:
        device = Device(acknowledges=41)
        device.start()
        assert device.last.sequence == 42

    def test_a_file_that_s3_does_not_take(self) -> None:
        device = Device(size=MAX_FILE_SIZE + 1)
        device.start()
        assert (device.last.status, device.last.error) == ("rejected", "file_too_large")

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            (ErrorCode.PATH_NOT_ALLOWED, "rejected"),
            (ErrorCode.NOT_A_FILE, "rejected"),
            (ErrorCode.FILE_NOT_FOUND, "error"),
            (ErrorCode.PERMISSION_DENIED, "error"),
        ],
    )
    def test_a_file_that_does_not_open(self, code: ErrorCode, status: str) -> None:
        device = Device()
        device.on(Admitted(now=1.0))
        device.on(OpenRefused(now=1.0, code=code, text="why"))
        assert (device.last.status, device.last.error, device.last.message) == (status, code, "why")
        assert device.is_in(State.ENDED)

    def test_a_file_that_shrinks_while_it_is_digested(self) -> None:
        device = Device()
        device.on(Admitted(now=1.0))
        device.perform_one()
        device.on(Digested(now=1.0, digests={1: "d1", 2: None}))
        assert device.last.error == "source_changed"


class TestWindow:
    def test_asks_again_when_half_is_sent(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant(range(1, 13))
        device.begin_parts(12)
        asked = len(device.said)
        for number in range(1, 6):
            device.store(number)
        device.perform()
        assert len(device.said) == asked + 1, "nothing was left to begin"

    def test_half_means_half_of_the_parts_last_granted(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant(range(1, 13))
        for number in device.begin_parts(4):
            device.store(number)
        assert len(device.said) == 1
        device.begin_parts(1)
        device.store(5)
        device.begin_parts(1)
        device.store(6)
        device.perform()
        assert device.wanted == list(range(13, 25))
        assert sorted(report(device.last).etags) == [1, 2, 3, 4, 5, 6]

    def test_at_most_one_question_is_unanswered(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant([1, 2])
        for number in device.begin_parts(2):
            device.store(number)
        device.perform()
        asked = len(device.said)
        device.on(Tick(now=device.now + 1))
        assert device.transfer.asking
        assert len(device.said) == asked

    def test_a_grant_of_nothing_is_asked_again_later(self) -> None:
        device = Device()
        device.start()
        device.grant([])
        assert device.is_in(State.WAITING)
        assert wake_at(device.transfer) == device.now + 5
        device.now += 5
        device.on(Tick(now=device.now))
        device.perform()
        assert device.last.sequence == 2

    def test_completed_parts_count_as_sent(self) -> None:
        device = Device(size=4 * CHUNK)
        device.start()
        device.on(Granted(now=1.0, acknowledges=1, completed=((1, 3),), parts=urls([4]), lifetime=900.0))
        assert device.begin_parts() == [4]
        device.store(4)
        assert device.last.status == "success"
        assert report(device.last).etags == {4: '"e4"'}

    def test_everything_completed_is_success(self) -> None:
        device = Device(size=4 * CHUNK)
        device.start()
        device.on(Granted(now=1.0, acknowledges=1, completed=((1, 4),)))
        assert (device.last.status, device.puts) == ("success", [])


class TestAcknowledgements:
    def test_an_acknowledged_etag_is_never_told_again(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        told: list[int] = []
        for _ in range(5):
            told += report(device.last).etags
            device.grant(device.wanted)
            while not device.transfer.asking:
                device.store(device.begin_parts(1)[0])
                device.perform()
        assert sorted(told) == sorted(set(told))

    def test_an_unacknowledged_one_is_told_again(self) -> None:
        device = Device(size=4 * CHUNK)
        device.start()
        device.grant([1, 2], acknowledges=0)
        for number in device.begin_parts(2):
            device.store(number)
        device.perform()
        assert sorted(report(device.last).etags) == [1, 2]
        device.grant([3], acknowledges=0)
        device.begin_parts()
        device.store(3)
        device.perform()
        assert sorted(report(device.last).etags) == [1, 2, 3]

    def test_a_repeat_tells_the_same_etags_under_the_same_sequence(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant(range(1, 13))
        for number in device.begin_parts(6):
            device.store(number)
        device.perform()
        first = device.last
        for number in device.begin_parts(2):
            device.store(number)
        device.on(Repeated(now=device.now))
        assert device.last == first

    def test_an_owner_that_never_acknowledges_is_given_up_before_a_message_grows_too_large(self) -> None:
        device = Device(size=3000 * CHUNK)
        device.start()
        while not device.is_in(State.ENDED):
            device.grant(device.wanted, acknowledges=0)
            while not device.is_in(State.ENDED) and not device.transfer.asking:
                for number in device.begin_parts():
                    device.store(number)
                device.perform()
        assert device.last.error == "bad_request"


class TestPreGranted:
    def test_starts_at_once_and_says_only_the_end(self) -> None:
        device = Device(order=order(pregranted=True), pregranted=urls([1, 2]))
        device.start()
        assert device.said == []
        for number in device.begin_parts():
            device.store(number)
        assert device.last.status == "success"
        assert (device.last.sequence, report(device.last).etags) == (1, {1: '"e1"', 2: '"e2"'})

    def test_ignores_surplus_parts(self) -> None:
        device = Device(size=3, order=order(pregranted=True), pregranted=urls([1, 2, 3]))
        device.start()
        assert device.begin_parts() == [1]
        device.store(1)
        assert report(device.last).etags == {1: '"e1"'}

    def test_asks_only_for_what_the_file_needs_more(self) -> None:
        device = Device(size=6 * CHUNK, order=order(pregranted=True), pregranted=urls([1, 2]))
        device.start()
        device.begin_parts()
        device.perform()
        assert device.wanted == [3, 4, 5, 6]

    def test_the_chunk_size_is_used_as_it_is(self) -> None:
        device = Device(size=10_001 * CHUNK, order=order(pregranted=True), pregranted=urls([1]))
        device.start()
        assert device.last.error == "bad_request"

    def test_a_url_of_unknown_life_is_used_until_it_is_refused(self) -> None:
        device = Device(size=3, order=order(pregranted=True), pregranted=urls([1]))
        device.start()
        device.now += 1e6
        assert device.begin_parts() == [1]
        device.fail(1, PutFailure.EXPIRED_OR_FORBIDDEN)
        device.perform()
        assert device.wanted == [1]

    def test_its_urls_survive_a_restart(self) -> None:
        device = Device(order=order(pregranted=True), pregranted=urls([1, 2]), lifetime=60.0)
        device.start()
        device.begin_parts()
        device.store(2)
        device.restart()
        device.start()
        assert device.begin_parts() == [1]


class TestUrls:
    def test_no_part_is_begun_on_a_url_with_too_little_life_left(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2], lifetime=60.0)
        device.now += 50
        device.on(WorkerFree(now=device.now))
        device.perform()
        assert (device.puts, device.wanted) == ([], [1, 2])

    def test_how_much_life_follows_from_the_rate_that_was_seen(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2], lifetime=300.0)
        device.now += 200
        device.on(WorkerFree(now=device.now, rate=CHUNK / 100))
        device.perform()
        assert (device.puts, device.wanted) == ([], [1, 2])

    def test_a_fresh_url_is_used_even_if_the_part_will_outlast_it(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2], lifetime=60.0)
        device.on(WorkerFree(now=device.now, rate=1.0))
        assert device.puts == [1]

    def test_urls_that_run_out_wake_the_machine_once(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2], lifetime=900.0)
        device.now = wake_at(device.transfer) or 0
        device.on(Tick(now=device.now))
        device.perform()
        assert device.wanted == [1, 2]
        assert (wake_at(device.transfer) or 0) > device.now

    def test_a_refusal_past_its_life_asks_for_the_missing_parts_only(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2], lifetime=60.0)
        device.begin_parts()
        device.store(1)
        device.now += 61
        device.fail(2, PutFailure.EXPIRED_OR_FORBIDDEN)
        device.perform()
        assert (device.wanted, report(device.last).attempt, device.transfer.trouble) == ([2], 1, {})

    def test_a_refusal_before_that_counts_to_three(self) -> None:
        device = Device(size=3)
        device.start()
        for _ in range(3):
            device.grant([1])
            device.now += 100
            assert device.begin_parts() == [1]
            device.fail(1, PutFailure.EXPIRED_OR_FORBIDDEN)
            device.perform()
        assert device.last.error == "storage_refused"

    def test_urls_that_always_run_out_end_the_upload(self) -> None:
        device = Device(size=3)
        device.start()
        while not device.is_in(State.ENDED):
            device.grant([1], lifetime=60.0)
            device.begin_parts()
            device.now += 61
            device.fail(1, PutFailure.EXPIRED_OR_FORBIDDEN)
            device.perform()
        assert device.last.error == "url_expired"


class TestPuts:
    def test_backs_off_with_full_jitter(self) -> None:
        device = Device(size=3)
        device.start()
        device.grant([1])
        device.begin_parts()
        device.fail(1, PutFailure.TRY_AGAIN, jitter=0.5)
        assert device.is_in(State.WAITING)
        assert wake_at(device.transfer) == device.now + 1
        device.now += 1
        device.on(Tick(now=device.now))
        assert device.begin_parts() == [1]

    def test_waits_as_long_as_the_store_asks(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts(1)
        device.fail(1, PutFailure.TRY_AGAIN, retry_after=30.0, jitter=0.0)
        assert device.begin_parts() == []
        assert wake_at(device.transfer) == device.now + 30

    def test_gives_up_a_part_after_eight_tries(self) -> None:
        device = Device(size=3)
        device.start()
        device.grant([1])
        for _ in range(8):
            device.begin_parts()
            device.fail(1, PutFailure.TRY_AGAIN, jitter=0.0)
        assert (device.last.status, device.last.error) == ("error", "storage_unavailable")

    def test_gives_up_an_upload_that_stores_nothing(self) -> None:
        device = Device(size=12 * CHUNK)
        device.start()
        device.grant(range(1, 13))
        failures = 0
        while not device.is_in(State.ENDED):
            for number in device.begin_parts(12):
                if not device.is_in(State.ENDED):
                    device.fail(number, PutFailure.TRY_AGAIN, jitter=0.0)
                    failures += 1
        assert failures == 24

    def test_a_412_counts_as_sent_with_an_empty_etag(self) -> None:
        device = Device(size=3)
        device.start()
        device.grant([1])
        device.begin_parts()
        device.on(PartStored(now=1.0, number=1, etag="", seen=device.seen()))
        assert report(device.last).etags == {1: ""}

    def test_a_bad_digest_three_times_over_an_unchanged_file(self) -> None:
        device = Device(size=3)
        device.start()
        device.grant([1])
        for _ in range(3):
            device.begin_parts()
            device.fail(1, PutFailure.BAD_DIGEST, jitter=0.0)
        assert device.last.error == "digest_mismatch"

    def test_a_bad_digest_over_a_changed_file(self) -> None:
        device = Device(size=3)
        device.start()
        device.grant([1])
        device.begin_parts()
        device.version = 2
        device.fail(1, PutFailure.BAD_DIGEST)
        assert device.last.error == "source_changed"

    @pytest.mark.parametrize(
        ("kind", "status", "code"),
        [
            (PutFailure.GONE, "error", "upload_gone"),
            (PutFailure.HOST_NOT_ALLOWED, "rejected", "host_not_allowed"),
            (PutFailure.BAD_HEADER, "error", "bad_request"),
            (PutFailure.SOURCE_CHANGED, "error", "source_changed"),
        ],
    )
    def test_ends_at_once(self, kind: PutFailure, status: str, code: str) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts()
        device.fail(1, kind)
        assert (device.last.status, device.last.error, device.stopped) == (status, code, 1)

    def test_a_part_that_we_stopped_is_begun_again(self) -> None:
        device = Device(size=3)
        device.start()
        device.grant([1])
        device.begin_parts()
        device.fail(1, PutFailure.STOPPED)
        assert device.begin_parts() == [1]


class TestSource:
    @pytest.mark.parametrize(
        ("seen", "code"),
        [
            (Seen(fingerprint=fingerprint(10 * MIB, 2)), "source_changed"),
            (Seen(fingerprint=fingerprint(11 * MIB)), "source_changed"),
            (Seen(fingerprint=fingerprint(10 * MIB, 2), linked=False), "source_changed"),
            (Seen(fingerprint=fingerprint(10 * MIB, 2), linked=False, gone=True), "source_gone"),
        ],
    )
    def test_a_change_is_told_and_the_part_is_not(self, seen: Seen, code: str) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts()
        device.on(PartStored(now=1.0, number=1, etag='"e"', seen=seen))
        assert (device.last.error, report(device.last).etags) == (code, {})

    @pytest.mark.parametrize(
        ("seen", "state"),
        [
            (Seen(fingerprint=fingerprint(99 * MIB, 2)), State.SENDING),
            (Seen(fingerprint=fingerprint(10 * MIB, 2), linked=False, gone=True), State.SENDING),
            (Seen(fingerprint=fingerprint(9 * MIB, 2)), State.ENDED),
        ],
    )
    def test_under_prefix_only_lost_bytes_matter(self, seen: Seen, state: State) -> None:
        device = Device(order=order(options=UploadOptions(on_change="prefix")))
        device.start()
        device.grant([1, 2])
        device.begin_parts()
        device.on(PartStored(now=1.0, number=1, etag='"e"', seen=seen))
        assert device.is_in(state)


class TestOwner:
    def test_a_grant_beyond_the_file_contradicts_the_plan(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2, 3])
        assert (device.last.error, device.puts) == ("bad_request", [])

    def test_so_do_completed_parts_beyond_it(self) -> None:
        device = Device()
        device.start()
        device.on(Granted(now=1.0, acknowledges=1, completed=((1, 3),)))
        assert device.last.error == "bad_request"

    def test_so_does_another_chunk_size(self) -> None:
        device = Device()
        device.start()
        device.on(Granted(now=1.0, acknowledges=1, parts=urls([1]), chunk_size=6 * MIB))
        assert device.last.error == "bad_request"

    def test_a_repeated_grant_changes_nothing(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant(range(1, 13))
        device.begin_parts()
        before = device.transfer
        device.grant(range(1, 13), acknowledges=1)
        assert device.transfer == before

    def test_a_foreign_host_is_refused_before_anything_is_sent(self) -> None:
        device = Device()
        device.start()
        device.on(GrantRefused(now=1.0, code=ErrorCode.HOST_NOT_ALLOWED, text="no"))
        assert (device.last.status, device.puts) == ("rejected", [])

    def test_a_repeated_command_is_answered_with_the_latest_response(self) -> None:
        device = Device()
        device.start()
        device.on(Repeated(now=device.now))
        assert device.said[0] == device.said[1]

    def test_cancel_stops_and_says_so_once(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts()
        device.on(CancelAsked(now=1.0))
        assert (device.last.status, device.last.sequence, device.stopped) == ("cancelled", 2, 1)
        device.on(CancelAsked(now=2.0))
        assert device.said[-1] == device.said[-2]

    def test_cancel_after_another_end_says_that_end_again(self) -> None:
        device = Device(size=3)
        device.start()
        device.send_all()
        device.on(CancelAsked(now=1.0))
        assert device.last.status == "success"

    @pytest.mark.parametrize("moment", ["queued", "asking", "sending", "ended"])
    def test_close_leaves_a_tombstone_and_says_nothing(self, moment: str) -> None:
        device = Device(size=3)
        if moment != "queued":
            device.start()
        if moment in {"sending", "ended"}:
            device.grant([1])
            device.begin_parts()
        if moment == "ended":
            device.store(1)
        said = len(device.said)
        device.on(CloseAsked(now=1.0, outcome="completed"))
        assert (device.tombstone, device.transfer.state, len(device.said)) == ("completed", State.CLOSED, said)

    def test_a_closed_upload_counts_what_comes_late(self) -> None:
        device = Device()
        device.on(CloseAsked(now=1.0, outcome="failed"))
        device.on(Repeated(now=2.0))
        assert device.counted == ["late_events"]

    def test_a_silent_owner_is_given_up_once(self) -> None:
        device = Device(order=order(options=UploadOptions(give_up_after=1000)))
        device.start()
        device.on(Tick(now=device.now + 999))
        assert device.last.status == "in_progress"
        device.on(Tick(now=device.now + 1000))
        assert device.last.error == "owner_silent"
        device.on(Tick(now=device.now + 2000))
        assert (device.tombstone, device.transfer.state) == ("failed", State.CLOSED)

    def test_any_word_of_the_owner_renews_our_patience(self) -> None:
        device = Device(order=order(options=UploadOptions(give_up_after=1000)))
        device.start()
        device.on(Repeated(now=device.now + 900))
        device.on(Tick(now=device.now + 1500))
        assert device.last.status == "in_progress"

    def test_what_nobody_answers_is_said_again_ever_more_rarely(self) -> None:
        device = Device(size=3)
        device.start()
        device.send_all()
        pauses = []
        for _ in range(12):
            at = wake_at(device.transfer) or 0
            pauses.append(at - device.now)
            device.now = at
            device.on(Tick(now=at))
        assert pauses == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]
        assert all(said == device.last for said in device.said[-12:])


class TestResume:
    def test_an_error_that_may_pass_resumes_when_it_is_acknowledged(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts()
        device.store(1)
        for _ in range(8):
            device.fail(2, PutFailure.TRY_AGAIN, jitter=0.0)
            device.begin_parts()
        assert (device.last.error, device.last.sequence) == ("storage_unavailable", 2)
        device.on(Repeated(now=device.now, acknowledges=1))
        assert device.is_in(State.ENDED)
        device.on(Repeated(now=device.now, acknowledges=2))
        assert device.is_in(State.QUEUED)
        device.start()
        device.send_all()
        assert (device.last.status, report(device.last).etags) == ("success", {2: '"e2"'})
        assert device.puts.count(1) == 1

    def test_a_final_error_does_not(self) -> None:
        device = Device()
        device.start()
        device.on(GrantRefused(now=1.0, code=ErrorCode.BAD_REQUEST, text="no"))
        device.on(Repeated(now=1.0, acknowledges=2))
        assert device.is_in(State.ENDED)

    def test_after_a_crash_only_missing_parts_are_sent(self) -> None:
        device = Device(size=20 * CHUNK)
        device.start()
        device.grant(device.wanted)
        for number in device.begin_parts()[1:]:
            device.store(number)
        device.restart()
        device.start()
        assert device.last.sequence == 2
        assert device.wanted[0] == 1
        assert not {2, 3, 4} & set(device.wanted)
        device.send_all()
        assert device.last.status == "success"
        assert {number for number in device.puts if device.puts.count(number) > 1} == {1}

    def test_completion_waits_until_kept_parts_were_compared(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        for number in device.begin_parts():
            device.store(number) if number == 1 else None
        device.restart()
        device.on(Admitted(now=device.now))
        device.perform_one()
        rechecks = device.work.pop(0)
        device.perform()
        device.grant([2])
        device.begin_parts()
        device.store(2)
        assert device.is_in(State.CHECKING)
        device.work.append(rechecks)
        device.perform()
        assert device.last.status == "success"

    def test_kept_parts_that_differ_are_a_changed_source(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts()
        device.store(1)
        device.restart()
        device.on(Admitted(now=device.now))
        device.perform_one()
        device.on(Rechecked(now=device.now, digests={1: "other"}))
        assert device.last.error == "source_changed"

    @pytest.mark.parametrize(
        ("on_change", "size", "version", "error"),
        [
            ("fail", 10 * MIB, 1, None),
            ("fail", 10 * MIB, 2, "source_changed"),
            ("fail", 11 * MIB, 1, "source_changed"),
            ("prefix", 11 * MIB, 2, None),
            ("prefix", 9 * MIB, 2, "source_changed"),
        ],
    )
    def test_what_must_be_equal_on_resume(self, on_change: str, size: int, version: int, error: str | None) -> None:
        device = Device(order=order(options=UploadOptions(on_change=on_change)))  # type: ignore[arg-type]
        device.start()
        device.restart()
        device.size, device.version = size, version
        device.start()
        assert device.last.error == error

    def test_a_source_that_is_gone_after_a_crash(self) -> None:
        device = Device()
        device.start()
        device.restart()
        device.on(Admitted(now=1.0))
        device.on(OpenRefused(now=1.0, code=ErrorCode.FILE_NOT_FOUND, text="gone"))
        assert device.last.error == "source_gone"

    def test_an_end_that_was_journalled_is_said_again(self) -> None:
        device = Device(size=3)
        device.start()
        device.send_all()
        end = device.last
        device.restart()
        assert derive(device.transfer) == (Say(end),)

    def test_a_snapshot_restores_what_is_durable(self) -> None:
        device = Device(size=30 * CHUNK)
        device.start()
        device.grant(device.wanted)
        for number in device.begin_parts(7):
            device.store(number)
        device.perform()
        device.grant(device.wanted[:3])
        for number in device.begin_parts(2):
            device.store(number)
        transfer = None
        for record in snapshot(device.transfer):
            transfer = replay(transfer, record)
        assert transfer == durable(device.transfer)


class TestTable:
    def test_an_impossible_local_event_is_our_bug(self) -> None:
        device = Device()
        with pytest.raises(IllegalTransition, match="WorkerFree in state queued"):
            apply(device.transfer, WorkerFree(now=1.0))

    def test_closed_is_the_one_terminal_state(self) -> None:
        assert [state for state, row in TRANSITIONS.items() if not row] == [State.CLOSED]
        assert set(TRANSITIONS) == set(State)
