"""The table of uploads: scheduling, waits, a full disk, and the answer to each command."""

import errno
import os
from itertools import pairwise

import pytest

from device_agent.errors import JournalError, PutFailure
from device_agent.mqtt.publisher import MAX_WAITING, Outbound, SendQueue
from device_agent.mqtt.status import StatusReporter
from device_agent.state import journal as journal_module
from device_agent.state.journal import Journal
from device_agent.storage.host_backoff import ENOUGH, HostBackoff
from device_agent.transfer.events import Faulted, PartFailed, PartStored, PutPart, Seen
from device_agent.transfer.model import State
from device_agent.transfer.responses import hello_pages, wait_reason
from device_agent.uploads import MAX_ACTIVE, MAX_ADMITTED, MAX_HELD, DiscardCopy
from schemas.codec import GRANT_FILL_SIZE, MAX_MESSAGE_SIZE, decode_response, encode
from schemas.messages import Hello, UploadReport
from schemas.topics import Channel
from schemas.values import STATUS_EVERY, ErrorCode, SystemInfo
from tests.unit.device_agent.device import order
from tests.unit.device_agent.upload_table import UploadTable, table

__all__ = ["table"]


def turned_away(*, now: float = 1.0, retry_after: float | None = None) -> PartFailed:
    return PartFailed(
        now=now,
        number=1,
        kind=PutFailure.TRY_AGAIN,
        text="the store answered 503",
        seen=Seen(),
        retry_after=retry_after,
    )


