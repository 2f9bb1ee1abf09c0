"""The agent opens only regular files beneath its roots, even while another process swaps files and links.

Rule: each case on both ways of opening, openat2 and the walk for kernels without it. Nothing here may wait.
"""

import gc
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.errors import FileRefused
from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from device_agent.files.selecting import choose_files
from device_agent.files.source import open_source
from schemas.messages import FileEntry, ListFiles, SelectFiles
from schemas.values import ErrorCode

pytestmark = pytest.mark.usefixtures("way")

SECRET = b"secret"
RACE = 1.0
"""Seconds for which a racer swaps a folder and a link."""

MORE_THAN_A_PIPE_WOULD_WAIT = 30


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(SECRET)
    return outside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_bytes(b"ours")
    return root


def refusal(path: str | Path, root: Path) -> ErrorCode:
    with pytest.raises(FileRefused) as refused:
        open_source(str(path), Roots((str(root),)))
    return refused.value.code


def selected(pattern: str, roots: Roots) -> list[FileEntry]:
    request = SelectFiles("job", (pattern,))
    return list(choose_files(request, roots, now_ns=0, stopped=lambda: False).entries())


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


THINGS: dict[str, tuple[Callable[[Path], object], ErrorCode]] = {
    "nothing": (lambda path: None, ErrorCode.FILE_NOT_FOUND),
    "a folder": (lambda path: path.mkdir(), ErrorCode.NOT_A_FILE),
    "a pipe": (os.mkfifo, ErrorCode.NOT_A_FILE),
    "a socket": (make_socket, ErrorCode.NOT_A_FILE),
    "a link to a file": (lambda path: path.symlink_to("folder/file"), ErrorCode.PATH_NOT_ALLOWED),
    "a link to outside": (lambda path: path.symlink_to("../outside/file"), ErrorCode.PATH_NOT_ALLOWED),
    "an absolute link": (lambda path: path.symlink_to("/etc/passwd"), ErrorCode.PATH_NOT_ALLOWED),
    "a link to nothing": (lambda path: path.symlink_to("gone"), ErrorCode.PATH_NOT_ALLOWED),
    "a link to itself": (lambda path: path.symlink_to(path.name), ErrorCode.PATH_NOT_ALLOWED),
    "a magic link": (lambda path: path.symlink_to("/proc/self/fd/0"), ErrorCode.PATH_NOT_ALLOWED),
}


@pytest.mark.timeout(MORE_THAN_A_PIPE_WOULD_WAIT)
@pytest.mark.parametrize(("make", "code"), THINGS.values(), ids=THINGS.keys())
def test_only_regular_files_are_opened(
    root: Path, outside: Path, make: Callable[[Path], object], code: ErrorCode
) -> None:
    make(root / "thing")
    assert refusal(root / "thing", root) is code


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/dev/zero", ErrorCode.NOT_A_FILE),
        ("/dev/null", ErrorCode.NOT_A_FILE),
        ("/dev/stdin", ErrorCode.PATH_NOT_ALLOWED),
        ("/proc/self/mem", ErrorCode.PATH_NOT_ALLOWED),
        ("/proc/self/root/etc/passwd", ErrorCode.PATH_NOT_ALLOWED),
        ("/proc/{pid}/cwd/pyproject.toml", ErrorCode.PATH_NOT_ALLOWED),
        ("/proc/{pid}/fd/0", ErrorCode.PATH_NOT_ALLOWED),
        ("/proc", ErrorCode.NOT_A_FILE),
    ],
)
def test_devices_and_magic_links_are_not_opened_even_where_everything_is_allowed(path: str, code: ErrorCode) -> None:
    assert refusal(path.format(pid=os.getpid()), Path("/")) is code


