"""Between uploads: whose turn it is, what waits, what a full disk costs; and what each command is answered."""

import errno
import os

import pytest

from device_agent.errors import JournalError, PutFailure
from device_agent.mqtt.publisher import MAX_WAITING, Outbound, SendQueue
from device_agent.mqtt.status import StatusReporter
from device_agent.state import journal as journal_module
from device_agent.state.journal import Journal
from device_agent.storage.host_backoff import ENOUGH, HostBackoff
from device_agent.transfer.events import PartFailed, PartStored, PutPart, Seen
from device_agent.transfer.model import State
from device_agent.transfer.responses import hello_pages, wait_reason
from device_agent.uploads import MAX_ACTIVE, MAX_ADMITTED
from schemas.codec import GRANT_FILL_SIZE, decode_response, encode
from schemas.messages import Hello, UploadReport
from schemas.topics import Channel
from schemas.values import SystemInfo
from tests.unit.device_agent.desk import Desk, desk
from tests.unit.device_agent.device import order

__all__ = ["desk"]


def turned_away(*, now: float = 1.0, retry_after: float | None = None) -> PartFailed:
    return PartFailed(
        now=now,
        number=1,
        kind=PutFailure.TRY_AGAIN,
        text="the store answered 503",
        seen=Seen(),
        retry_after=retry_after,
    )


class TestTurns:
    def test_only_so_many_are_opened_at_once(self, desk: Desk) -> None:
        for number in range(6):
            desk.download(f"u{number}")
        desk.uploads.schedule(1.0)
        states = [run.transfer.state for run in desk.uploads]
        assert states.count(State.OPENING) == MAX_ADMITTED

    def test_high_priority_goes_first(self, desk: Desk) -> None:
        for number in range(6):
            desk.download(f"u{number}", options={"priority": number})
        desk.uploads.schedule(1.0)
        opened = {run.upload_id for run in desk.uploads if run.transfer.state is State.OPENING}
        assert opened == {"u2", "u3", "u4", "u5"}

    def test_an_owner_that_does_not_answer_keeps_nobody_waiting(self, desk: Desk) -> None:
        for number in range(MAX_ADMITTED + 1):
            desk.download(f"u{number}")
        desk.uploads.schedule(1.0)
        desk.flush()
        last = desk.uploads.get(f"u{MAX_ADMITTED}")
        assert last is not None
        desk.uploads.schedule(5.0)
        assert last.transfer.state is State.QUEUED
        desk.uploads.schedule(7.0)
        assert last.transfer.state is not State.QUEUED

    def test_senders_are_shared_and_never_too_many(self, desk: Desk) -> None:
        for name in ("u1", "u2"):
            desk.download(name)
        desk.uploads.schedule(1.0)
        desk.flush()
        for name in ("u1", "u2"):
            urls = [{"part_number": n, "url": "https://s/1"} for n in (1, 2)]
            desk.command("grant_parts", upload_id=name, attempt=1, presigned_urls=urls, acknowledges=1)
        desk.uploads._workers = 3
        desk.uploads.schedule(1.0)
        puts = [run.upload_id for run, effect in desk.uploads.effects if isinstance(effect, PutPart)]
        assert sorted(puts) == ["u1", "u1", "u2"]

    def test_a_store_that_asks_for_a_pause_gets_it_from_every_upload(self, desk: Desk) -> None:
        hosts = {"u1": "busy", "u2": "busy", "u3": "free"}
        for name in hosts:
            desk.download(name)
        desk.uploads.schedule(1.0)
        desk.flush()
        for name, host in hosts.items():
            urls = [{"part_number": n, "url": f"https://{host}/{n}?X-Amz-Signature=s"} for n in (1, 2)]
            desk.command("grant_parts", upload_id=name, attempt=1, presigned_urls=urls, acknowledges=1)
        desk.uploads.host_backoff.record_result("https://busy/9?X-Amz-Signature=t", turned_away(retry_after=30.0))
        assert desk.begun(2.0) == ["u3", "u3"]
        waiting = [wait_reason(run.transfer, 2.0) for run in desk.uploads if run.upload_id != "u3"]
        assert waiting == ["the object store is paused, 29 s are left"] * 2
        assert desk.uploads.next_wake() == 31.0
        assert desk.begun(31.0) == ["u1", "u2"]

    def test_a_store_that_only_fails_is_left_alone_for_longer_and_longer(self) -> None:
        host_backoff, url = HostBackoff(), "https://s/1"
        ends = []
        for _ in range(ENOUGH + 20):
            host_backoff.record_result(url, turned_away())
            ends.append(host_backoff.until(url))
        assert ends[: ENOUGH + 2] == [1.0] * (ENOUGH - 1) + [1.5, 2.0, 3.0]
        assert ends[-1] == 31.0
        host_backoff.record_result(url, PartStored(now=1.0, number=1, etag="e", seen=Seen()))
        host_backoff.record_result(url, turned_away(now=100.0))
        assert host_backoff.until(url) == 100.0

    def test_too_many_are_refused_as_busy(self, desk: Desk) -> None:
        for number in range(MAX_ACTIVE + 1):
            desk.download(f"u{number}")
        assert (desk.said[-1].error, desk.said[-1].sequence) == ("busy", None)
        assert desk.uploads.get(f"u{MAX_ACTIVE}") is None

    def test_a_copy_is_made_of_durable_commands_only(self, desk: Desk) -> None:
        desk.download("plain")
        desk.download("packed", options={"compression": "gzip"})
        desk.uploads.schedule(1.0)
        assert [run.upload_id for run, _ in desk.take_early()] == ["plain"]
        assert [run.upload_id for run, _ in desk.uploads.take_effects()] == ["packed"]

    def test_a_new_attempt_replaces_the_old_one(self, desk: Desk) -> None:
        old = desk.download("u1")
        new = desk.download("u1", attempt=2)
        assert old is not None
        assert new is not None
        assert old.session.stopped.is_set()
        assert new.transfer.order.attempt == 2
        desk.download("u1", attempt=1)
        assert desk.uploads.counters["older_attempts"] == 1


