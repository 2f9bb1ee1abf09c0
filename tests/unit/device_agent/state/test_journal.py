"""The journal after a crash, with a torn tail, on a full disk, and with a second agent."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.errors import JournalError
from device_agent.state import atomic_file as disk_module
from device_agent.state import journal as journal_module
from device_agent.state.journal import MAGIC, MAX_REMEMBERED, MIN_TOMBSTONES, Journal
from device_agent.transfer.model import State, Transfer
from device_agent.transfer.records import Began, Ending, PartKept, Progressed, Record, Remembered, Settled, Tombstone
from device_agent.transfer.replay import replay
from schemas.values import ErrorCode, ResponseStatus
from tests.unit.device_agent.device import fingerprint, order

RECORDS: list[Record] = [
    Began(order()),
    Progressed("u1", 1, 0, fingerprint(99)),
    PartKept("u1", 1, '"e1"', "d1"),
    PartKept("u1", 2, '"e2"', "d2"),
    Progressed("u1", 2, 1, fingerprint(99)),
    Settled("u1", ((5, 6),)),
    Began(order(upload_id="u2")),
    Tombstone("u2", "completed", 5),
    Remembered("m9", 3),
    Progressed("u1", 3, 2, fingerprint(99), Ending(ResponseStatus.ERROR, ErrorCode.BUSY, "why")),
]


def written(folder: Path, records: list[Record]) -> Path:
    journal, _ = Journal.open(folder)
    for record in records:
        journal.append(record)
    journal.commit()
    journal.close()
    return folder / "journal"


def replay_one(transfer: Transfer, record: PartKept) -> Transfer:
    after = replay(transfer, record)
    assert after is not None
    return after


def test_reads_back_the_written_records(tmp_path: Path) -> None:
    written(tmp_path, RECORDS)
    journal, transfers = Journal.open(tmp_path)
    transfer = transfers["u1"]
    assert list(transfers) == ["u1"]
    assert (transfer.sequence, transfer.acknowledged, transfer.state) == (3, 2, State.ENDED)
    assert sorted(transfer.settled) == [1, 2, 5, 6]
    assert transfer.digests == {1: "d1", 2: "d2"}
    assert list(journal.memory.tombstones) == ["u2"]
    assert journal.memory.remembered == {"m9": 3}


def test_every_prefix_of_its_bytes_is_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsync", "fdatasync"):
        # A thousand journals are read here, none of which has to outlast the test.
        monkeypatch.setattr(os, name, lambda _descriptor: None)
    whole = written(tmp_path / "whole", RECORDS).read_bytes()
    ends = [
        len(written(tmp_path / f"n{count}", RECORDS[:count]).read_bytes()) if count else len(MAGIC)
        for count in range(len(RECORDS) + 1)
    ]
    for length in range(len(whole) + 1):
        folder = tmp_path / "torn"
        folder.mkdir(exist_ok=True)
        (folder / "journal").write_bytes(whole[:length])
        journal, transfers = Journal.open(folder)
        kept = sum(end <= length for end in ends[1:])
        expected = Journal.open(tmp_path / f"n{kept}")
        assert transfers == expected[1], length
        assert journal.memory == expected[0].memory
        expected[0].close()
        journal.close()


def test_records_after_a_torn_tail_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path, RECORDS[:2])
    path.write_bytes(path.read_bytes() + b"\x40\x00\x00\x00torn")
    journal, transfers = Journal.open(tmp_path)
    assert (journal.dropped, transfers["u1"].sequence) == (8, 1)
    journal.append(PartKept("u1", 1, '"e1"'))
    journal.commit()
    journal.close()
    journal, transfers = Journal.open(tmp_path)
    assert (journal.dropped, list(transfers["u1"].kept)) == (0, [1])


@pytest.mark.parametrize("place", [20, 30, 60])
def test_reading_stops_at_a_flipped_bit(tmp_path: Path, place: int) -> None:
    path = written(tmp_path, RECORDS[:1])
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    journal, transfers = Journal.open(tmp_path)
    assert (transfers, journal.dropped > 0) == ({}, True)


def test_a_file_that_is_no_journal_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"something else, and long enough to be kept")
    _, transfers = Journal.open(tmp_path)
    assert transfers == {}
    assert (tmp_path / "journal.bad").read_bytes().startswith(b"something")


def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    with pytest.raises(JournalError, match="another agent"):
        Journal.open(tmp_path)
    journal.close()
    Journal.open(tmp_path)[0].close()


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    path = written(tmp_path / "state", RECORDS)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_compaction_keeps_all_state_and_is_smaller(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    journal.append(Began(order()))
    for number in range(1, 2000):
        journal.append(Progressed("u1", number, number - 1, fingerprint(99)))
    journal.append(Tombstone("u7", "failed", 1))
    journal.commit()
    before = journal.path.stat().st_size
    journal.close()
    journal, transfers = Journal.open(tmp_path)
    journal.compact(transfers.values())
    assert journal.path.stat().st_size < before / 100
    journal.append(PartKept("u1", 1, '"e1"'))
    journal.commit()
    journal.close()
    journal, again = Journal.open(tmp_path)
    assert (again["u1"].sequence, list(again["u1"].kept)) == (1999, [1])
    assert list(journal.memory.tombstones) == ["u7"]


def test_compacts_only_a_grown_journal(tmp_path: Path) -> None:
    journal, transfers = Journal.open(tmp_path)
    journal.append(Began(order()))
    journal.commit()
    assert not journal.compact_if_due(transfers.values)


def refuse(*_: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def grown(folder: Path) -> tuple[Journal, dict[str, Transfer]]:
    """A journal with many outdated records."""
    written(folder, [RECORDS[0], *(Progressed("u1", number, 0, fingerprint(99)) for number in range(1, 500))])
    return Journal.open(folder)


def test_after_a_failed_compaction_no_record_goes_into_the_replaced_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, transfers = grown(tmp_path)
    journal.append(PartKept("u1", 1, '"e1"'))
    journal.commit()
    transfers["u1"] = replay_one(transfers["u1"], PartKept("u1", 1, '"e1"'))
    with monkeypatch.context() as patch:
        for module in (disk_module, journal_module):
            patch.setattr(module, "sync_folder", refuse)
        with pytest.raises(JournalError, match="Too many open files"):
            journal.compact(transfers.values())
        journal.append(PartKept("u1", 2, '"e2"'))
        with pytest.raises(JournalError, match="Too many open files"):
            journal.commit()
        assert journal.pending == 1, "acknowledged, though a power cut may bring the old file back"
    journal.commit()
    journal.close()
    journal, transfers = Journal.open(tmp_path)
    assert (journal.dropped, list(transfers["u1"].kept)) == (0, [1, 2])


def test_a_failed_rename_leaves_the_old_or_the_new_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace
    for happened in (True, False):
        journal, transfers = grown(tmp_path / str(happened))

        def fail(path: Path, target: Path, *, happened: bool = happened) -> None:
            if happened:
                rename(path, target)
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", fail)
            with pytest.raises(JournalError, match="Input/output error"):
                journal.compact(transfers.values())
        journal.append(PartKept("u1", 1, '"e1"'))
        journal.commit()
        journal.close()
        journal, transfers = Journal.open(tmp_path / str(happened))
        assert (journal.dropped, transfers["u1"].sequence, list(transfers["u1"].kept)) == (0, 499, [1])
        assert [path.name for path in journal.path.parent.iterdir() if path.suffix == ".new"] == []


def test_a_compaction_without_its_rename_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, transfers = grown(tmp_path)
    before = journal.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(disk_module, "write_all", refuse)
        with pytest.raises(JournalError):
            journal.compact(transfers.values())
    assert journal.path.read_bytes() == before
    journal.append(PartKept("u1", 1, '"e1"'))
    journal.commit()
    assert journal.path.read_bytes()[: len(before)] == before


def test_records_read_at_the_start_are_durable_before_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier process may have been killed between its write, or its rename, and the fsync."""
    path = written(tmp_path, RECORDS)
    inode, synced = path.stat().st_ino, set[int]()
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    Journal.open(tmp_path)[0].close()
    assert synced >= {inode, tmp_path.stat().st_ino}


