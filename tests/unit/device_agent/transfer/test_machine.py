"""The device's side of one upload, as in the protocol."""

import pytest

from device_agent.errors import IllegalTransition, PutFailure
from device_agent.transfer.events import (
    Admitted,
    Digested,
    DigestParts,
    Faulted,
    Granted,
    OpenRefused,
    OpenSource,
    Repeated,
    Tick,
    WorkerFree,
)
from device_agent.transfer.machine import ALLOWED, apply, derive, wake_at
from device_agent.transfer.model import State
from schemas.parts import MAX_FILE_SIZE, MIB
from schemas.values import DigestName, ErrorCode, ResponseStatus, UploadOptions
from tests.unit.device_agent.device import CHUNK, Device, fingerprint, order, report, urls


class TestOffer:
    def test_the_first_response_has_what_the_owner_needs(self) -> None:
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

    def test_requests_64_mib(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        assert device.wanted == list(range(1, 13))

    def test_requests_one_part_of_an_empty_file(self) -> None:
        device = Device(size=0)
        device.start()
        assert device.wanted == [1]

    def test_requests_at_least_one_part(self) -> None:
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
    def test_requests_again_when_half_is_sent(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant(range(1, 13))
        before = len(device.responses)
        device.begin_parts(12)
        for number in range(1, 6):
            device.store(number)
        device.perform()
        assert len(device.responses) == before + 1, "nothing was left to begin"

    def test_the_next_parts_are_digested_while_the_granted_ones_are_sent(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.on(Granted(now=device.now, acknowledges=1, parts=urls(range(1, 13)), lifetime=900.0))
        (ahead,) = device.work
        assert isinstance(ahead, DigestParts)
        assert [part.number for part in ahead.parts] == list(range(13, 25))
        device.perform()
        for number in device.begin_parts(4):
            device.store(number)
        assert (len(device.responses), device.work) == (1, []), "URLs that are not needed yet only grow old"
        for number in device.begin_parts(2):
            device.store(number)
        assert device.wanted == list(range(13, 25))
        assert device.work == [], "every part was digested already, and nothing more before the answer"

    def test_a_request_waits_for_running_digests(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.on(Granted(now=device.now, acknowledges=1, parts=urls(range(1, 13)), lifetime=900.0))
        for number in device.begin_parts(6):
            device.store(number)
        assert len(device.responses) == 1
        assert derive(device.transfer) == tuple(device.work), "lost in a crash of a worker, they are asked for again"
        device.perform()
        assert device.wanted == list(range(13, 25))
        assert len(device.responses) == 2

    def test_digests_taken_ahead_do_not_outlive_the_opening_of_the_file(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant(range(1, 13))
        assert sorted(device.transfer.ahead) == list(range(13, 25))
        device.on(Faulted(now=device.now, code=ErrorCode.STORAGE_UNAVAILABLE, text="why"))
        assert (device.transfer.ahead, device.transfer.digesting) == ({}, ())

    def test_half_means_half_of_the_parts_last_granted(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant(range(1, 13))
        for number in device.begin_parts(4):
            device.store(number)
        assert len(device.responses) == 1
        device.begin_parts(1)
        device.store(5)
        device.begin_parts(1)
        device.store(6)
        device.perform()
        assert device.wanted == list(range(13, 25))
        assert sorted(report(device.last).etags) == [1, 2, 3, 4, 5, 6]

    def test_at_most_one_request_is_open(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant([1, 2])
        for number in device.begin_parts(2):
            device.store(number)
        device.perform()
        before = len(device.responses)
        device.on(Tick(now=device.now + 1))
        assert device.transfer.awaiting_grant
        assert len(device.responses) == before

    def test_after_an_empty_grant_the_next_request_waits(self) -> None:
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
    def test_an_acknowledged_etag_is_never_reported_again(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        reported: list[int] = []
        for _ in range(5):
            reported += report(device.last).etags
            device.grant(device.wanted)
            while not device.transfer.awaiting_grant:
                device.store(device.begin_parts(1)[0])
                device.perform()
        assert sorted(reported) == sorted(set(reported))

    def test_an_unacknowledged_etag_is_reported_again(self) -> None:
        device = Device(size=1000 * MIB)
        device.start()
        device.grant(range(1, 13), acknowledges=0)
        for number in device.begin_parts(6):
            device.store(number)
        assert sorted(report(device.last).etags) == [1, 2, 3, 4, 5, 6]
        device.grant(range(13, 25), acknowledges=0)
        while not device.transfer.awaiting_grant:
            device.store(device.begin_parts(1)[0])
        assert sorted(report(device.last).etags) == list(range(1, 19))

    def test_a_repeated_response_has_the_same_etags_and_sequence(self) -> None:
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

    def test_the_upload_ends_before_unacknowledged_etags_fill_a_message(self) -> None:
        device = Device(size=3000 * CHUNK)
        device.start()
        while not device.is_in(State.ENDED):
            device.grant(device.wanted, acknowledges=0)
            while not device.is_in(State.ENDED) and not device.transfer.awaiting_grant:
                for number in device.begin_parts():
                    device.store(number)
                device.perform()
        assert device.last.error == "bad_request"


class TestPreGranted:
    def test_starts_at_once_and_publishes_only_the_end(self) -> None:
        device = Device(order=order(pregranted=True), pregranted=urls([1, 2]))
        device.start()
        assert device.responses == []
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

    def test_requests_only_the_parts_that_were_not_granted(self) -> None:
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


class TestTable:
    def test_an_impossible_local_event_raises(self) -> None:
        device = Device()
        with pytest.raises(IllegalTransition, match="WorkerFree in state queued"):
            apply(device.transfer, WorkerFree(now=1.0))

    def test_closed_is_the_one_terminal_state(self) -> None:
        assert [state for state, row in ALLOWED.items() if not row] == [State.CLOSED]
        assert set(ALLOWED) == set(State)
