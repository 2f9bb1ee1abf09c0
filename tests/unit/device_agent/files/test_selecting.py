"""Selecting files: which match, which stay when there are too many, and the totals.

Rule: the expected result comes from `list_files` and a plain sort of everything.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import FileRefused
from device_agent.files import selecting
from device_agent.files.listing import list_files
from device_agent.files.own_files import OwnFiles
from device_agent.files.roots import Roots
from device_agent.files.selecting import Chosen, choose_files
from schemas.messages import FileEntry, ListFiles, SelectFiles
from schemas.values import ErrorCode, Pick

NOW = 1_000_000
"""Seconds of the clock."""

FILES = {
    "a.csv": (10, 100),
    "b.csv": (30, 300),
    "c.log": (20, 200),
    ".hidden.csv": (1, 1),
    "sub/d.csv": (20, 100),
    "sub/deep/e.csv": (10, 50),
    "sub/.git/f.csv": (5, 5),
    "sub-way/g.csv": (0, 400),
    "cache/h.csv": (40, 10),
    "cache/sub/i.csv": (50, 20),
}
"""Size in bytes and age in seconds, by name."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for name, (size, age) in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (NOW - age, NOW - age))
    (root / "link.csv").symlink_to("/etc/passwd")
    (root / "linked").symlink_to("/etc")
    os.mkfifo(root / "pipe.csv")
    return root


def choose(root: Path, *, roots: Roots | None = None, **changes: Any) -> Chosen:  # noqa: ANN401
    changes = {"paths": () if "type" in changes else (f"{root}/**/*.csv",), **changes}
    request = SelectFiles(job_id="j", **changes)
    return choose_files(request, roots or Roots((str(root),)), now_ns=NOW * 10**9, stopped=lambda: False)


def names(chosen: Chosen, root: Path) -> list[str]:
    return [entry.path.removeprefix(f"{root}/") for entry in chosen.entries()]


CSV = ["a.csv", "b.csv", "cache/h.csv", "cache/sub/i.csv", "sub/d.csv", "sub/deep/e.csv", "sub-way/g.csv"]


def test_it_selects_what_is_listed(root: Path) -> None:
    listed = list_files(ListFiles(f"{root}/**/*.csv", 500), Roots((str(root),))).files
    assert [entry.path.removeprefix(f"{root}/") for entry in listed] == CSV
    chosen = choose(root, pick=Pick.PATH)
    assert tuple(chosen.entries()) == listed
    assert (chosen.files, chosen.bytes, chosen.left_out) == (7, sum(FILES[name][0] for name in CSV), 0)


@pytest.mark.parametrize(
    ("pick", "first"),
    [
        (Pick.NEWEST, ["cache/h.csv", "cache/sub/i.csv", "sub/deep/e.csv", "a.csv"]),
        (Pick.OLDEST, ["sub-way/g.csv", "b.csv", "a.csv", "sub/d.csv"]),
        (Pick.LARGEST, ["cache/sub/i.csv", "cache/h.csv", "b.csv", "sub/d.csv"]),
        (Pick.SMALLEST, ["sub-way/g.csv", "a.csv", "sub/deep/e.csv", "sub/d.csv"]),
        (Pick.PATH, CSV[:4]),
    ],
)
def test_the_first_ones_in_the_order_of_pick_stay(root: Path, pick: Pick, first: list[str]) -> None:
    chosen = choose(root, pick=pick, max_files=4)
    assert names(chosen, root) == first
    assert (chosen.files, chosen.left_out) == (7, 3)