class TestCommands:
    def test_a_foreign_host_ends_the_upload(self, desk: Desk) -> None:
        desk.download("u1")
        desk.uploads.schedule(1.0)
        desk.flush()
        desk.foreign = True
        desk.command("grant_parts", upload_id="u1", presigned_urls=[{"part_number": 1, "url": "https://evil/1"}])
        said = desk.flush()[-1]
        assert (said.status, said.error) == ("rejected", "host_not_allowed")

    @pytest.mark.parametrize(
        ("outcome", "status"),
        [
            ("completed", "success"),
            ("cancelled", "cancelled"),
            ("rejected", "rejected"),
            ("failed", "error"),
            ("expired", "error"),
            ("unknown", "error"),
        ],
    )
    @pytest.mark.parametrize("action", ["download_file", "grant_parts", "cancel_upload"])
    def test_a_tombstone_answers_with_its_outcome(self, desk: Desk, outcome: str, status: str, action: str) -> None:
        desk.download("u1")
        desk.command("close_upload", upload_id="u1", attempt=1, outcome=outcome)
        assert desk.flush() == []
        desk.command(action, upload_id="u1", attempt=7, file_path="/d/a") if action == "download_file" else (
            desk.command(action, upload_id="u1", attempt=7)
        )
        answer = desk.said[-1]
        assert isinstance(answer.payload, UploadReport)
        assert (answer.status, answer.sequence, answer.payload.etags) == (status, None, {})
        assert (answer.payload.upload_id, answer.payload.attempt) == ("u1", 7)

    def test_close_is_never_answered(self, desk: Desk) -> None:
        for _ in range(2):
            desk.command("close_upload", upload_id="never-heard-of", outcome="failed")
        assert (desk.said, desk.flush()) == ([], [])
        assert "never-heard-of" in desk.journal.memory.tombstones

    def test_a_close_of_an_older_attempt_is_dropped(self, desk: Desk) -> None:
        desk.download("u1", attempt=2)
        desk.command("close_upload", upload_id="u1", attempt=1, outcome="failed")
        assert desk.uploads.get("u1") is not None

    def test_a_command_for_another_installation_is_stale(self, desk: Desk) -> None:
        desk.commands.receive(
            b'{"message_id":"m","action":"download_file","install_id":"them","payload":{"file_path":"/d/a"}}', 1.0
        )
        assert desk.said[-1].error == "stale_epoch"

    @pytest.mark.parametrize("action", ["grant_parts", "cancel_upload"])
    def test_a_command_about_nothing_is_a_bad_request(self, desk: Desk, action: str) -> None:
        desk.command(action)
        assert desk.said[-1].error == "bad_request"

    def test_questions_about_the_device_are_passed_on(self, desk: Desk) -> None:
        desk.command("health_check")
        desk.command("list_files", pattern="/d/*")
        assert [command.action for command in desk.asked] == ["health_check", "list_files"]


