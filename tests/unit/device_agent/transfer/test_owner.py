"""One upload and its owner: commands, silence, and the state after a crash."""

import pytest

from device_agent.errors import PutFailure
from device_agent.transfer.events import (
    Admitted,
    CancelRequested,
    CloseReceived,
    Faulted,
    Granted,
    GrantRefused,
    OpenRefused,
    PublishResponse,
    Rechecked,
    Repeated,
    Tick,
)
from device_agent.transfer.machine import derive, wake_at
from device_agent.transfer.model import State
from device_agent.transfer.replay import replay, snapshot
from schemas.parts import MIB
from schemas.values import ErrorCode, UploadOptions
from tests.unit.device_agent.device import CHUNK, Device, durable, order, report, urls


class TestOwner:
    def test_a_grant_beyond_the_file_contradicts_the_plan(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2, 3])
        assert (device.last.error, device.puts) == ("bad_request", [])

    def test_completed_parts_beyond_the_file_contradict_the_plan(self) -> None:
        device = Device()
        device.start()
        device.on(Granted(now=1.0, acknowledges=1, completed=((1, 3),)))
        assert device.last.error == "bad_request"

    def test_another_chunk_size_contradicts_the_plan(self) -> None:
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
        assert device.responses[0] == device.responses[1]

    def test_cancel_stops_and_is_answered_once(self) -> None:
        device = Device()
        device.start()
        device.grant([1, 2])
        device.begin_parts()
        device.on(CancelRequested(now=1.0))
        assert (device.last.status, device.last.sequence, device.stopped) == ("cancelled", 2, 1)
        device.on(CancelRequested(now=2.0))
        assert device.responses[-1] == device.responses[-2]

    def test_cancel_after_another_end_repeats_that_end(self) -> None:
        device = Device(size=3)
        device.start()
        device.send_all()
        device.on(CancelRequested(now=1.0))
        assert device.last.status == "success"

    @pytest.mark.parametrize("moment", ["queued", "asking", "sending", "ended"])
    def test_close_writes_a_tombstone_and_publishes_nothing(self, moment: str) -> None:
        device = Device(size=3)
        if moment != "queued":
            device.start()
        if moment in {"sending", "ended"}:
            device.grant([1])
            device.begin_parts()
        if moment == "ended":
            device.store(1)
        responses = len(device.responses)
        device.on(CloseReceived(now=1.0, outcome="completed"))
        assert (device.tombstone, device.transfer.state, len(device.responses)) == (
            "completed",
            State.CLOSED,
            responses,
        )

    def test_a_closed_upload_counts_late_events(self) -> None:
        device = Device()
        device.on(CloseReceived(now=1.0, outcome="failed"))
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

    def test_an_owner_cannot_hold_an_ended_upload_for_longer_than_a_deadline(self) -> None:
        """`give_up_after` is the owner's, the state folder is the device's."""
        device = Device(order=order(options=UploadOptions(give_up_after=31_536_000)))
        device.start()
        device.on(Tick(now=device.now + 30 * 86_400 - 1))
        assert device.last.status == "in_progress"
        device.on(Tick(now=device.now + 30 * 86_400))
        assert device.last.error == "owner_silent"

    def test_any_message_of_the_owner_restarts_the_give_up_timer(self) -> None:
        device = Device(order=order(options=UploadOptions(give_up_after=1000)))
        device.start()
        device.on(Repeated(now=device.now + 900))
        device.on(Tick(now=device.now + 1500))
        assert device.last.status == "in_progress"

    def test_an_unanswered_response_is_repeated_after_growing_pauses(self) -> None:
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
        assert all(responses == device.last for responses in device.responses[-12:])


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

    def test_a_resumed_upload_requests_at_once(self) -> None:
        """Even after long pauses because of empty grants."""
        device = Device()
        device.start()
        for _ in range(8):
            device.grant([])
            device.now = wake_at(device.transfer) or 0
            device.on(Tick(now=device.now))
            device.perform()
        device.grant([])
        device.on(Faulted(now=device.now, code=ErrorCode.INTERNAL, text="a disk failed"))
        device.on(Repeated(now=device.now, acknowledges=device.transfer.sequence))
        device.start()
        assert device.transfer.awaiting_grant
        device.grant([])
        assert (wake_at(device.transfer) or 0) == device.now + 5

    def test_a_final_error_does_not_resume(self) -> None:
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
    def test_size_and_times_must_be_equal_on_resume(
        self, on_change: str, size: int, version: int, error: str | None
    ) -> None:
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

    def test_a_journalled_end_is_published_again(self) -> None:
        device = Device(size=3)
        device.start()
        device.send_all()
        end = device.last
        device.restart()
        assert derive(device.transfer) == (PublishResponse(end),)

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
