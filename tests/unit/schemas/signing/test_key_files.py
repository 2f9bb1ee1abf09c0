"""Files of private keys: private, never overwritten, and unreadable without their passphrase.

Rule: a key is made by the product, and read back by it.
"""

import errno
import json
import stat
from pathlib import Path

import pytest

from schemas.signing.canonical import to_text
from schemas.signing.key_files import KeyFileError, create_key, needs_passphrase, read_key


def test_a_key_is_read_back_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    signer = create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (read_key(path).seed, needs_passphrase(path)) == (signer.seed, False)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    signer = create_key(path)
    with pytest.raises(FileExistsError):
        create_key(path)
    assert read_key(path).kid == signer.kid


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_key_that_was_not_written_to_its_end_is_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """As after a power cut: half a file under the name of the key would stop every later start."""

    def cut(*_: object, **__: object) -> None:
        assert not (tmp_path / "device.key").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"os.{call}", cut)
        with pytest.raises(KeyboardInterrupt):
            create_key(tmp_path / "device.key")
    assert list(tmp_path.iterdir()) == []
    create_key(tmp_path / "device.key")


def test_a_key_is_made_on_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    signer = create_key(tmp_path / "device.key")
    assert read_key(tmp_path / "device.key").kid == signer.kid
    assert [one.name for one in tmp_path.iterdir()] == ["device.key"]
    with pytest.raises(FileExistsError):
        create_key(tmp_path / "device.key")


def test_a_key_that_is_there_needs_no_folder_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control plane makes its key unless there is one; the file may come from a read-only volume."""
    create_key(tmp_path / "device.key")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", read_only)
    with pytest.raises(FileExistsError):
        create_key(tmp_path / "device.key")


def test_a_link_is_not_followed_when_a_key_is_made(tmp_path: Path) -> None:
    (tmp_path / "device.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create_key(tmp_path / "device.key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    create_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(path)


def test_a_passphrase_opens_its_file_and_no_other_does(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    signer = create_key(path, "correct horse")
    assert needs_passphrase(path)
    assert to_text(signer.seed) not in path.read_text()
    assert read_key(path, "correct horse").seed == signer.seed
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        read_key(path, "battery staple")
    with pytest.raises(KeyFileError, match="under a passphrase"):
        read_key(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"public_key": "A" * 43},
        {"seed": "A" * 42},
        {"seed": 7},
        {"seed": None},
    ],
)
def test_a_file_that_is_changed_is_no_key(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "device.key"
    create_key(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(KeyFileError):
        read_key(path)


@pytest.mark.parametrize("end", ["=", "A", "ü", ""])
def test_the_error_about_a_damaged_private_key_does_not_repeat_it(tmp_path: Path, end: str) -> None:
    path = tmp_path / "device.key"
    seed = to_text(create_key(path).seed)
    # One seed in sixteen ends with A already: the file would not be damaged.
    end = "E" if end == seed[42] else end
    path.write_text(path.read_text().replace(seed, f"{seed[:42]}{end}"))
    with pytest.raises(KeyFileError) as refused:
        read_key(path)
    assert seed[:40] not in str(refused.value)


def test_a_file_of_other_bytes_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    path.write_bytes(b"\xff{" * 4000)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a key file"):
        read_key(path)
    with pytest.raises(KeyFileError, match="not a key file"):
        needs_passphrase(path)
