"""Listing files: the matches, their order, and the bounds of a page.

Rule: the expected result comes from pathlib's glob and a plain sort.
"""

import base64
import gc
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import FileRefused
from device_agent.files import listing
from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.messages import FileList, ListFiles
from schemas.values import DigestName, ErrorCode

FILES = (
    "a.log",
    "b.bin",
    ".hidden",
    "sub/a.log",
    "sub/deep/c.log",
    "sub-way/a.log",
    "sub/.git/d.log",
    "ümlaut ☂.log",
    "[x].log",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for name in FILES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "link.log").symlink_to("/etc/passwd")
    (root / "linked").symlink_to("/etc")
    (root / "empty").mkdir()
    os.mkfifo(root / "pipe.log")
    (root / os.fsdecode(b"\xff.log")).write_text("not UTF-8")
    return root


def pages(pattern: str, roots: Roots, *, limit: int = 100, digest: DigestName | None = None) -> Iterator[FileList]:
    cursor = None
    while True:
        page = list_files(ListFiles(pattern, limit, cursor, digest), roots)
        yield page
        cursor = page.cursor
        if cursor is None:
            return


def names(pattern: str, root: Path, *, limit: int = 100) -> list[str]:
    roots = Roots((str(root),))
    found = [entry.path for page in pages(f"{root}/{pattern}", roots, limit=limit) for entry in page.files]
    return [path.removeprefix(f"{root}/") for path in found]


def by_components(name: str) -> tuple[str, ...]:
    return tuple(name.split("/"))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.log", ["[x].log", "a.log", "ümlaut ☂.log", r"\xff.log"]),
        (r"\xff.log", [r"\xff.log"]),
        (r"\x*", [r"\xff.log"]),
        ("a.log", ["a.log"]),
        ("?.*", ["a.log", "b.bin"]),
        ("[[]x].log", ["[x].log"]),
        ("*/a.log", ["sub/a.log", "sub-way/a.log"]),
        ("**/a.log", ["a.log", "sub/a.log", "sub-way/a.log"]),
        ("**/*.log", ["[x].log", "a.log", "sub/a.log", "sub/deep/c.log", "sub-way/a.log", "ümlaut ☂.log", r"\xff.log"]),
        (
            "**",
            ["[x].log", "a.log", "b.bin", "sub/a.log", "sub/deep/c.log", "sub-way/a.log", "ümlaut ☂.log", r"\xff.log"],
        ),
        ("**/**/c.log", ["sub/deep/c.log"]),
        ("sub/**/*.log", ["sub/a.log", "sub/deep/c.log"]),
        (".h*", [".hidden"]),
        ("**/.git/*", ["sub/.git/d.log"]),
        ("linked/passwd", []),
        ("linked/*", []),
        ("link*", []),
        ("pipe*", []),
        ("nothing", []),
        ("sub", []),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_matching_files_are_listed_in_order(root: Path, pattern: str, expected: list[str], limit: int) -> None:
    assert names(pattern, root, limit=limit) == sorted(expected, key=by_components)


def test_an_entry_has_size_and_time(root: Path) -> None:
    [entry] = list_files(ListFiles(f"{root}/a.log"), Roots((str(root),))).files
    found = (root / "a.log").stat()
    assert (entry.size, entry.mtime_ns, entry.digest) == (found.st_size, found.st_mtime_ns, None)


def test_an_entry_has_a_digest_when_requested(root: Path) -> None:
    [entry] = list_files(ListFiles(f"{root}/a.log", digest=DigestName.SHA256), Roots((str(root),))).files
    assert entry.digest == base64.b64encode(hashlib.sha256(b"a.log").digest()).decode()


def test_a_page_digests_a_limited_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_DIGESTED", 100)
    for name, size in (("a", 60), ("b", 60), ("c", 101), ("d", 40)):
        (tmp_path / name).write_bytes(bytes(size))
    found = list(pages(f"{tmp_path}/*", Roots((str(tmp_path),)), digest=DigestName.MD5))
    assert [[Path(entry.path).name for entry in page.files] for page in found] == [["a"], ["b", "c", "d"]]
    assert [entry.digest is None for page in found for entry in page.files] == [False, False, True, False]


def test_a_page_fits_into_a_message(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"{number:03}-{'ü' * 100}\x01").touch()
    found = list(pages(f"{tmp_path}/*", Roots((str(tmp_path),)), limit=500))
    assert max(len(msgspec.json.encode(page)) for page in found) < MAX_MESSAGE_SIZE - 16 * 1024
    paths = [entry.path for page in found for entry in page.files]
    assert len(paths) == 600
    assert paths == sorted(paths)