class TestScheduling:
    def test_at_most_max_admitted_are_opened_at_once(self, table: UploadTable) -> None:
        for number in range(6):
            table.download(f"u{number}")
        table.uploads.schedule(1.0)
        states = [run.transfer.state for run in table.uploads]
        assert states.count(State.OPENING) == MAX_ADMITTED

    def test_high_priority_opens_first(self, table: UploadTable) -> None:
        for number in range(6):
            table.download(f"u{number}", options={"priority": number})
        table.uploads.schedule(1.0)
        opened = {run.upload_id for run in table.uploads if run.transfer.state is State.OPENING}
        assert opened == {"u2", "u3", "u4", "u5"}

    def test_an_upload_without_answers_gives_its_slot_to_others(self, table: UploadTable) -> None:
        for number in range(MAX_ADMITTED + 1):
            table.download(f"u{number}")
        table.uploads.schedule(1.0)
        table.flush()
        last = table.uploads.get(f"u{MAX_ADMITTED}")
        assert last is not None
        table.uploads.schedule(5.0)
        assert last.transfer.state is State.QUEUED
        table.uploads.schedule(7.0)
        assert last.transfer.state is not State.QUEUED

    def test_senders_are_shared_and_never_exceeded(self, table: UploadTable) -> None:
        for name in ("u1", "u2"):
            table.download(name)
        table.uploads.schedule(1.0)
        table.flush()
        for name in ("u1", "u2"):
            urls = [{"part_number": n, "url": "https://s/1"} for n in (1, 2)]
            table.command("grant_parts", upload_id=name, attempt=1, presigned_urls=urls, acknowledges=1)
        table.uploads._workers = 3
        table.uploads.schedule(1.0)
        puts = [run.upload_id for run, effect in table.uploads.effects if isinstance(effect, PutPart)]
        assert sorted(puts) == ["u1", "u1", "u2"]

    def test_a_pause_of_a_host_applies_to_every_upload(self, table: UploadTable) -> None:
        hosts = {"u1": "busy", "u2": "busy", "u3": "free"}
        for name in hosts:
            table.download(name)
        table.uploads.schedule(1.0)
        table.flush()
        for name, host in hosts.items():
            urls = [{"part_number": n, "url": f"https://{host}/{n}?X-Amz-Signature=s"} for n in (1, 2)]
            table.command("grant_parts", upload_id=name, attempt=1, presigned_urls=urls, acknowledges=1)
        table.uploads.host_backoff.record_result("https://busy/9?X-Amz-Signature=t", turned_away(retry_after=30.0))
        assert table.begun(2.0) == ["u3", "u3"]
        waiting = [wait_reason(run.transfer, 2.0) for run in table.uploads if run.upload_id != "u3"]
        assert waiting == ["the object store is paused, 29 s are left"] * 2
        assert table.uploads.next_wake() == 31.0
        assert table.begun(31.0) == ["u1", "u2"]

    def test_the_pause_of_a_failing_host_grows(self) -> None:
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

    def test_uploads_beyond_the_limit_are_refused_as_busy(self, table: UploadTable) -> None:
        for number in range(MAX_ACTIVE + 1):
            table.download(f"u{number}")
        assert (table.responses[-1].error, table.responses[-1].sequence) == ("busy", None)
        assert table.uploads.get(f"u{MAX_ACTIVE}") is None

    def test_large_commands_are_refused_as_busy_before_there_are_many(self, table: UploadTable) -> None:
        """The kind: a limit counts entries whose size the other side chooses."""
        urls = [{"part_number": number, "url": f"https://s/{number}?{'x' * 4000}"} for number in range(1, 31)]
        for number in range(MAX_ACTIVE):
            config = {"upload_id": f"u{number}", "presigned_urls": urls}
            table.command("download_file", f"m{number}", file_path="/d/a", upload_config=config)
        held = sum(run.held for run in table.uploads)
        assert MAX_HELD <= held < MAX_HELD + 128 * 1024
        assert (table.responses[-1].error, len(list(table.uploads))) == ("busy", 35)

    def test_an_upload_that_ends_is_kept_for_its_owner_while_large_ones_wait(self, table: UploadTable) -> None:
        """The kind: one limit for two uses, where the one that fills it takes the place of the other."""
        urls = [{"part_number": number, "url": f"https://s/{number}?{'x' * 4000}"} for number in range(1, 31)]
        for number in range(35):
            config = {"upload_id": f"u{number}", "presigned_urls": urls}
            table.command("download_file", f"m{number}", file_path="/d/a", upload_config=config)
        first = table.uploads.get("u0")
        assert first is not None
        table.uploads.handle(first, Faulted(now=1.0, code=ErrorCode.FILE_NOT_FOUND, text="no such file"))
        small = table.download("small")
        assert small is not None
        table.uploads.handle(small, Faulted(now=1.0, code=ErrorCode.FILE_NOT_FOUND, text="no such file"))
        more = {"upload_id": "more", "presigned_urls": urls}
        table.command("download_file", "more", file_path="/d/a", upload_config=more)
        table.uploads.schedule(1.0)
        assert [run.upload_id for run in table.uploads if run.ended] == ["u0", "small"]

    def test_ended_uploads_that_are_large_become_tombstones_before_there_are_many(self, table: UploadTable) -> None:
        """Their owner never closes them. The oldest go first, and the journal of the rest is bounded too."""
        for number in range(2_000):
            run = table.download(f"u{number}", metadata={"note": "x" * 4000}, options={"give_up_after": 31_536_000})
            assert run is not None
            table.uploads.handle(run, Faulted(now=1.0, code=ErrorCode.FILE_NOT_FOUND, text="no such file"))
            table.uploads.schedule(1.0)
            table.flush()
            table.journal.compact_if_due(lambda: [run.transfer for run in table.uploads])
        kept = [run.upload_id for run in table.uploads]
        assert sum(run.held for run in table.uploads) <= MAX_HELD
        assert 500 < len(kept) < 1_100
        assert kept == [f"u{number}" for number in range(2_000 - len(kept), 2_000)]
        assert len(table.journal.memory.tombstones) == 2_000 - len(kept)
        assert table.journal.path.stat().st_size < 2.2 * MAX_HELD
        table.journal.close()
        again = UploadTable(table.folder)
        assert [run.upload_id for run in again.uploads] == kept
        assert sum(run.held for run in again.uploads) <= MAX_HELD

    @pytest.mark.parametrize("step", [60.0, 90_000.0], ids=["without a connection", "in suspend"])
    def test_an_owner_that_cannot_be_reached_is_not_silent(self, table: UploadTable, step: float) -> None:
        """Its silence continues where it was: only the time in which it could have answered counts."""
        run = table.download("u1", options={"give_up_after": 7_200})
        assert run is not None
        table.uploads.schedule(1.0)
        table.flush()
        now = 1.0
        for _ in range(119):
            table.uploads.tick(now := now + 60.0, 0.5)
        assert run.transfer.state is State.REQUESTING
        for _ in range(3 if step > 60.0 else 4_500):
            table.uploads.tick(now := now + step, 0.5, connected=step > 60.0)
        assert run.transfer.state is State.REQUESTING
        table.uploads.tick(now + 60.0, 0.5)
        assert run.transfer.ending is not None
        assert run.transfer.ending.code is ErrorCode.OWNER_SILENT

    def test_a_copy_is_made_of_durable_commands_only(self, table: UploadTable) -> None:
        table.download("plain")
        table.download("packed", options={"compression": "gzip"})
        table.uploads.schedule(1.0)
        assert [run.upload_id for run, _ in table.take_early()] == ["plain"]
        assert [run.upload_id for run, _ in table.uploads.take_effects()] == ["packed"]

    def test_a_new_attempt_replaces_the_old_one(self, table: UploadTable) -> None:
        old = table.download("u1")
        new = table.download("u1", attempt=2)
        assert old is not None
        assert new is not None
        assert old.session.stopped.is_set()
        assert new.transfer.order.attempt == 2
        table.download("u1", attempt=1)
        assert table.uploads.counters["older_attempts"] == 1


