"""Kept selections: pages, their bounds, age and number, and a file that is damaged."""

import os
import time
from pathlib import Path

import msgspec
import pytest

from device_agent.state.selections import MAX_AGE, MAX_KEPT, KeptSelections
from schemas.codec import GRANT_FILL_SIZE, encode
from schemas.messages import FileEntry, Response, Selection

ENTRIES = [FileEntry(f"/data/{number:05}", number, -number) for number in range(1_200)]


@pytest.fixture
def kept(tmp_path: Path) -> KeptSelections:
    return KeptSelections(tmp_path / "selections")


def keep(kept: KeptSelections, selection: str = "s1", entries: list[FileEntry] = ENTRIES) -> None:
    files = len(entries) + 50
    kept.keep(selection, Selection("job", selection, complete=True, files=files, bytes=9, left_out=50), entries)


def test_pages_are_read_by_offset(kept: KeptSelections) -> None:
    keep(kept)
    offset, read = 0, list[FileEntry]()
    while True:
        page = kept.page("s1", offset, 500)
        assert page is not None
        assert (page.offset, page.complete, page.files, page.left_out) == (offset, True, 1_250, 50)
        read += page.entries
        if page.next is None:
            break
        offset = page.next
    assert read == ENTRIES


def test_a_page_beyond_the_end_is_empty(kept: KeptSelections) -> None:
    keep(kept)
    page = kept.page("s1", 5_000, 500)
    assert page is not None
    assert (page.entries, page.next) == ((), None)


def test_an_empty_selection_has_one_empty_page(kept: KeptSelections) -> None:
    keep(kept, entries=[])
    page = kept.page("s1", 0, 500)
    assert page is not None
    assert (page.entries, page.next, page.files) == ((), None, 50)


def test_a_page_of_long_paths_fits_into_a_message(kept: KeptSelections) -> None:
    keep(kept, entries=[FileEntry("/" + "\x01" * 4_000 + str(number), 1, 1) for number in range(100)])
    page = kept.page("s1", 0, 500)
    assert page is not None
    assert page.next == len(page.entries) > 0
    assert len(encode(Response("m", "select_files", "success", page))) <= GRANT_FILL_SIZE


def test_a_selection_outlives_a_restart(kept: KeptSelections, tmp_path: Path) -> None:
    keep(kept)
    again = KeptSelections(tmp_path / "selections").page("s1", 1_199, 500)
    assert again is not None
    assert again.entries == (ENTRIES[-1],)


def test_the_latest_sixteen_are_kept(kept: KeptSelections, tmp_path: Path) -> None:
    for number in range(MAX_KEPT + 3):
        keep(kept, f"s{number}", ENTRIES[:1])
        made = time.time() - 100 + number
        os.utime(tmp_path / "selections" / f"s{number}.jsonl", (made, made))
    kept_files = {path.stem for path in (tmp_path / "selections").iterdir()}
    assert kept_files == {f"s{number}" for number in range(3, MAX_KEPT + 3)}


@pytest.mark.parametrize("age", [MAX_AGE + 60, -MAX_AGE - 60])
def test_an_old_selection_is_gone_and_so_is_one_of_the_future(tmp_path: Path, age: float) -> None:
    folder = tmp_path / "selections"
    keep(KeptSelections(folder))
    made = (folder / "s1.jsonl").stat().st_mtime
    later = KeptSelections(folder, wall=lambda: made + age)
    assert later.page("s1", 0, 500) is None
    assert KeptSelections(folder, wall=lambda: made + MAX_AGE / 2).page("s1", 0, 500) is not None
    later.keep("s2", Selection("job", "s2", complete=True), [])
    assert [path.name for path in folder.iterdir()] == ["s2.jsonl"]


@pytest.mark.parametrize("damage", ["cut", "head", "line", "empty", "foreign"])
def test_a_damaged_selection_is_gone(kept: KeptSelections, tmp_path: Path, damage: str) -> None:
    keep(kept)
    path = tmp_path / "selections" / "s1.jsonl"
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:200],
            "head": b"\xff" + data,
            "line": data.replace(b'"size":3,', b'"size":"3",'),
            "empty": b"",
            "foreign": data.replace(b'"s1"', b'"s9"'),
        }[damage]
    )
    assert kept.page("s1", 0, 500) is None


def test_what_a_crash_left_of_a_write_is_removed(kept: KeptSelections, tmp_path: Path) -> None:
    keep(kept)
    (tmp_path / "selections" / "s2.jsonl.new").write_bytes(b"{")
    keep(kept, "s3")
    assert {path.name for path in (tmp_path / "selections").iterdir()} == {"s1.jsonl", "s3.jsonl"}


def test_a_full_disk_leaves_no_half_of_a_selection(
    kept: KeptSelections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        keep(kept)
    assert list((tmp_path / "selections").iterdir()) == []


def test_the_folder_and_the_files_are_private(kept: KeptSelections, tmp_path: Path) -> None:
    keep(kept)
    folder = tmp_path / "selections"
    assert (folder.stat().st_mode & 0o777, (folder / "s1.jsonl").stat().st_mode & 0o777) == (0o700, 0o600)
    assert msgspec.json.decode((folder / "s1.jsonl").read_bytes().split(b"\n")[0])["selection"] == "s1"