class TestFullDisk:
    def test_what_is_new_is_refused_and_what_is_known_is_kept(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = desk.download("u1")
        desk.uploads.schedule(1.0)
        desk.flush()

        def full(_descriptor: int, _data: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(journal_module, "write_all", full)
        fresh = desk.download("u2")
        assert fresh is not None
        with pytest.raises(JournalError):
            desk.journal.commit()
        assert desk.uploads.discard_pending() == [fresh]
        desk.commands.refuse_unsaved(fresh)
        assert (desk.said[-1].status, desk.said[-1].error) == ("error", "no_space")
        desk.disk_full = True
        desk.download("u3")
        assert desk.said[-1].error == "no_space"
        monkeypatch.undo()
        desk.journal.commit()
        desk.journal.close()
        journal, transfers = Journal.open(desk.folder)
        assert known is not None
        assert {name: one.sequence for name, one in transfers.items()} == {"u1": known.transfer.sequence}
        journal.close()


class TestHello:
    def test_pages_stay_below_96_kib(self, desk: Desk) -> None:
        many = [desk.uploads.begin(order(upload_id=f"{n:064d}"), acknowledges=0, now=1.0) for n in range(3000)]
        pages = list(hello_pages("h", "us", [run.transfer for run in many]))
        assert len(pages) > 1
        assert all(len(encode(page)) <= GRANT_FILL_SIZE for page in pages)
        told = [decode_response(encode(page)).payload for page in pages]
        assert all(isinstance(page, Hello) for page in told)
        hellos = [page for page in told if isinstance(page, Hello)]
        assert [page.more for page in hellos] == [True] * (len(pages) - 1) + [False]
        assert sum(len(page.active) for page in hellos) == 3000

    def test_nothing_at_hand_is_one_empty_page(self) -> None:
        (page,) = hello_pages("h", "us", [])
        assert page.payload == Hello("us")


class TestTelemetry:
    @pytest.fixture
    def telemetry(self) -> StatusReporter:
        return StatusReporter("till-1", lambda: SystemInfo(hostname="till"))

    def test_at_most_one_a_second_and_one_idle_at_the_end(self, desk: Desk, telemetry: StatusReporter) -> None:
        run = desk.download("u1")
        assert run is not None
        told = [telemetry.due([run], now=100 + tenth / 10, epoch=1) for tenth in range(15)]
        assert sum(status is not None for status in told) == 1
        assert telemetry.due([], now=102.1, epoch=1) is not None
        assert telemetry.due([], now=110.0, epoch=1) is None

    def test_what_is_over_within_a_second_needs_none(self, desk: Desk, telemetry: StatusReporter) -> None:
        run = desk.download("u1")
        assert run is not None
        assert telemetry.due([run], now=100.0, epoch=1) is None
        assert telemetry.due([], now=101.5, epoch=1) is None

    def test_says_why_nothing_happens(self, desk: Desk, telemetry: StatusReporter) -> None:
        run = desk.download("u1")
        assert run is not None
        telemetry.due([run], now=100.0, epoch=1)
        status = telemetry.due([run], now=101.0, epoch=7, overall_reason="the device's disk is full")
        assert status is not None
        assert status.current_upload is not None
        assert (status.status, status.epoch, status.current_upload.reason) == (
            "waiting",
            7,
            "the device's disk is full",
        )
        assert status.system_info == SystemInfo(hostname="till")

    def test_long_paths_never_make_it_too_large_to_say(self, desk: Desk, telemetry: StatusReporter) -> None:
        path = "/d/" + 4000 * "ü"
        runs = [
            desk.uploads.begin(order(upload_id=f"u{n}", file_path=path), acknowledges=0, now=1.0) for n in range(64)
        ]
        telemetry.due(runs, now=100.0, epoch=1)
        status = telemetry.due(runs, now=101.0, epoch=1)
        assert status is not None
        assert status.current_upload == status.uploads[0]
        assert 1 < len(status.uploads) < len(runs)
        assert len(encode(status)) <= GRANT_FILL_SIZE + 4096

    def test_repeats_itself_rarely_while_nothing_changes(self, desk: Desk, telemetry: StatusReporter) -> None:
        run = desk.download("u1")
        assert run is not None
        told = [telemetry.due([run], now=100.0 + second, epoch=1) for second in range(100)]
        statuses = [status for status in told if status is not None]
        assert len(statuses) == 4
        assert sum(status.system_info is not None for status in statuses) == 2


class TestOutgoing:
    def test_keeps_order_and_replaces_what_is_outdated(self) -> None:
        open_, sent = False, list[bytes]()

        def publish(letter: Outbound) -> bool:
            if open_:
                sent.append(letter.data)
            return open_

        outgoing = SendQueue(publish)
        for key, data in (("a", b"1"), ("b", b"2"), ("a", b"3")):
            outgoing.put(key, Outbound(Channel.RESPONSE, data))
        outgoing.flush()
        assert sent == []
        open_ = True
        outgoing.flush()
        assert (sent, len(outgoing)) == ([b"3", b"2"], 0)

    def test_is_bounded(self) -> None:
        outgoing = SendQueue(lambda _letter: False)
        for number in range(MAX_WAITING + 5):
            outgoing.put(str(number), Outbound(Channel.RESPONSE, b""))
        assert (len(outgoing), outgoing.dropped) == (MAX_WAITING, 5)