@pytest.mark.parametrize(
    ("changes", "selected"),
    [
        ({"newer_than": 100.0}, ["a.csv", "cache/h.csv", "cache/sub/i.csv", "sub/d.csv", "sub/deep/e.csv"]),
        ({"older_than": 100.0}, ["a.csv", "b.csv", "sub/d.csv", "sub-way/g.csv"]),
        ({"older_than": 60.0, "newer_than": 299.5}, ["a.csv", "sub/d.csv"]),
        ({"min_size": 30}, ["b.csv", "cache/h.csv", "cache/sub/i.csv"]),
        ({"max_size": 10}, ["a.csv", "sub/deep/e.csv", "sub-way/g.csv"]),
        ({"max_size": 0}, ["sub-way/g.csv"]),
        ({"exclude": ("cache",)}, ["a.csv", "b.csv", "sub/d.csv", "sub/deep/e.csv", "sub-way/g.csv"]),
        ({"exclude": ("**/[a-d].csv", "deep")}, ["cache/h.csv", "cache/sub/i.csv", "sub-way/g.csv"]),
    ],
)
def test_age_size_and_exclusions_choose(root: Path, changes: dict[str, Any], selected: list[str]) -> None:
    chosen = choose(root, pick=Pick.PATH, **changes)
    assert names(chosen, root) == selected
    assert chosen.files == len(selected)


def test_an_absolute_exclusion_names_one_folder(root: Path) -> None:
    assert "sub/d.csv" in names(choose(root, exclude=(f"{root}/cache/sub",)), root)
    assert "cache/sub/i.csv" not in names(choose(root, exclude=(f"{root}/cache/sub",)), root)
    assert choose(root, exclude=(f"{root}",)).files == 0


def test_several_paths_select_each_file_once(root: Path) -> None:
    roots = Roots((str(root), f"{root}/sub", f"{root}/cache"), f"{root}/a.csv")
    chosen = choose(root, roots=roots, paths=(f"{root}/*.csv", f"{root}/a*", f"{root}/sub/*"), pick=Pick.PATH)
    assert names(chosen, root) == ["a.csv", "b.csv", "sub/d.csv"]


def test_the_default_file_is_selected_where_no_root_holds_it(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.csv"
    link.symlink_to(root / "a.csv")
    roots = Roots((str(root),), str(link))
    assert [entry.path for entry in choose(root, roots=roots, paths=(str(link),)).entries()] == [str(link)]
    assert choose(root, roots=roots, paths=(str(link),), exclude=("latest.csv",)).files == 0


def test_a_type_selects_what_the_device_configures(root: Path) -> None:
    roots = Roots(types={"sales": (f"{root}/sub/**/*.csv", f"{root}/c*.log", f"{root}/sub/d.csv")})
    chosen = choose(root, roots=roots, type="sales", pick=Pick.PATH)
    assert names(chosen, root) == ["c.log", "sub/d.csv", "sub/deep/e.csv"]


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"paths": ("{root}/*", "/etc/*")}, ErrorCode.PATH_NOT_ALLOWED, "'/etc/.*device: {root}"),
        ({"paths": ("data/*",)}, ErrorCode.PATH_NOT_ALLOWED, "must be absolute"),
        ({"paths": ("{root}/../*",)}, ErrorCode.PATH_NOT_ALLOWED, "without"),
        ({"paths": ("{root}" + "/**/a" * 40,)}, ErrorCode.BAD_REQUEST, "components"),
        ({"exclude": ("a//b",)}, ErrorCode.BAD_REQUEST, "exclude: "),
        ({"type": "sales"}, ErrorCode.PATH_NOT_ALLOWED, "no file type 'sales'; it has none"),
        ({"paths": ()}, ErrorCode.BAD_REQUEST, "either paths or a type"),
        ({"paths": ("{root}/*",), "type": "sales"}, ErrorCode.BAD_REQUEST, "either paths or a type"),
    ],
)
def test_a_wrong_request_has_one_clear_error(root: Path, changes: dict[str, Any], code: ErrorCode, text: str) -> None:
    if "paths" in changes:
        changes["paths"] = tuple(path.replace("{root}", str(root)) for path in changes["paths"])
    with pytest.raises(FileRefused, match=text.replace("{root}", str(root))) as refused:
        choose(root, **changes)
    assert refused.value.code is code


