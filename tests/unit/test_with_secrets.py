"""`deploy/containers/with-secrets`: a private key reaches the program in a file for its user alone.

Rule: the shell script is run as the images run it.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from schemas.signing.key_files import KeyFileError, create_key, read_key

ROOT: Final = Path(__file__).parents[2]
KEYS: Final = ("AUDIT_KEY", "SIGNING_KEY")


def started(folder: Path, key: Path, name: str = KEYS[0]) -> "subprocess.CompletedProcess[str]":
    """A program that prints where it was told that the key is."""
    environment = {"PATH": "/usr/bin:/bin", f"{name}_FILE": str(key), "RUNTIME_DIRECTORY": str(folder)}
    command = [str(ROOT / "deploy/containers/with-secrets"), "sh", "-c", f'printf %s "${name}_FILE"']
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_kubernetes_shows_to_the_group_is_copied_for_the_user_alone(
    tmp_path: Path, memory: Path, name: str
) -> None:
    signer = create_key(tmp_path / "made")
    (tmp_path / "made").chmod(0o440)
    # As the kubelet mounts a secret: by a link to a link.
    (tmp_path / "audit_key").symlink_to("made")
    with pytest.raises(KeyFileError):
        read_key(tmp_path / "audit_key")
    for _ in range(2):
        ended = started(memory, tmp_path / "audit_key", name)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == str(memory / f"{name}.json")
        assert read_key(Path(ended.stdout)).verifier.text == signer.verifier.text
    assert [path.name for path in memory.iterdir()] == [f"{name}.json"]


def test_a_key_of_the_user_alone_and_one_that_is_not_made_yet_stay_where_they_are(tmp_path: Path, memory: Path) -> None:
    create_key(tmp_path / "own")
    for key in (tmp_path / "own", tmp_path / "later"):
        ended = started(memory, key)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, str(key), "")
    assert list(memory.iterdir()) == []


def test_a_folder_that_is_not_there_ends_it_with_the_reason(tmp_path: Path) -> None:
    create_key(tmp_path / "made")
    (tmp_path / "made").chmod(0o440)
    ended = started(tmp_path / "nowhere", tmp_path / "made")
    assert ended.returncode == 2
    assert f"AUDIT_KEY_FILE: {tmp_path}/made cannot be copied to {tmp_path}/nowhere/AUDIT_KEY.json" in ended.stderr


def test_a_key_is_made_once_and_never_printed(tmp_path: Path) -> None:
    key = tmp_path / "audit_key"
    command = [sys.executable, str(ROOT / "deploy/containers/make-key"), str(key)]
    made = [
        subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True)
        for _ in range(2)
    ]
    assert [one.stdout for one in made] == [f"made {key}\n", ""]
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(read_key(key).seed) == 32
