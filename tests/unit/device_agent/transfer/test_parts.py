"""One part of one upload: the life of its URL, the answer to its PUT, the file under it."""

import pytest

from device_agent.errors import PutFailure
from device_agent.transfer.advance import may_resume
from device_agent.transfer.events import PartStored, Repeated, Seen, Tick, WorkerFree
from device_agent.transfer.machine import wake_at
from device_agent.transfer.model import State
from device_agent.transfer.responses import wait_reason
from schemas.parts import MIB
from schemas.values import UploadOptions
from tests.unit.device_agent.device import CHUNK, Device, fingerprint, order, report, urls


def begin_a_part(device: Device) -> None:
    """Grant the requested parts, and let time pass until a part starts."""
    for _ in range(50):
        device.perform()
        if device.transfer.awaiting_grant:
            device.grant(device.wanted)
        if device.begin_parts(1):
            return
        device.now = max(device.now, wake_at(device.transfer) or 0)
        device.on(Tick(now=device.now))
    pytest.fail("no part was begun")


class TestUrls:
    def test_no_part_starts_on_a_url_with_too_little_life_left(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2], lifetime=60.0)
        device.now += 50
        device.on(WorkerFree(now=device.now))
        device.perform()
        assert (device.puts, device.wanted) == ([], [1, 2])

    def test_the_required_life_depends_on_the_measured_rate(self) -> None:
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

    def test_a_refusal_after_its_life_requests_the_missing_parts_only(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2], lifetime=60.0)
        device.begin_parts()
        device.store(1)
        device.now += 61
        device.fail(2, PutFailure.EXPIRED_OR_FORBIDDEN)
        device.perform()
        assert (device.wanted, report(device.last).attempt, device.transfer.retries) == ([2], 1, {})

    @pytest.mark.parametrize("kind", [PutFailure.EXPIRED_OR_FORBIDDEN, PutFailure.REFUSED])
    def test_a_refusal_is_reported_after_one_new_url_and_its_owner_may_resume(self, kind: PutFailure) -> None:
        """The kind: the side that knows least about the credentials must not decide that a refusal is final."""
        device = Device(size=3)
        device.start()
        for refusals in (1, 2):
            begin_a_part(device)
            device.fail(1, kind, jitter=0.0)
            device.perform()
            assert device.is_in(State.ENDED) == (refusals == 2)
        assert (device.last.error, device.last.message) == ("storage_refused", kind.value)
        assert device.transfer.ending is not None
        assert may_resume(device.transfer.ending)

    def test_pre_granted_urls_survive_a_refusal(self) -> None:
        device = Device(order=order(pregranted=True), pregranted=urls([1, 2]))
        device.start()
        device.begin_parts(1)
        device.fail(1, PutFailure.REFUSED)
        assert list(device.transfer.grants) == [2]

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

    def test_a_part_that_is_sent_again_for_an_expired_url_reports_that_reason(self) -> None:
        """The kind: work that is repeated in vain must not look like progress."""
        device = Device(size=3)
        device.start()
        reasons = []
        for _ in range(3):
            device.grant([1], lifetime=60.0)
            device.begin_parts()
            reasons.append(wait_reason(device.transfer, device.now))
            device.now += 61
            device.fail(1, PutFailure.EXPIRED_OR_FORBIDDEN)
            device.perform()
        assert reasons[:2] == [None, None]
        assert "expired 2 times" in (reasons[2] or "")
        device.grant([1], lifetime=60.0)
        device.begin_parts()
        device.store(1)
        assert device.last.status == "success"


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

    def test_waits_for_the_retry_after_of_the_object_store(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts(1)
        device.fail(1, PutFailure.TRY_AGAIN, retry_after=30.0, jitter=0.0)
        assert device.begin_parts() == []
        assert wake_at(device.transfer) == device.now + 30

    def test_a_part_ends_the_upload_after_eight_failures(self) -> None:
        device = Device(size=3)
        device.start()
        device.grant([1])
        for _ in range(8):
            device.begin_parts()
            device.fail(1, PutFailure.TRY_AGAIN, jitter=0.0)
        assert (device.last.status, device.last.error) == ("error", "storage_unavailable")

    def test_an_outage_of_hours_ends_neither_the_attempt_nor_a_part(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts(1)
        device.store(1)
        for _ in range(50):
            while not device.is_in(State.ENDED):
                begin_a_part(device)
                device.fail(2, PutFailure.TRY_AGAIN)
            assert device.last.error == "storage_unavailable"
            device.now += 30
            device.on(Repeated(now=device.now, acknowledges=device.transfer.sequence))
            device.start()
        begin_a_part(device)
        device.store(2)
        device.perform()
        assert (device.last.status, device.puts.count(1)) == ("success", 1)
        assert device.now > 2 * 3600

    def test_failures_without_a_stored_part_end_the_upload(self) -> None:
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

    def test_a_stopped_part_starts_again(self) -> None:
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
    def test_a_changed_source_ends_the_upload_without_the_part(self, seen: Seen, code: str) -> None:
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
