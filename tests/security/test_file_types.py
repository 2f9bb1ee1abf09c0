"""File types: a device may allow the files of some patterns, and nothing else.

Rule: what a type does not match is refused, also in the same folder, and no link below its folder is followed.
"""

from pathlib import Path

import pytest

from device_agent.errors import FileRefused
from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from device_agent.files.selecting import choose_files
from device_agent.files.source import open_source
from schemas.messages import ListFiles, SelectFiles
from schemas.values import ErrorCode, Pick


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("sales/a.csv", "sales/deep/b.csv", "sales/.c.csv", "sales/password", "secret/a.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "sales" / "link.csv").symlink_to(tmp_path / "secret" / "a.csv")
    (tmp_path / "sales" / "linked").symlink_to(tmp_path / "secret")
    return tmp_path


def types_only(folder: Path) -> Roots:
    return Roots(types={"sales": (f"{folder}/sales/**/*.csv", f"{folder}/gone/*")})


@pytest.mark.parametrize("name", ["sales/a.csv", "sales/deep/b.csv"])
def test_a_file_of_a_type_is_read(folder: Path, name: str) -> None:
    with open_source(f"{folder}/{name}", types_only(folder)) as source:
        assert source.size == len(name)


@pytest.mark.parametrize(
    "name",
    ["sales/password", "sales/.c.csv", "secret/a.csv", "sales/link.csv", "sales/linked/a.csv", "sales/../secret/a.csv"],
)
def test_another_file_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(FileRefused) as refused:
        open_source(f"{folder}/{name}", types_only(folder))
    assert refused.value.code is ErrorCode.PATH_NOT_ALLOWED


def test_a_selection_of_a_type_has_what_can_be_read_and_nothing_else(folder: Path) -> None:
    request = SelectFiles("job", type="sales", pick=Pick.PATH)
    chosen = choose_files(request, types_only(folder), now_ns=0, stopped=lambda: False)
    assert [entry.path for entry in chosen.entries()] == [f"{folder}/sales/a.csv", f"{folder}/sales/deep/b.csv"]


def test_paths_select_nothing_where_only_types_are_allowed(folder: Path) -> None:
    request = SelectFiles("job", (f"{folder}/sales/*",))
    with pytest.raises(FileRefused) as refused:
        choose_files(request, types_only(folder), now_ns=0, stopped=lambda: False)
    assert refused.value.code is ErrorCode.PATH_NOT_ALLOWED


def test_a_type_does_not_open_its_folder_for_listings(folder: Path) -> None:
    with pytest.raises(FileRefused) as refused:
        list_files(ListFiles(f"{folder}/sales/*"), types_only(folder))
    assert refused.value.code is ErrorCode.PATH_NOT_ALLOWED
