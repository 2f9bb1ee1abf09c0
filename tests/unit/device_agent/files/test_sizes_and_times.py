"""A size and a time come from the file system; a read, or a second one, shows whether they are right.

The kind: a file below /proc has the size 0, one below /sys the size of a page, and a file system with whole
seconds hides a change within one of them. Each way to read a file is tried: parts, a copy, a listing.
"""

import base64
import gzip
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import pytest

from device_agent.errors import FileRefused
from device_agent.files import source as source_module
from device_agent.files.copies import Copies
from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from device_agent.files.source import Source, open_source
from device_agent.transfer.events import Opened, OpenRefused
from device_agent.workers.part_io import IoEvent, PartIO, SourceSession
from schemas.messages import ListFiles
from schemas.values import DigestName, ErrorCode, Fingerprint, UploadOptions
from tests.unit.device_agent.device import order

PROC: Final = Path("/proc/cpuinfo")
SYS: Final = Path("/sys/class/net/lo/mtu")
WITHOUT_SIZE: Final = [
    pytest.param(path, marks=pytest.mark.skipif(not path.exists(), reason=f"{path} does not exist here"))
    for path in (PROC, SYS)
]
OLD: Final = 1_700_000_000


def never() -> bool:
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)) * 40)
    return path


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file changed in this second, and every change of this test is within it."""
    examined = source_module._fingerprint

    def whole_seconds(found: os.stat_result) -> object:
        second = OLD * 1_000_000_000
        return Fingerprint(examined(found).size, second, second, found.st_dev, found.st_ino)

    monkeypatch.setattr(source_module, "_fingerprint", whole_seconds)
    monkeypatch.setattr(time, "time_ns", lambda: OLD * 1_000_000_000 + 500)


def copies_of(tmp_path: Path, *roots: Path, max_bytes: int = 2**40, max_percent: int = 100) -> Copies:
    allowed = Roots(tuple(map(str, roots)))
    return Copies(tmp_path / "spool", allowed, max_bytes=max_bytes, max_percent=max_percent)


def whole(source: Source) -> bytes:
    view = memoryview(bytearray(source.size))
    assert source.read_into(view, 0) == source.size
    return bytes(view)


@pytest.mark.parametrize("path", WITHOUT_SIZE)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_file_without_its_size_is_copied_to_its_end(tmp_path: Path, path: Path, compression: str) -> None:
    about = order(file_path=str(path), options=UploadOptions(compression=compression))  # type: ignore[arg-type]
    with copies_of(tmp_path, path.parent).open(about, never) as source:
        content = whole(source)
    content = gzip.decompress(content) if compression == "gzip" else content
    assert len(content) == len(path.read_bytes()) > 0
    assert content.splitlines()[0] == path.read_bytes().splitlines()[0]


def test_the_copy_of_a_file_without_its_size_is_found_again_and_discarded(tmp_path: Path) -> None:
    copies, about = copies_of(tmp_path, PROC.parent), order(file_path=str(PROC))
    prints = set()
    for _ in range(2):
        with copies.open(about, never) as source:
            prints.add(source.fingerprint)
    assert len(prints) == 1
    assert [one.name for one in (tmp_path / "spool").iterdir()] == ["u1.1.copy"]
    copies.discard(about)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_file_with_its_size_is_not_copied(tmp_path: Path, path: Path) -> None:
    with copies_of(tmp_path, path.parent).open(order(file_path=str(path)), never) as source:
        assert (source.path, source.size) == (str(path), 10_240)
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("content", [b"", b"x", b"0123456789"])
def test_a_size_is_right_when_exactly_so_many_bytes_can_be_read(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with open_source(str(path), Roots((str(path.parent),))) as source:
        sizes = [size for size in range(12) if source.ends_at(size)]
        assert (sizes, source.has_its_size()) == ([len(content)], True)


def test_a_file_that_grew_while_it_was_opened_is_not_copied(path: Path) -> None:
    with open_source(str(path), Roots((str(path.parent),))) as source:
        with path.open("ab") as file:
            file.write(b"more")
        assert (source.has_its_size(), source.size) == (True, 10_244)


def test_a_listing_has_no_digest_of_a_file_without_its_size() -> None:
    roots = Roots((str(PROC.parent),))
    [entry] = list_files(ListFiles(str(PROC), digest=DigestName.MD5), roots).files
    assert (entry.size, entry.digest) == (0, None)


def rewriting(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """After the first read of the file its bytes are rewritten in place."""
    read, first = Source.read_into, [True]

    def read_and_rewrite(self: Source, buffer: memoryview, offset: int) -> int:
        count = read(self, buffer, offset)
        if len(buffer) > 2 and first:
            first.clear()
            with path.open("r+b") as file:
                file.write(b"other")
        return count

    monkeypatch.setattr(Source, "read_into", read_and_rewrite)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("on_change", ["fail", "prefix"])
def test_a_file_rewritten_within_a_second_makes_no_torn_copy(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, on_change: str
) -> None:
    rewriting(monkeypatch, path)
    options = UploadOptions(compression="gzip", on_change=on_change)  # type: ignore[arg-type]
    with pytest.raises(FileRefused) as refused:
        copies_of(tmp_path, path.parent).open(order(file_path=str(path), options=options), never)
    assert refused.value.code is ErrorCode.SOURCE_CHANGED
    assert list((tmp_path / "spool").iterdir()) == []


def test_under_prefix_a_file_rewritten_while_it_is_copied_makes_no_torn_copy(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewriting(monkeypatch, path)
    options = UploadOptions(compression="gzip", on_change="prefix")
    with pytest.raises(FileRefused) as refused:
        copies_of(tmp_path, path.parent).open(order(file_path=str(path), options=options), never)
    assert refused.value.code is ErrorCode.SOURCE_CHANGED


@pytest.mark.parametrize("on_change", ["fail", "prefix"])
def test_a_change_of_metadata_or_growth_spoils_no_copy(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, on_change: str
) -> None:
    content = path.read_bytes()
    require_room = Copies._require_room

    def change(self: Copies) -> None:
        require_room(self)
        path.chmod(0o600)
        if on_change == "prefix":
            with path.open("ab") as file:
                file.write(b"more")

    monkeypatch.setattr(Copies, "_require_room", change)
    options = UploadOptions(compression="gzip", on_change=on_change)  # type: ignore[arg-type]
    about = order(file_path=str(path), options=options)
    with copies_of(tmp_path, path.parent).open(about, never) as source:
        assert gzip.decompress(whole(source)) == content


@pytest.mark.usefixtures("coarse")
def test_a_listing_has_no_digest_of_a_file_rewritten_within_a_second(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots, request = Roots((str(path.parent),)), ListFiles(str(path), digest=DigestName.MD5)
    expected = base64.b64encode(hashlib.md5(path.read_bytes(), usedforsecurity=False).digest()).decode()
    assert list_files(request, roots).files[0].digest == expected
    rewriting(monkeypatch, path)
    assert list_files(request, roots).files[0].digest is None


def opened(io: PartIO, session: SourceSession, **changes: object) -> Opened | OpenRefused:
    posted: list[IoEvent] = []
    io.open(order(**changes), session, posted.append)
    [event] = posted
    assert isinstance(event, Opened | OpenRefused)
    session.stopped.set()
    session.close()
    return event


class Waits:
    """Takes the place of the event of a session; `on_wait` happens during each wait."""

    def __init__(self, on_wait: Callable[[], object]) -> None:
        self.waited: list[float] = []
        self._on_wait = on_wait

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self._on_wait()

    def is_set(self) -> bool:
        return False

    def set(self) -> None:
        """The session ends."""


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize(
    ("changes", "rewritten", "waited", "racy"),
    [
        ({}, False, [], True),
        ({"digest": DigestName.NONE}, False, [2.0], False),
        ({"pregranted": True}, False, [2.0], False),
        ({"digest": DigestName.NONE}, True, [2.0, 2.0, 2.0], True),
    ],
)
def test_without_digests_a_file_is_read_when_its_times_show_every_later_change(
    tmp_path: Path,
    path: Path,
    changes: dict[str, Any],
    *,
    rewritten: bool,
    waited: list[float],
    racy: bool,
) -> None:
    def grow() -> None:
        if rewritten:
            with path.open("ab") as file:
                file.write(b"more")

    waits = Waits(grow)
    session = SourceSession(stopped=cast("Any", waits))
    io = PartIO(cast("Any", None), copies_of(tmp_path, path.parent), clock=lambda: 1.0)
    event = opened(io, session, file_path=str(path), **changes)
    assert isinstance(event, Opened)
    assert (waits.waited, event.racy) == (waited, racy)


def test_an_old_file_is_neither_racy_nor_waited_for(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = path.stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: found + 10**10)
    waits = Waits(lambda: None)
    io = PartIO(cast("Any", None), copies_of(tmp_path, path.parent), clock=lambda: 1.0)
    event = opened(io, SourceSession(stopped=cast("Any", waits)), file_path=str(path), digest=DigestName.NONE)
    assert isinstance(event, Opened)
    assert (waits.waited, event.racy) == ([], False)


def test_a_copy_is_never_racy(tmp_path: Path, path: Path) -> None:
    options = UploadOptions(compression="gzip")
    with copies_of(tmp_path, path.parent).open(order(file_path=str(path), options=options), never) as source:
        assert not source.racy


@pytest.mark.parametrize(
    ("quota", "fits"),
    [({"max_bytes": 0}, False), ({"max_percent": 0}, False), ({"max_bytes": 9_999}, False), ({}, True)],
)
def test_copies_keep_within_their_quota(tmp_path: Path, path: Path, quota: dict[str, int], *, fits: bool) -> None:
    """The kind: a bound that only the whole disk sets. A copy of another upload counts too."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "other.1.gz").write_bytes(bytes(10_000))
    about = order(file_path=str(path), options=UploadOptions(compression="gzip"))
    copies = copies_of(tmp_path, path.parent, **quota)
    if fits:
        copies.open(about, never).close()
        return
    with pytest.raises(FileRefused, match="SPOOL_MAX_BYTES, SPOOL_MAX_PERCENT") as refused:
        copies.open(about, never)
    assert refused.value.code is ErrorCode.NO_SPACE
    assert [one.name for one in (tmp_path / "spool").iterdir()] == ["other.1.gz"]


def test_an_endless_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "read_into", lambda _self, buffer, _offset: len(buffer))
    with pytest.raises(FileRefused) as refused:
        copies_of(tmp_path, PROC.parent, max_bytes=1_000_000).open(order(file_path=str(PROC)), never)
    assert refused.value.code is ErrorCode.NO_SPACE