class TestCommands:
    def test_a_foreign_host_ends_the_upload(self, table: UploadTable) -> None:
        table.download("u1")
        table.uploads.schedule(1.0)
        table.flush()
        table.foreign = True
        table.command("grant_parts", upload_id="u1", presigned_urls=[{"part_number": 1, "url": "https://evil/1"}])
        responses = table.flush()[-1]
        assert (responses.status, responses.error) == ("rejected", "host_not_allowed")

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
    def test_a_command_for_a_tombstone_is_answered_with_its_outcome(
        self, table: UploadTable, outcome: str, status: str, action: str
    ) -> None:
        table.download("u1")
        table.command("close_upload", upload_id="u1", attempt=1, outcome=outcome)
        assert table.flush() == []
        table.command(action, upload_id="u1", attempt=7, file_path="/d/a") if action == "download_file" else (
            table.command(action, upload_id="u1", attempt=7)
        )
        answer = table.responses[-1]
        assert isinstance(answer.payload, UploadReport)
        assert (answer.status, answer.sequence, answer.payload.etags) == (status, None, {})
        assert (answer.payload.upload_id, answer.payload.attempt) == ("u1", 7)

    def test_close_is_never_answered(self, table: UploadTable) -> None:
        for _ in range(2):
            table.command("close_upload", upload_id="never-heard-of", outcome="failed")
        assert (table.responses, table.flush()) == ([], [])
        assert "never-heard-of" in table.journal.memory.tombstones

    def test_a_close_of_an_older_attempt_is_dropped(self, table: UploadTable) -> None:
        table.download("u1", attempt=2)
        table.command("close_upload", upload_id="u1", attempt=1, outcome="failed")
        assert table.uploads.get("u1") is not None

    def test_a_command_for_another_installation_is_stale(self, table: UploadTable) -> None:
        table.commands.receive(
            b'{"message_id":"m","action":"download_file","install_id":"them","payload":{"file_path":"/d/a"}}', 1.0
        )
        assert table.responses[-1].error == "stale_epoch"

    @pytest.mark.parametrize("action", ["grant_parts", "cancel_upload"])
    def test_a_command_about_nothing_is_a_bad_request(self, table: UploadTable, action: str) -> None:
        table.command(action)
        assert table.responses[-1].error == "bad_request"

    def test_queries_are_passed_on(self, table: UploadTable) -> None:
        table.command("health_check")
        table.command("list_files", pattern="/d/*")
        assert [command.action for command in table.queries] == ["health_check", "list_files"]


