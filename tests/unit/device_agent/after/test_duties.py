"""The work and the receipts of many files: none is forgotten, and none holds up the others for ever."""

from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent import uploads
from device_agent.after.duties import MAX_OPEN, AfterDone, AfterDuties
from device_agent.after.machine import Checked, FileKept, Hidden, Phase
from device_agent.state.journal import MIN_TOMBSTONES, Journal
from device_agent.transfer.closing import keep_file
from device_agent.transfer.records import Afterwards, Tombstone
from schemas.messages import CloseUpload, Response
from schemas.values import ErrorCode, Fingerprint, Outcome


def due(number: int) -> Afterwards:
    return Afterwards("delete", f"/data/{number}", f"m{number}", 1, 3)


def duties_of(
    journal: Journal, published: list[str], submit: Callable[[int, str, Afterwards, Phase], None] = lambda *_: None
) -> AfterDuties:
    def publish(_response: Response, key: str) -> None:
        published.append(key.removeprefix("after "))

    return AfterDuties(journal, submit=submit, publish=publish, in_use=lambda _path: False, grace=0.0, wall=lambda: 1.0)


def at_work(folder: Path) -> tuple[Journal, AfterDuties, list[tuple[int, Phase]]]:
    """The duties of `u0`, whose first work has begun; and what has begun, by number and phase."""
    journal, _ = Journal.open(folder)
    journal.append(Tombstone("u0", "completed", 1, due(0)))
    journal.commit()
    begun: list[tuple[int, Phase]] = []
    duties = duties_of(journal, [], lambda number, _upload_id, _after, phase: begun.append((number, phase)))
    duties.work(1.0, connected=True)
    return journal, duties, begun


def test_receipts_that_are_never_acknowledged_do_not_hold_up_the_others(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    for number in range(MAX_OPEN + 5):
        journal.append(Tombstone(f"u{number}", "completed", 1, keep_file(due(number), "why")))
    journal.commit()
    published: list[str] = []
    duties = duties_of(journal, published)
    duties.work(1.0, connected=True)
    assert published == [f"u{number}" for number in range(MAX_OPEN)]
    later = duties.next_at(connected=True)
    assert later is not None
    duties.work(later, connected=True)
    assert set(published) == {f"u{number}" for number in range(MAX_OPEN + 5)}
    again = duties.next_at(connected=True)
    assert again is not None
    assert again > later
    journal.close()


def test_an_acknowledged_receipt_makes_room_for_the_next(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    for number in range(MAX_OPEN + 1):
        journal.append(Tombstone(f"u{number}", "completed", 1, keep_file(due(number), "why")))
    journal.commit()
    published: list[str] = []
    duties = duties_of(journal, published)
    duties.work(1.0, connected=True)
    duties.acknowledged("u7", CloseUpload(upload_id="u7", outcome=Outcome.COMPLETED, acknowledges=3, attempt=1))
    duties.work(1.1, connected=True)
    assert published[-1] == f"u{MAX_OPEN}"
    journal.close()


def test_the_tombstone_of_a_file_that_may_be_hidden_is_never_dropped(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    journal.append(Tombstone("hidden", "completed", 1, due(0)))
    journal.append(Tombstone("reported", "completed", 1, keep_file(due(1), "why")))
    for number in range(MIN_TOMBSTONES + 5):
        journal.append(Tombstone(f"u{number}", "completed", 9 * 86_400))
    assert "hidden" in journal.memory.tombstones
    assert "reported" not in journal.memory.tombstones
    journal.commit()
    journal.close()
    journal, _ = Journal.open(tmp_path)
    assert journal.memory.unfinished == {"hidden"}
    journal.append(Tombstone("hidden", "completed", 1, keep_file(due(0), "why")))
    assert not journal.memory.unfinished
    journal.close()


def test_as_many_files_wait_as_the_journal_may_hold_and_the_next_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_UNFINISHED", 2)
    journal, _ = Journal.open(tmp_path)
    device = uploads.Uploads(journal, [], workers=1, now=0.0)
    for number in range(3):
        device.write_tombstone(f"u{number}", "completed", due(number))
    steps = [one.after and one.after.outcome for one in journal.memory.tombstones.values()]
    assert steps == [None, None, "kept"]
    assert device.take_afterwards() == ["u0", "u1", "u2"]
    journal.close()


def test_what_a_late_thread_finds_is_not_taken_for_the_work_that_was_done_again(tmp_path: Path) -> None:
    """The file system did not answer the first thread, which then finds that the second one has hidden the file."""
    journal, duties, begun = at_work(tmp_path)
    ((first, _),) = begun
    duties.done(AfterDone(first, "u0", None), 2.0)
    duties.work(60.0, connected=True)
    second, _ = begun[-1]
    duties.done(AfterDone(second, "u0", Hidden()), 61.0)
    for now in (62.0, 63.0):
        duties.work(now, connected=True)
    third, phase = begun[-1]
    assert (phase, len(begun)) == (Phase.CHECK, 3)
    duties.done(AfterDone(first, "u0", FileKept(ErrorCode.SOURCE_GONE, "gone")), 64.0)
    assert journal.memory.tombstones["u0"].after == due(0)
    duties.work(65.0, connected=True)
    assert len(begun) == 3, "the third one is still at work"
    duties.done(AfterDone(third, "u0", Checked(Fingerprint(1, 1, 1, 1, 1))), 66.0)
    assert journal.memory.unfinished == {"u0"}
    assert journal.memory.tombstones["u0"].after != due(0)
    journal.close()


def test_work_that_was_not_answered_begins_again_from_what_is_durable(tmp_path: Path) -> None:
    journal, duties, begun = at_work(tmp_path)
    duties.done(AfterDone(begun[-1][0], "u0", Hidden()), 2.0)
    for now in (3.0, 4.0):
        duties.work(now, connected=True)
    duties.done(AfterDone(begun[-1][0], "u0", None), 5.0)
    duties.work(60.0, connected=True)
    assert [phase for _, phase in begun] == [Phase.HIDE, Phase.CHECK, Phase.HIDE]
    journal.close()