def test_a_page_examines_a_limited_number_of_entries_and_the_next_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_EXAMINED", 7)
    monkeypatch.setattr(listing, "_BATCH", 3)
    wanted = []
    for folder in range(4):
        for number in range(5):
            path = tmp_path / f"d{folder}" / "inner" / f"{number}.{'log' if number == 3 else 'txt'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            wanted.append(str(path))
    found = list(pages(f"{tmp_path}/**/*", Roots((str(tmp_path),))))
    assert [entry.path for page in found for entry in page.files] == wanted
    assert len(found) > 3
    logs = [entry.path for page in pages(f"{tmp_path}/**/*.log", Roots((str(tmp_path),))) for entry in page.files]
    assert logs == [path for path in wanted if path.endswith(".log")]


def test_roots_are_listed_each_once_in_order(tmp_path: Path) -> None:
    for name in ("b/x.log", "a/x.log", "a/in/x.log", "a-b/x.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    roots = Roots(tuple(str(tmp_path / name) for name in ("b", "a", "a/in", "a-b")))
    for limit in (1, 2, 100):
        found = [entry.path for page in pages(f"{tmp_path}/**/*.log", roots, limit=limit) for entry in page.files]
        assert found == [str(tmp_path / name) for name in ("a/in/x.log", "a/x.log", "a-b/x.log", "b/x.log")]


def test_a_root_that_is_a_link_is_listed_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").touch()
    (tmp_path / "data").symlink_to("real")
    [entry] = list_files(ListFiles(f"{tmp_path}/data/*"), Roots((f"{tmp_path}/data",))).files
    assert entry.path == f"{tmp_path}/data/x"


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        ("/etc/*", ErrorCode.PATH_NOT_ALLOWED),
        ("relative/*", ErrorCode.PATH_NOT_ALLOWED),
        ("{root}/../*", ErrorCode.PATH_NOT_ALLOWED),
        ("{root}", ErrorCode.PATH_NOT_ALLOWED),
        ("{root}//x", ErrorCode.PATH_NOT_ALLOWED),
    ],
)
def test_a_pattern_that_leads_outside_is_refused(root: Path, pattern: str, code: ErrorCode) -> None:
    with pytest.raises(FileRefused) as refused:
        list_files(ListFiles(pattern.format(root=root)), Roots((str(root),)))
    assert refused.value.code is code


@pytest.mark.parametrize("cursor", ["", "x", "/a/../b", "/a\0"])
def test_a_foreign_cursor_is_refused(root: Path, cursor: str) -> None:
    with pytest.raises(FileRefused) as refused:
        list_files(ListFiles(f"{root}/*", cursor=cursor), Roots((str(root),)))
    assert refused.value.code is ErrorCode.BAD_REQUEST


def test_the_exact_file_is_listed_without_any_root(root: Path) -> None:
    """An agent with FILE_PATH alone: the listing shows its size."""
    roots = Roots(exact=f"{root}/b.bin")
    for pattern in (f"{root}/b.bin", f"{root}/*", "/**"):
        [entry] = list_files(ListFiles(pattern, digest=DigestName.MD5), roots).files
        assert (entry.path, entry.size) == (f"{root}/b.bin", len("b.bin"))
        assert entry.digest is not None
    with pytest.raises(FileRefused, match="ALLOWED_ROOTS"):
        list_files(ListFiles(f"{root}/a.log"), roots)


def test_a_missing_exact_file_gives_an_empty_list(root: Path) -> None:
    assert list_files(ListFiles(f"{root}/gone"), Roots(exact=f"{root}/gone")) == FileList()


@pytest.mark.parametrize("exact", ["a.log", "link", "sub/deep/c.log", "zzz"])
@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("looked_at", [5, 8, 100])
def test_the_exact_file_is_listed_once_at_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exact: str, limit: int, looked_at: int
) -> None:
    """At its position, whether a root holds the file, a link to it, or neither."""
    monkeypatch.setattr(listing, "MAX_EXAMINED", looked_at)
    site = tmp_path / "site"
    for name in FILES:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()
    (site / "link").symlink_to("b.bin")
    (tmp_path / "zzz").touch()
    file = tmp_path / "zzz" if exact == "zzz" else site / exact
    roots = Roots((str(site),), str(file))
    found = [entry.path for page in pages(f"{tmp_path}/**", roots, limit=limit) for entry in page.files]
    visible = {str(site / name) for name in FILES if "/." not in f"/{name}"}
    assert found == sorted({*visible, str(file)}, key=by_components)


def test_no_roots_means_no_files() -> None:
    with pytest.raises(FileRefused):
        list_files(ListFiles("/**"), Roots())


@given(cursor=st.sampled_from((*FILES, "a", "sub", "sub/deep", "sub/zzz", "zzz")))
def test_a_cursor_splits_the_list_in_two(root: Path, cursor: str) -> None:
    after = list_files(ListFiles(f"{root}/**", cursor=f"{root}/{cursor}"), Roots((str(root),))).files
    later = [name for name in names("**", root) if by_components(name) > by_components(cursor)]
    assert [entry.path.removeprefix(f"{root}/") for entry in after] == later