class TestFullDisk:
    def test_a_new_upload_is_refused_and_a_known_one_is_kept(
        self, table: UploadTable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = table.download("u1")
        table.uploads.schedule(1.0)
        table.flush()

        def full(_descriptor: int, _data: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(journal_module, "write_all", full)
        fresh = table.download("u2")
        assert fresh is not None
        with pytest.raises(JournalError):
            table.journal.commit()
        assert table.uploads.discard_pending() == [fresh]
        table.commands.refuse_unsaved(fresh)
        assert (table.responses[-1].status, table.responses[-1].error) == ("error", "no_space")
        table.disk_failure = "/state/journal cannot be written: Read-only file system"
        table.download("u3")
        assert table.responses[-1].error == "no_space"
        monkeypatch.undo()
        table.journal.commit()
        table.journal.close()
        journal, transfers = Journal.open(table.folder)
        assert known is not None
        assert {name: one.sequence for name, one in transfers.items()} == {"u1": known.transfer.sequence}
        journal.close()


class TestHello:
    def test_pages_stay_below_96_kib(self, table: UploadTable) -> None:
        many = [table.uploads.begin(order(upload_id=f"{n:064d}"), acknowledges=0, now=1.0) for n in range(3000)]
        pages = list(hello_pages("h", "us", [run.transfer for run in many]))
        assert len(pages) > 1
        assert all(len(encode(page)) <= GRANT_FILL_SIZE for page in pages)
        results = [decode_response(encode(page)).payload for page in pages]
        assert all(isinstance(page, Hello) for page in results)
        hellos = [page for page in results if isinstance(page, Hello)]
        assert [page.more for page in hellos] == [True] * (len(pages) - 1) + [False]
        assert sum(len(page.active) for page in hellos) == 3000

    def test_no_uploads_give_one_empty_page(self) -> None:
        (page,) = hello_pages("h", "us", [])
        assert page.payload == Hello("us")


class TestStatus:
    @pytest.fixture
    def reporter(self) -> StatusReporter:
        return StatusReporter("till-1", lambda: SystemInfo(hostname="till"))

    def test_at_most_one_a_second_and_one_idle_at_the_end(self, table: UploadTable, reporter: StatusReporter) -> None:
        run = table.download("u1")
        assert run is not None
        results = [reporter.due([run], now=100 + tenth / 10, epoch=1) for tenth in range(15)]
        assert sum(status is not None for status in results) == 1
        assert reporter.due([], now=102.1, epoch=1) is not None
        assert reporter.due([], now=110.0, epoch=1) is None

    def test_an_upload_that_ends_within_a_second_needs_no_status(
        self, table: UploadTable, reporter: StatusReporter
    ) -> None:
        run = table.download("u1")
        assert run is not None
        assert reporter.due([run], now=100.0, epoch=1) is None
        assert reporter.due([], now=101.5, epoch=1) is None

    def test_a_status_has_the_reason_of_a_wait(self, table: UploadTable, reporter: StatusReporter) -> None:
        run = table.download("u1")
        assert run is not None
        reporter.due([run], now=100.0, epoch=1)
        status = reporter.due([run], now=101.0, epoch=7, overall_reason="the device's disk is full")
        assert status is not None
        assert status.current_upload is not None
        assert (status.status, status.epoch, status.current_upload.reason) == (
            "waiting",
            7,
            "the device's disk is full",
        )
        assert status.system_info == SystemInfo(hostname="till")

    def test_long_paths_do_not_make_a_status_too_large(self, table: UploadTable, reporter: StatusReporter) -> None:
        path = "/d/" + 4000 * "ü"
        runs = [
            table.uploads.begin(order(upload_id=f"u{n}", file_path=path), acknowledges=0, now=1.0) for n in range(64)
        ]
        reporter.due(runs, now=100.0, epoch=1)
        status = reporter.due(runs, now=101.0, epoch=1)
        assert status is not None
        assert status.current_upload == status.uploads[0]
        assert 1 < len(status.uploads) < len(runs)
        assert len(encode(status)) <= GRANT_FILL_SIZE + 4096

    def test_an_unchanged_status_is_repeated_rarely(self, table: UploadTable, reporter: StatusReporter) -> None:
        run = table.download("u1")
        assert run is not None
        results = [reporter.due([run], now=100.0 + second, epoch=1) for second in range(100)]
        statuses = [status for status in results if status is not None]
        assert len(statuses) == 4
        assert sum(status.system_info is not None for status in statuses) == 2

    def test_each_of_many_uploads_is_reported_in_the_time_of_one(
        self, table: UploadTable, reporter: StatusReporter
    ) -> None:
        """The kind: a report with less room than there is to report. Its owner ends a silent upload as no_progress."""
        runs = [table.download(f"u{number}") for number in range(MAX_ACTIVE)]
        waiting = [run for run in runs if run is not None]
        named: dict[str, list[float]] = {run.upload_id: [101.0] for run in waiting}
        statuses = 0
        for second in range(300):
            now = 100.0 + second
            status = reporter.due(waiting, now=now, epoch=1)
            statuses += status is not None
            for entry in status.uploads if status else ():
                named[entry.upload_id].append(now)
        assert len(waiting) == MAX_ACTIVE
        assert (
            max(later - one for times in named.values() for one, later in pairwise([*times, 400.0])) <= STATUS_EVERY + 5
        )
        assert statuses <= 300 / STATUS_EVERY * 4


class TestSendQueue:
    def test_keeps_the_order_and_replaces_outdated_messages(self) -> None:
        open_, sent = False, list[bytes]()

        def publish(message: Outbound) -> bool:
            if open_:
                sent.append(message.data)
            return open_

        queue = SendQueue(publish, lambda: MAX_MESSAGE_SIZE)
        for key, data in (("a", b"1"), ("b", b"2"), ("a", b"3")):
            queue.put(key, Outbound(Channel.RESPONSE, data))
        queue.flush()
        assert sent == []
        open_ = True
        queue.flush()
        assert (sent, len(queue)) == ([b"3", b"2"], 0)

    def test_is_bounded(self) -> None:
        queue = SendQueue(lambda _message: False, lambda: MAX_MESSAGE_SIZE)
        for number in range(MAX_WAITING + 5):
            queue.put(str(number), Outbound(Channel.RESPONSE, b""))
        assert (len(queue), queue.dropped) == (MAX_WAITING, 5)


def discarded(table: UploadTable) -> int:
    return sum(isinstance(effect, DiscardCopy) for _, effect in table.uploads.effects)


@pytest.mark.parametrize(
    ("code", "discards"),
    [(ErrorCode.SOURCE_CHANGED, 1), (ErrorCode.STORAGE_UNAVAILABLE, 0), (ErrorCode.NO_SPACE, 0)],
)
def test_a_copy_is_kept_only_while_its_attempt_may_need_it(table: UploadTable, code: ErrorCode, discards: int) -> None:
    """The kind: a bound on disk that waits for an owner, who may not answer for a year."""
    run = table.download("u1")
    assert run is not None
    for _ in range(2):
        table.uploads.handle(run, Faulted(now=1.0, code=code, text="why"))
    assert (run.ended, discarded(table)) == (True, discards)


def test_a_copy_of_a_refused_command_is_deleted(table: UploadTable) -> None:
    """It may be made before the command is durable."""
    table.download("u1")
    table.uploads.discard_pending()
    assert discarded(table) == 1
