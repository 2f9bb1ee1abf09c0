"""The folder object store: a real nanio that starts, enforces signatures, survives a kill and ends with its parent.

Rule: a process is identified by its id, never by its name.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from control_plane.adapters import folder_store
from control_plane.adapters.folder_store import FolderCredentials, start_folder_store
from control_plane.services.errors import ObjectStoreDown, ObjectStoreRefused


def answer_to(url: str) -> int:
    return httpx.get(url, timeout=5, trust_env=False).status_code


def test_an_unsigned_request_is_rejected(tmp_path: Path) -> None:
    with start_folder_store(tmp_path) as store:
        assert store.alive
        assert answer_to(f"{store.endpoint}/bucket") == 403


def test_a_restart_after_a_kill_keeps_port_and_credentials(tmp_path: Path) -> None:
    store = start_folder_store(tmp_path)
    store.kill()
    assert not store.alive
    with start_folder_store(tmp_path, port=store.port) as again:
        assert (again.port, again.credentials) == (store.port, store.credentials)
        assert answer_to(again.endpoint) == 403


def test_the_credentials_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with start_folder_store(tmp_path, credentials=FolderCredentials("AKIAME", 'quote " and \\ slash')) as store:
        assert (tmp_path / "nanio.toml").stat().st_mode & 0o077 == 0
        assert folder_store.read_credentials(tmp_path / "nanio.toml") == store.credentials
        command_line = Path(f"/proc/{store.pid}/cmdline").read_bytes()
        assert b"quote" not in command_line
        assert "quote" not in repr(store.credentials)


def test_an_incomplete_metadata_file_is_removed_at_the_start(tmp_path: Path) -> None:
    objects = tmp_path / "objects" / "bucket"
    litter = (objects / ".nanio-meta" / "a" / "b.bin.json.tmp", objects / "a" / f".tmp.{'0' * 32}")
    kept = (objects / "a" / "notes.tmp", objects / "a" / "b.json.tmp")
    for path in (*litter, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with start_folder_store(tmp_path):
        assert [path.exists() for path in (*litter, *kept)] == [False, False, True, True]


def test_a_port_in_use_is_one_clear_error(tmp_path: Path) -> None:
    with start_folder_store(tmp_path / "first") as first, pytest.raises(ObjectStoreDown, match="in use"):
        start_folder_store(tmp_path / "second", port=first.port)


def test_it_listens_on_the_given_address_only(tmp_path: Path) -> None:
    with start_folder_store(tmp_path, address="127.0.0.2") as store:
        assert store.endpoint == f"http://127.0.0.2:{store.port}"
        assert answer_to(store.endpoint) == 403
        with pytest.raises(httpx.ConnectError):
            answer_to(f"http://127.0.0.1:{store.port}")


def test_without_nanio_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ObjectStoreRefused, match=r"pip install 'backhaul\[demo\]'"):
        start_folder_store(tmp_path)


PARENT = """
import sys, time
from pathlib import Path
from control_plane.adapters.folder_store import start_folder_store
print(start_folder_store(Path(sys.argv[1])).pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a Linux system call binds the child")
def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