def test_no_descriptor_is_left_open(root: Path) -> None:
    # What earlier tests left to the collector would be closed in between.
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a count)
    names("**/*.log", root, limit=1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.bin", rb"\xff.bin", b"ab\x80/c\\\xff", b"line\nfeed\x1b", "ä".encode("latin-1")]
)
def test_every_name_is_listed_and_can_be_fetched_by_what_is_listed(tmp_path: Path, name: bytes) -> None:
    """The kind: a name that a message cannot hold, left out of the page."""
    path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118 (bytes)
    Path(os.fsdecode(path)).parent.mkdir(exist_ok=True)
    Path(os.fsdecode(path)).write_bytes(name)
    roots = Roots((str(tmp_path),))
    [entry] = list_files(ListFiles(f"{tmp_path}/**", digest=DigestName.SHA256), roots).files
    assert entry.digest == base64.b64encode(hashlib.sha256(name).digest()).decode()
    with open_source(entry.path, roots) as source:
        assert source.size == len(name)
        assert source.linked()
        assert not source.gone()
    [again] = list_files(ListFiles(entry.path), Roots(exact=os.fsdecode(path))).files
    assert again.path == entry.path


def test_a_root_that_is_not_utf8_is_listed_and_read(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    root.mkdir()
    (root / "file").touch()
    roots = Roots((str(root),))
    [entry] = list_files(ListFiles(f"{tmp_path}/**"), roots).files
    assert entry.path == f"{tmp_path}/\\xff/file"
    open_source(entry.path, roots).close()


# The kind: work that grows faster than what a request asks for.


def test_repeated_wildcards_cost_no_more_than_one(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}").touch()
    began = time.thread_time()
    page = list_files(ListFiles(f"{tmp_path}/" + "**/" * 1000 + "*", 500), Roots((str(tmp_path),)))
    assert len(page.files) == 300
    # Without the collapse it takes more than half a minute.
    assert time.thread_time() - began < 5


def test_a_pattern_has_a_limited_number_of_components(tmp_path: Path) -> None:
    with pytest.raises(FileRefused) as refused:
        list_files(ListFiles(f"{tmp_path}/" + "**/a/" * 40 + "*"), Roots((str(tmp_path),)))
    assert refused.value.code is ErrorCode.BAD_REQUEST


def test_a_page_ends_at_its_processor_time_and_the_next_one_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_CPU", 0.0)
    for number in range(600):
        (tmp_path / f"{number:03}").touch()
    found = list(pages(f"{tmp_path}/*", Roots((str(tmp_path),)), limit=500))
    assert len(found) == 3
    assert [Path(entry.path).name for page in found for entry in page.files] == [f"{n:03}" for n in range(600)]


def test_names_that_do_not_match_cost_one_reading_of_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names were sorted in batches before they were matched: a large folder was read once for each batch."""
    monkeypatch.setattr(listing, "_BATCH", 3)
    for number in range(50):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "a.log").touch()
    scandir, read = os.scandir, list[int]()

    def counted(folder: int) -> Any:  # noqa: ANN401 (an iterator of entries)
        read.append(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", counted)
    [entry] = list_files(ListFiles(f"{tmp_path}/*.log"), Roots((str(tmp_path),))).files
    assert (entry.path, len(read)) == (f"{tmp_path}/a.log", 1)


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_folders_are_listed_before_what_is_in_them(root: Path, limit: int) -> None:
    cursor, found = None, list[tuple[str, bool]]()
    while cursor is not None or not found:
        page = list_files(ListFiles(f"{root}/**/*", limit, cursor, folders=True), Roots((str(root),)))
        found += [(entry.path.removeprefix(f"{root}/"), entry.folder) for entry in page.files]
        cursor = page.cursor
    plain = [name for name, folder in found if not folder]
    assert plain == names("**/*", root)
    assert [name for name, folder in found if folder] == ["empty", "sub", "sub/deep", "sub-way"]
    assert sorted(found, key=lambda entry: by_components(entry[0])) == found


def test_a_folder_has_no_digest(root: Path) -> None:
    [entry] = list_files(ListFiles(f"{root}/empty", digest=DigestName.MD5, folders=True), Roots((str(root),))).files
    assert (entry.folder, entry.size, entry.digest) == (True, 0, None)


def test_a_refused_pattern_names_the_roots(root: Path) -> None:
    with pytest.raises(FileRefused, match=f"inside ALLOWED_ROOTS of this device: {root}"):
        list_files(ListFiles("/etc/*"), Roots((str(root),)))
