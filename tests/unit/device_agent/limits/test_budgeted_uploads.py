"""Uploads under the device's own limits: what waits, what goes on, and what the journal knows after a crash."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from device_agent.errors import PutFailure
from device_agent.limits.limits import Limits, Readings, Rules
from device_agent.state.journal import Journal
from device_agent.transfer.events import PartFailed, PartStored, PublishResponse, PutPart, Seen
from device_agent.transfer.model import State
from device_agent.transfer.responses import wait_reason
from device_agent.uploads import Run
from schemas.parts import MIB
from tests.unit.device_agent.upload_table import UploadTable

PART = 5 * MIB
NOON = 1_795_780_800.0


@dataclass
class Budgeted(UploadTable):
    """Uploads of three parts, under a cap of a day."""

    cap: int = 2 * PART
    wall: float = NOON

    def __post_init__(self) -> None:
        super().__post_init__()
        readings = Readings(wall=lambda: self.wall)
        self.uploads.limits = Limits(Rules(day=self.cap), "UTC", readings)
        self.uploads.limits.restore(self.journal.memory.spent)

    def granted(self, upload_id: str, parts: int = 3) -> Run:
        """An upload whose parts are granted."""
        self.sizes[upload_id] = parts * PART
        run = self.download(upload_id)
        assert run is not None
        self.uploads.schedule(1.0)
        self.flush()
        urls = [{"part_number": n, "url": f"https://s/{upload_id}/{n}"} for n in range(1, parts + 1)]
        config = {"upload_id": upload_id, "presigned_urls": urls}
        self.command("grant_parts", f"g-{upload_id}", upload_config=config, acknowledges=1)
        return run

    def ends(self, run: Run, number: int, *, sent: int = PART, stored: bool = True) -> None:
        """A part in flight ends."""
        self.uploads.put_done(run.session, PART, sent)
        seen = Seen(run.transfer.opened)
        if stored:
            self.uploads.handle(run, PartStored(now=1.0, number=number, etag=f"e{number}", seen=seen))
        else:
            failed = PutFailure.TRY_AGAIN
            self.uploads.handle(run, PartFailed(now=1.0, number=number, kind=failed, text="reset", seen=seen))

    def keep(self) -> None:
        """What the loop does before each commit."""
        record = self.uploads.limits.unwritten(others=self.journal.pending > 0)
        if record is not None:
            self.journal.append(record)


@pytest.fixture
def table(tmp_path: Path) -> Budgeted:
    return Budgeted(tmp_path)


def test_an_upload_waits_for_the_next_day_when_the_cap_is_reached_and_then_goes_on(table: Budgeted) -> None:
    run = table.granted("u1")
    assert table.begun(1.0) == ["u1", "u1"]
    reason = wait_reason(run.transfer, 1.0)
    assert reason is not None
    assert reason.startswith("device_budget: 10,485,760 of 10,485,760 bytes of this day are used (BYTES_PER_DAY)")
    for number in (1, 2):
        table.ends(run, number)
    assert table.begun(2.0) == []
    assert run.transfer.state is State.WAITING
    table.wall += 86_400
    assert table.begun(3.0) == ["u1"]
    assert wait_reason(run.transfer, 3.0) is None


def test_nothing_is_requested_and_the_loop_sleeps_while_an_upload_waits(table: Budgeted) -> None:
    run = table.granted("u1")
    table.begun(1.0)
    for number in (1, 2):
        table.ends(run, number)
    now = 2.0
    table.begun(now)
    for _ in range(30):
        at = table.uploads.next_wake()
        assert at is not None
        assert at >= now + 1.0, "the loop must not spin"
        now = at
        assert table.begun(now) == []
        assert not any(isinstance(effect, PublishResponse) for _, effect in table.uploads.effects)
    assert run.transfer.ending is None


def test_an_upload_that_waits_longer_than_its_urls_live_is_not_given_up(table: Budgeted) -> None:
    run = table.granted("u1")
    table.begun(1.0)
    for number in (1, 2):
        table.ends(run, number)
    for minute in range(2, 600):
        if minute % 15 == 0:
            urls = [{"part_number": 3, "url": "https://s/3"}]
            config = {"upload_id": "u1", "presigned_urls": urls, "expires_in": 900}
            table.command("grant_parts", f"g{minute}", upload_config=config, acknowledges=1)
        table.begun(60.0 * minute)
    assert run.transfer.ending is None
    assert (run.transfer.renewals, wait_reason(run.transfer, 36_000.0) is None) == (0, False)


def test_a_queued_upload_is_not_opened_while_nothing_may_begin(table: Budgeted) -> None:
    run = table.granted("u1")
    table.begun(1.0)
    later = table.download("u2")
    assert later is not None
    table.begun(1.0)
    assert later.transfer.state is State.QUEUED
    assert (wait_reason(later.transfer, 1.0) or "").startswith("device_budget: ")
    for number in (1, 2):
        table.ends(run, number, sent=10, stored=False)
    table.uploads.schedule(100.0)
    assert later.transfer.state is State.OPENING, "the failed parts cost ten bytes each"


def test_a_small_file_goes_on_where_the_rest_of_the_day_has_room_for_it(table: Budgeted) -> None:
    table.uploads.limits.rules = Rules(day=2 * PART + 1000)
    table.granted("u1")
    table.begun(1.0)
    table.sizes["small"] = 900
    small = table.download("small")
    assert small is not None
    table.uploads.schedule(2.0)
    table.flush()
    urls = [{"part_number": 1, "url": "https://s/small"}]
    table.command("grant_parts", "g", upload_config={"upload_id": "small", "presigned_urls": urls}, acknowledges=1)
    assert table.begun(3.0) == ["small"]


def test_a_part_larger_than_a_whole_day_ends_the_upload_with_the_setting_in_its_text(tmp_path: Path) -> None:
    table = Budgeted(tmp_path, cap=PART - 1)
    table.sizes["u1"] = 3 * PART
    run = table.download("u1")
    assert run is not None
    table.uploads.schedule(1.0)
    table.flush()
    table.uploads.schedule(1.0)
    ending = run.transfer.ending
    assert ending is not None
    assert (ending.code, ending.status) == ("file_too_large", "rejected")
    assert "this device sends 5,242,879 in a whole day (BYTES_PER_DAY)" in (ending.text or "")


def test_a_part_begins_only_when_its_bytes_are_durable(table: Budgeted) -> None:
    table.granted("u1")
    table.journal.commit()
    table.begun(1.0)
    table.keep()
    assert not [effect for _, effect in table.take_early() if isinstance(effect, PutPart)]
    table.journal.commit()
    assert len([effect for _, effect in table.take_early() if isinstance(effect, PutPart)]) == 2


def test_a_crash_counts_the_parts_in_flight_in_full_and_forgets_nothing(table: Budgeted) -> None:
    run = table.granted("u1")
    table.begun(1.0)
    table.keep()
    table.ends(run, 1, sent=PART + 7)
    table.keep()
    table.journal.commit()
    # Killed here: part 1 is acknowledged by the object store, part 2 is in flight.
    table.journal.close()
    journal, _ = Journal.open(table.folder)
    spent = journal.memory.spent
    journal.compact([])
    journal.close()
    assert spent is not None
    assert (spent.bytes_day, spent.bytes_month) == (2 * PART + 7, 2 * PART + 7)
    again = Budgeted(table.folder)
    assert again.journal.memory.spent == spent, "a rewritten journal keeps the counts"
    assert (again.uploads.limits.reason(1) or "").startswith("device_budget: ")
