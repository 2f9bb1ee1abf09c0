"""Copies of files: whole or absent, of one version of the file, and within their quota."""

import gzip
from pathlib import Path

import pytest

from device_agent.errors import FileRefused
from device_agent.files import copies as copies_module
from device_agent.files.copies import Copies
from device_agent.files.roots import Roots
from device_agent.policy.document import PolicyDocument
from device_agent.policy.rules import DevicePolicy, RefusedByPolicy
from device_agent.transfer.records import Order
from schemas.values import ErrorCode, UploadOptions
from tests.unit.device_agent.device import order

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def copies(tmp_path: Path, data: Path) -> Copies:
    return Copies(tmp_path / "spool", Roots((str(data.parent),)), max_bytes=2**40, max_percent=100)


def gzip_order(**changes: object) -> Order:
    return order(options=UploadOptions(compression="gzip"), **changes)


def not_stopped() -> bool:
    return False


def test_a_copy_is_made_once_and_found_again(copies: Copies, data: Path) -> None:
    about = gzip_order(file_path=str(data))
    with copies.open(about, not_stopped) as source:
        first = source.fingerprint
        assert gzip.decompress(Path(source.path).read_bytes()) == CONTENT
    data.unlink()
    with copies.open(about, not_stopped) as source:
        assert source.fingerprint == first


@pytest.mark.parametrize(
    "rules", [{"max_file_size": 10}, {"owners": (4711,)}, {"hard_links": "refuse"}], ids=lambda one: next(iter(one))
)
def test_a_copy_of_an_earlier_start_is_sent_as_far_as_the_policy_of_this_one_allows_the_file(
    copies: Copies, data: Path, tmp_path: Path, rules: dict[str, object]
) -> None:
    """Size, owner and second names are those of the file: a copy has its own."""
    about = gzip_order(file_path=str(data))
    copies.open(about, not_stopped).close()
    (data.parent / "second").hardlink_to(data)
    policy = DevicePolicy(PolicyDocument(**rules))  # type: ignore[arg-type]
    stricter = Roots((str(data.parent),), policy=policy)
    later = Copies(tmp_path / "spool", stricter, max_bytes=2**40, max_percent=100)
    with pytest.raises(RefusedByPolicy):
        later.open(about, not_stopped)
    # Of a file that is gone nothing can be judged: what was allowed when it was copied is sent.
    data.unlink()
    later.open(about, not_stopped).close()


def test_the_state_folder_may_be_relative(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copies = Copies(Path("state/spool"), Roots((str(data.parent),)), max_bytes=2**40, max_percent=100)
    with copies.open(gzip_order(file_path=str(data)), not_stopped) as source:
        assert Path(source.path).parent == tmp_path / "state" / "spool"


def test_equal_files_make_equal_copies(copies: Copies, data: Path) -> None:
    contents = []
    for attempt in (1, 2):
        with copies.open(gzip_order(file_path=str(data), attempt=attempt), not_stopped) as source:
            contents.append(Path(source.path).read_bytes())
    assert contents[0] == contents[1]


def test_a_file_outside_the_roots_is_not_copied(copies: Copies) -> None:
    with pytest.raises(FileRefused) as refused:
        copies.open(gzip_order(file_path="/etc/passwd"), not_stopped)
    assert refused.value.code is ErrorCode.PATH_NOT_ALLOWED


@pytest.mark.parametrize("why", ["stopped", "no room"])
def test_a_partial_copy_is_deleted(
    copies: Copies, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "no room":
        monkeypatch.setattr(copies_module, "RESERVE", 2**62)
    with pytest.raises(FileRefused) as refused:
        copies.open(gzip_order(file_path=str(data)), lambda: why == "stopped")
    assert refused.value.code is (ErrorCode.INTERNAL if why == "stopped" else ErrorCode.NO_SPACE)
    assert list((tmp_path / "spool").iterdir()) == []


def test_copies_without_an_order_are_deleted(copies: Copies, data: Path, tmp_path: Path) -> None:
    mine, old = gzip_order(file_path=str(data)), gzip_order(file_path=str(data), upload_id="old")
    for about in (mine, old):
        copies.open(about, not_stopped).close()
    (tmp_path / "spool" / "crash.1.partial").write_bytes(b"half")
    copies.sweep([mine])
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["u1.1.gz"]
    copies.discard(mine)
    copies.discard(mine)
    assert list((tmp_path / "spool").iterdir()) == []