def test_the_files_of_the_agent_are_never_selected(tmp_path: Path) -> None:
    for name in ("state/journal", "data", "own.env"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "hard").hardlink_to(tmp_path / "own.env")
    roots = Roots((str(tmp_path),), own=OwnFiles(tmp_path / "state", (tmp_path / "own.env",)))
    assert names(choose(tmp_path, roots=roots, paths=(f"{tmp_path}/**",)), tmp_path) == ["data"]


def test_a_root_that_is_gone_selects_nothing_and_the_other_roots_are_read(root: Path, tmp_path: Path) -> None:
    roots = Roots((str(root), f"{tmp_path}/gone"))
    assert choose(root, roots=roots, paths=(f"{root}/*.csv", f"{tmp_path}/gone/*")).files == 2


def test_names_that_are_not_utf_8_are_spelled(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.csv")).write_text("x")
    assert names(choose(tmp_path), tmp_path) == [r"\xff.csv"]


def test_a_walk_that_is_stopped_ends_with_an_error(root: Path) -> None:
    request = SelectFiles("j", (f"{root}/**",))
    with pytest.raises(FileRefused, match="the agent stops"):
        choose_files(request, Roots((str(root),)), now_ns=0, stopped=lambda: True)


found = st.lists(
    st.tuples(
        st.lists(st.text("a\x01é-", min_size=1, max_size=3), min_size=1, max_size=3).map(
            lambda parts: "/" + "/".join(parts)
        ),
        st.integers(0, 9),
        st.integers(-9, 9),
    ),
    unique_by=lambda one: one[0],
    max_size=60,
)
ORDERS: dict[Pick, Callable[[FileEntry], int]] = {
    Pick.NEWEST: lambda entry: -entry.mtime_ns,
    Pick.OLDEST: lambda entry: entry.mtime_ns,
    Pick.LARGEST: lambda entry: -entry.size,
    Pick.SMALLEST: lambda entry: entry.size,
    Pick.PATH: lambda entry: 0,
}


@given(files=found, pick=st.sampled_from(Pick), most=st.integers(1, 8), room=st.integers(20, 200))
def test_the_bounded_selection_is_the_beginning_of_the_whole_order(
    files: list[tuple[str, int, int]], pick: Pick, most: int, room: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selecting, "MAX_PATH_BYTES", room)
        best = selecting._Best(SelectFiles("j", ("/*",), pick=pick, max_files=most), 0)
        for path, size, mtime in files:
            best.add(path, size, mtime)
        chosen = best.chosen()
    entries = [FileEntry(path, size, mtime) for path, size, mtime in files]
    entries.sort(key=lambda entry: (ORDERS[pick](entry), tuple(entry.path.split("/"))))
    kept = [
        entry
        for number, entry in enumerate(entries[:most], 1)
        if sum(len(one.path.encode()) for one in entries[:number]) <= room
    ]
    assert list(chosen.entries()) == kept
    assert (chosen.files, chosen.left_out) == (len(files), len(files) - len(kept))


MEMORY = """
import itertools, os, resource, sys
from device_agent.files import selecting
from device_agent.files.roots import Roots
from schemas.messages import SelectFiles

count, folder = int(sys.argv[1]), sys.argv[2]
names = ((f"{number:032}.csv", False) for number in range(count))
one = os.stat(os.__file__)
roots, real = Roots((folder,)), os.stat
selecting._batches = lambda _: iter(lambda: list(itertools.islice(names, 256)), [])
os.stat = lambda name, **named: one if "dir_fd" in named else real(name, **named)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
chosen = selecting.choose_files(SelectFiles("j", (folder + "/**",)), roots, now_ns=0, stopped=lambda: False)
assert (chosen.files, len(chosen.kept)) == (count, 10_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_hundred_thousand_files_take_no_memory_each(tmp_path: Path) -> None:
    """In a process of its own, whose memory only the walk makes larger. A million: `python -m benchmarks selection`."""
    run = [sys.executable, "-c", MEMORY, "100000", str(tmp_path)]
    grown = subprocess.run(run, check=True, capture_output=True, text=True, timeout=60)
    assert int(grown.stdout) < 8 * 1024, "KiB: all names alone would take more"