@pytest.mark.parametrize(
    "path",
    [
        "",
        "relative",
        "root/folder/file",
        "{root}",
        "{root}/",
        "{root}/../outside/file",
        "{root}/folder/../../outside/file",
        "{root}/folder/../file",
        "{root}/./folder/file",
        "{root}//folder/file",
        "/{root}/folder/file",
        "{root}/folder/file/",
        "{root}-other/file",
        "{root}x",
        "{outside}/file",
        "/etc/passwd",
        "{root}/folder\0/file",
        "{root}/\udcff",
        "{root}/" + "x/" * 2100 + "x",
        "~root/file",
        "file://{root}/folder/file",
    ],
)
def test_a_path_with_special_components_is_refused(root: Path, outside: Path, path: str) -> None:
    (root / "folder" / "deep").mkdir()
    assert refusal(path.format(root=root, outside=outside), root) is ErrorCode.PATH_NOT_ALLOWED


def test_a_link_on_the_way_is_not_followed(root: Path, outside: Path) -> None:
    (root / "out").symlink_to("../outside")
    (root / "in").symlink_to("folder")
    assert refusal(root / "out" / "file", root) is ErrorCode.PATH_NOT_ALLOWED
    assert refusal(root / "in" / "file", root) is ErrorCode.PATH_NOT_ALLOWED
    assert refusal(root / "folder" / "file" / "x", root) is ErrorCode.FILE_NOT_FOUND
    assert refusal(root / "gone" / "file", root) is ErrorCode.FILE_NOT_FOUND
    assert refusal(root / ("n" * 300), root) is ErrorCode.FILE_NOT_FOUND


def test_a_file_deep_beneath_a_root_is_opened(root: Path) -> None:
    path = root.joinpath(*("d" * 20 for _ in range(30)), "ä ☂ file")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"deep")
    with open_source(str(path), Roots((str(root),))) as source:
        assert source.size == 4
        assert source.linked()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_forbidden_file_has_its_error_code(root: Path) -> None:
    (root / "folder" / "file").chmod(0o000)
    os.seteuid(65534)
    try:
        code = refusal(root / "folder" / "file", root)
    finally:
        os.seteuid(0)
    assert code is ErrorCode.PERMISSION_DENIED


def test_swapping_a_folder_and_a_link_gives_no_access(root: Path, outside: Path) -> None:
    """Renames are atomic, so at each moment `folder` is the real folder or a link to the outside."""
    folder, aside, link = root / "folder", root / "aside", root / "link"
    link.symlink_to(outside)
    done = threading.Event()

    def race() -> None:
        while not done.is_set():
            folder.rename(aside)
            link.rename(folder)
            folder.rename(link)
            aside.rename(folder)

    racer = threading.Thread(target=race)
    racer.start()
    roots, seen, refused = Roots((str(root),)), set[bytes](), 0
    until = time.monotonic() + RACE
    buffer = memoryview(bytearray(100))
    while time.monotonic() < until:
        try:
            with open_source(str(folder / "file"), roots) as source:
                seen.add(bytes(buffer[: source.read_into(buffer, 0)]))
            seen.update(b"listed" for entry in list_files(ListFiles(f"{root}/**/file"), roots).files if entry.size == 6)
            seen.update(b"selected" for entry in selected(f"{root}/**/file", roots) if entry.size == 6)
        except FileRefused:
            refused += 1
    done.set()
    racer.join()
    assert seen == {b"ours"}
    assert refused > 0


def test_no_descriptor_is_left_open(root: Path) -> None:
    descriptors = Path("/proc/self/fd")
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to("folder")
    # What earlier tests left to the collector would be closed in between.
    gc.collect()
    before = len(list(descriptors.iterdir()))
    for path in ("folder/file", "pipe", "link/file", "gone/file", "folder", "folder/file/x"):
        try:
            selected(f"{root}/**", Roots((str(root),)))
            open_source(f"{root}/{path}", Roots((str(root),))).close()
        except FileRefused:
            continue
    assert len(list(descriptors.iterdir())) <= before
