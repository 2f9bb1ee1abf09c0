"""An open file: its fingerprint, its bytes, and the detection of changes."""

import base64
import hashlib
import os
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import FileRefused, SettingsError
from device_agent.files import source as source_module
from device_agent.files.roots import Roots, beneath, require_plain
from device_agent.files.source import Source, open_source
from schemas.values import DigestName, ErrorCode

CONTENT = os.urandom(700_001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots((str(tmp_path),))


def refusal(path: str | Path, roots: Roots) -> ErrorCode:
    with pytest.raises(FileRefused) as refused:
        open_source(str(path), roots)
    return refused.value.code


def read(source: Source, offset: int, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    return bytes(buffer[: source.read_into(buffer, offset)])


def test_the_fingerprint_is_that_of_the_file_system(path: Path, roots: Roots) -> None:
    found = path.stat()
    with open_source(str(path), roots) as source:
        mark = source.fingerprint
        assert (mark.size, mark.mtime_ns, mark.ctime_ns) == (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        assert (mark.device, mark.inode) == (found.st_dev, found.st_ino)
        assert source.now() == mark
        assert (source.path, source.size) == (str(path), len(CONTENT))


def test_reads_are_short_only_at_the_end(path: Path, roots: Roots) -> None:
    with open_source(str(path), roots) as source:
        assert read(source, 5, 300_000) == CONTENT[5:300_005]
        assert read(source, len(CONTENT) - 3, 100) == CONTENT[-3:]
        assert read(source, len(CONTENT) + 1, 100) == b""


@pytest.mark.parametrize(("offset", "size"), [(0, 700_001), (1, 262_144), (17, 262_145), (3, 1), (5, 0)])
def test_digests_have_the_format_of_the_header(path: Path, roots: Roots, offset: int, size: int) -> None:
    data = CONTENT[offset : offset + size]
    raw = {
        DigestName.MD5: hashlib.md5(data, usedforsecurity=False).digest(),
        DigestName.SHA256: hashlib.sha256(data).digest(),
        DigestName.CRC32: zlib.crc32(data).to_bytes(4, "big"),
    }
    with open_source(str(path), roots) as source:
        for name, digest in raw.items():
            assert source.digest(offset, size, name) == base64.b64encode(digest).decode()
        assert source.digest(offset, size, DigestName.NONE) is None


def test_a_digest_beyond_the_end_reports_a_changed_file(path: Path, roots: Roots) -> None:
    with open_source(str(path), roots) as source:
        os.truncate(path, 10)
        with pytest.raises(FileRefused) as refused:
            source.digest(0, len(CONTENT), DigestName.MD5)
    assert refused.value.code is ErrorCode.SOURCE_CHANGED


def test_a_change_with_a_restored_mtime_is_detected(path: Path, roots: Roots) -> None:
    with open_source(str(path), roots) as source:
        before = source.now()
        with path.open("r+b") as writer:
            writer.write(b"x")
        os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
        assert source.now().mtime_ns == before.mtime_ns
        assert source.now() != before


def test_linked_compares_the_path_with_the_open_file(path: Path, roots: Roots) -> None:
    with open_source(str(path), roots) as source:
        assert source.linked()
        path.rename(path.with_name("moved"))
        assert not source.linked()
        path.write_bytes(CONTENT)
        assert not source.linked()
        path.with_name("moved").replace(path)
        assert source.linked()
        path.unlink()
        assert not source.linked()
        assert read(source, 0, 5) == CONTENT[:5]


def test_a_closed_source_refuses_reads(path: Path, roots: Roots) -> None:
    source = open_source(str(path), roots)
    source.close()
    source.close()
    for use in (source.now, lambda: read(source, 0, 1), lambda: source.digest(0, 1, DigestName.MD5)):
        with pytest.raises(FileRefused):
            use()


def test_closing_waits_for_a_running_read(path: Path, roots: Roots) -> None:
    """Otherwise the number of the descriptor could belong to another file before the read."""
    source = open_source(str(path), roots)
    with source._using() as descriptor:
        source.close()
        assert os.pread(descriptor, 3, 0) == CONTENT[:3]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_many_threads_read_one_file(path: Path, roots: Roots) -> None:
    wrong: list[int] = []
    with open_source(str(path), roots) as source:

        def check(first: int) -> None:
            offsets = range(first, len(CONTENT), 40_000)
            wrong.extend(at for at in offsets if read(source, at, 10_000) != CONTENT[at : at + 10_000])

        threads = [threading.Thread(target=check, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_the_exact_file_is_allowed_and_its_folder_is_not(path: Path) -> None:
    roots = Roots(exact=str(path))
    (path.parent / "other").touch()
    open_source(str(path), roots).close()
    assert refusal(path.parent / "other", roots) is ErrorCode.PATH_NOT_ALLOWED


def point(link: Path, target: str) -> None:
    """Change the target of `link` in one step, as a log rotation does."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(link)


def test_a_root_that_is_a_link_is_resolved_once(tmp_path: Path) -> None:
    for name in ("real", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "data").symlink_to("real")
    roots = Roots((f"{tmp_path}/data",))
    point(tmp_path / "data", "other")
    for path in ("data/file", "real/file"):
        with open_source(f"{tmp_path}/{path}", roots) as source:
            assert read(source, 0, 10) == b"real"


def test_the_exact_file_is_the_present_target_of_its_link(tmp_path: Path) -> None:
    """`latest.bin -> today.bin`: a new target counts without a restart."""
    for name in ("monday", "tuesday"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "latest"
    link.symlink_to("monday")
    roots = Roots(exact=str(link))
    with open_source(str(link), roots) as first:
        point(link, "tuesday")
        with open_source(str(link), roots) as second:
            assert (read(first, 0, 10), read(second, 0, 10)) == (b"monday", b"tuesday")
        assert first.linked()
    assert refusal(tmp_path / "tuesday", roots) is ErrorCode.PATH_NOT_ALLOWED


def test_the_exact_file_follows_its_link_into_an_allowed_root(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "releases" / name).mkdir(parents=True)
        (tmp_path / "releases" / name / "file").write_text(name)
    (tmp_path / "current").symlink_to("releases/one")
    path = tmp_path / "current" / "file"
    roots = Roots((str(tmp_path / "releases"),), str(path))
    point(tmp_path / "current", "releases/two")
    with open_source(str(path), roots) as source:
        assert read(source, 0, 10) == b"two"


@pytest.mark.parametrize("target", ["secret/key", "/etc/passwd", "secret", "latest"])
def test_a_link_changed_to_an_outside_target_is_not_followed(tmp_path: Path, target: str) -> None:
    """Write access to the folder selects one of its files, and gives no access to other folders."""
    (tmp_path / "file").touch()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").touch()
    link = tmp_path / "latest"
    link.symlink_to("file")
    roots = Roots(exact=str(link))
    point(link, target)
    assert refusal(link, roots) in {ErrorCode.PATH_NOT_ALLOWED, ErrorCode.NOT_A_FILE}


def test_a_link_may_have_any_target_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    link = tmp_path / "latest"
    link.symlink_to("elsewhere/file")
    with open_source(str(link), Roots(exact=str(link))) as source:
        assert source.size == 0


def test_without_settings_nothing_is_allowed(path: Path) -> None:
    assert refusal(path, Roots()) is ErrorCode.PATH_NOT_ALLOWED


def test_a_root_may_be_the_whole_system(path: Path) -> None:
    open_source(str(path), Roots(("/",))).close()
    assert refusal("/proc/self/mem", Roots(("/",))) is ErrorCode.PATH_NOT_ALLOWED


@pytest.mark.parametrize("root", ["", "data", "./data", "~"])
def test_a_root_has_to_be_absolute(root: str) -> None:
    with pytest.raises(SettingsError, match="absolute"):
        Roots((root,))


def test_a_file_larger_than_s3_accepts_is_refused(path: Path, roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_FILE_SIZE", len(CONTENT) - 1)
    assert refusal(path, roots) is ErrorCode.FILE_TOO_LARGE


def test_a_file_of_no_bytes_is_a_file(path: Path, roots: Roots) -> None:
    os.truncate(path, 0)
    with open_source(str(path), roots) as source:
        assert source.digest(0, 0, DigestName.MD5) == "1B2M2Y8AsgTpgAmY7PhCfg=="


@given(st.text(max_size=60))
def test_a_plain_path_is_its_own_normal_form(text: str) -> None:
    path = f"/{text}"
    try:
        components = require_plain(path)
    except FileRefused:
        return
    assert "/" + "/".join(components) == path == os.path.normpath(path)


@given(st.lists(st.sampled_from(["data", "a", "..", ".", "", "database", "\0"]), max_size=6))
def test_a_path_beneath_a_root_stays_there_when_normalised(components: list[str]) -> None:
    path = "/" + "/".join(components)
    try:
        inside = beneath("/data", require_plain(path))
    except FileRefused:
        return
    assert bool(inside) == os.path.normpath(path).startswith("/data/")