class Disk:
    """A disk with room for a number of bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write_all(self, descriptor: int, data: bytes) -> None:
        taken = data[: self.room]
        os.write(descriptor, taken)
        self.room -= len(taken)
        if len(taken) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_rejects_new_records_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, RECORDS[:4])
    before = path.read_bytes()
    journal, _ = Journal.open(tmp_path)
    disk = Disk(room=10)
    monkeypatch.setattr(journal_module, "write_all", disk.write_all)
    journal.append(PartKept("u1", 3, '"e3"'))
    journal.append(Began(order(upload_id="u9")))
    with pytest.raises(JournalError, match="No space left"):
        journal.commit()
    assert path.read_bytes() == before
    journal.discard_pending("u9")
    disk.room = 10_000
    journal.commit()
    journal.close()
    _, transfers = Journal.open(tmp_path)
    assert (list(transfers), list(transfers["u1"].kept)) == (["u1"], [1, 2, 3])


def test_a_new_journal_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, _ = Journal.open(tmp_path)
    disk = Disk(room=3)
    monkeypatch.setattr(journal_module, "write_all", disk.write_all)
    journal.append(Began(order()))
    with pytest.raises(JournalError):
        journal.commit()
    disk.room = 10_000
    journal.commit()
    journal.close()
    assert list(Journal.open(tmp_path)[1]) == ["u1"]


def test_tombstones_are_kept_seven_days_and_at_least_4096(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    for number in range(MIN_TOMBSTONES + 10):
        journal.append(Tombstone(f"u{number}", "completed", number))
    assert len(journal.memory.tombstones) == MIN_TOMBSTONES + 10
    journal.append(Tombstone("new", "completed", 8 * 86_400))
    assert len(journal.memory.tombstones) == MIN_TOMBSTONES
    assert "u0" not in journal.memory.tombstones


def test_dropping_ids_raises_the_floor_above_their_epochs(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    for number in range(MAX_REMEMBERED):
        journal.append(Remembered(f"m{number}", 7))
    assert journal.memory.floor == 0
    journal.append(Remembered("one more", 9))
    assert (journal.memory.floor, "m0" in journal.memory.remembered) == (8, False)


def _replace_journal(folder: Path) -> None:
    (folder / "other").write_bytes(bytes(4_096))
    (folder / "other").replace(folder / "journal")


REMOVALS = {
    "the folder is removed": shutil.rmtree,
    "the journal is removed": lambda folder: (folder / "journal").unlink(),
    "the folder is renamed": lambda folder: folder.rename(folder.with_name("away")),
    "the journal is emptied": lambda folder: (folder / "journal").unlink() or (folder / "journal").touch(),
    "the journal is cut": lambda folder: (folder / "journal").write_bytes(b""),
    "another one is restored": _replace_journal,
}


@pytest.mark.parametrize("removed", REMOVALS.values(), ids=REMOVALS.keys())
@pytest.mark.parametrize("open_before", [True, False])
def test_a_journal_that_was_removed_is_written_again_from_memory(
    tmp_path: Path, removed: Callable[[Path], object], *, open_before: bool
) -> None:
    folder, began = tmp_path / "state", Began(order())
    journal, _ = Journal.open(folder)
    journal.append(began)
    journal.append(Remembered("m1", 3))
    journal.commit()
    if not open_before:
        journal.close()
        journal, _ = Journal.open(folder)
    held = replay(None, began)
    assert held is not None
    part = PartKept("u1", 1, '"e1"')
    after = replay(held, part)
    assert after is not None
    journal.on_gone = lambda: [after]
    removed(folder)
    journal.append(part)
    journal.commit()
    journal.append(Progressed("u1", 7, 0, None, None))
    journal.commit()
    with pytest.raises(JournalError, match="another agent"):
        Journal.open(folder)
    journal.close()
    journal, transfers = Journal.open(folder)
    journal.close()
    assert (transfers["u1"].sequence, list(transfers["u1"].kept)) == (7, [1])
    assert (journal.dropped, journal.memory.remembered) == (0, {"m1": 3})


def test_another_journal_that_was_restored_meanwhile_is_kept_for_a_person(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    journal.on_gone = list
    journal.append(Remembered("m1", 3))
    journal.commit()
    _replace_journal(tmp_path)
    journal.append(Remembered("m2", 3))
    journal.commit()
    journal.close()
    assert (tmp_path / "journal.replaced").read_bytes() == bytes(4_096)


def test_a_rename_that_fails_while_the_journal_is_written_again_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _ = Journal.open(tmp_path)
    journal.on_gone = list
    journal.append(Remembered("m1", 3))
    journal.commit()
    _replace_journal(tmp_path)

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal.append(Remembered("m2", 3))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refused)
        with pytest.raises(JournalError):
            journal.commit()
    journal.commit()
    journal.close()
    journal, _ = Journal.open(tmp_path)
    journal.close()
    assert journal.memory.remembered == {"m1": 3, "m2": 3}
