"""The selections of simulated devices: what matches, in which order, and pages of one content."""

import pytest
from msgspec.structs import replace

from control_plane.cli.simulate.file import files_of
from control_plane.cli.simulate.selections import Selections
from schemas.messages import FileEntry, SelectFiles
from schemas.values import Pick

NOW = 1_000_000.0
FILES = [FileEntry(f"/data/{number}.log", 10 * number, int((NOW - 60 * number) * 1e9)) for number in range(1, 6)]
WANTED = SelectFiles(job_id="j", paths=("/data/*.log",))


def picked(wanted: SelectFiles) -> list[str]:
    return [one.path[6:7] for one in Selections().answer("m", wanted, FILES, NOW).entries]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "12345"),
        ({"pick": Pick.OLDEST}, "54321"),
        ({"pick": Pick.LARGEST, "max_files": 2}, "54"),
        ({"exclude": ("2.log", "/data/3*")}, "145"),
        ({"newer_than": 120.0}, "12"),
        ({"older_than": 180.0, "max_size": 40}, "34"),
        ({"min_size": 50}, "5"),
        ({"paths": ("/other/**/*.log",)}, ""),
        ({"paths": ("/data/**/*.log",)}, "12345"),
    ],
)
def test_the_files_that_match_come_in_the_order_of_pick(changes: dict[str, object], expected: str) -> None:
    assert picked(replace(WANTED, **changes)) == list(expected)


def test_pages_are_of_one_content_while_the_files_change() -> None:
    selections = Selections()
    first = selections.answer("m1", replace(WANTED, limit=2, max_files=3), FILES, NOW)
    assert (first.selection, first.files, first.left_out, first.next) == ("m1", 5, 2, 2)
    second = selections.answer("m2", replace(WANTED, limit=2, max_files=3, selection="m1", offset=2), [], NOW)
    assert (second.selection, second.offset, second.entries, second.next) == ("m1", 2, (FILES[2],), None)


def test_a_selection_that_is_gone_is_made_again_from_its_beginning() -> None:
    again = Selections().answer("m9", replace(WANTED, selection="gone", offset=4), FILES, NOW)
    assert (again.selection, again.offset, len(again.entries)) == ("m9", 0, 5)


def test_the_first_of_several_files_is_the_default_file() -> None:
    files = files_of(3, 100)
    assert list(files) == ["/simulated/file.bin", "/simulated/file-2.bin", "/simulated/file-3.bin"]
    assert len({one.mtime_ns for one in files.values()}) == 3
