"""A real agent and a real file system with whole-second times: ext4 with 128-byte inodes in a loop mount.

The kind: a change within one tick of the file system's clock leaves size and times as they are.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from schemas.messages import DownloadFile, UploadConfig
from schemas.parts import MIB
from schemas.values import Action, DigestName, UploadOptions
from tests.support.agent_process import AgentProcess, Owner, agent, client_id, grant, mosquitto, owner, report, sink
from tests.support.put_sink import PutSink

__all__ = ["agent", "client_id", "mosquitto", "owner", "sink"]

pytestmark = pytest.mark.slow

CHUNK: Final = 5 * MIB
SECOND: Final = 1_000_000_000
TRIES: Final = 10


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() or not (shutil.which("mkfs.ext4") and shutil.which("mount")):
        pytest.skip("needs root and mkfs.ext4, for a loop mount")
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-I", "128", "-m", "0", image], check=True, capture_output=True, timeout=60)
    if subprocess.run(["mount", "-o", "loop", image, folder], check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("this system allows no loop mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True, timeout=60)


def begun_just_after_a_change(
    owner: Owner, path: Path, content: bytes, then: Callable[[str], bool], **options: object
) -> str:
    """Begin an upload and call `then` within the second in which the file was written; the upload's id.

    On a busy machine the second may pass before `then` has run, and it is tried again.
    """
    for number in range(TRIES):
        upload_id = f"u{number}"
        time.sleep(1 - time.time() % 1)
        path.write_bytes(content)
        before = path.stat()
        config = UploadConfig(upload_id=upload_id, owner="cli-test")
        owner.send(
            DownloadFile(upload_config=config, file_path=str(path), options=UploadOptions(**options)),  # type: ignore[arg-type]
            Action.DOWNLOAD_FILE,
        )
        owner.answer(upload_id, 1)
        if then(upload_id) and path.stat().st_ctime_ns == before.st_ctime_ns:
            return upload_id
    pytest.fail(f"{TRIES} times this machine took a second for the first part")


@pytest.mark.parametrize("options", [{}, {"on_change": "prefix"}], ids=["fail", "prefix"])
def test_a_file_rewritten_within_a_second_is_no_success(
    agent: AgentProcess, owner: Owner, sink: PutSink, mounted: Path, options: dict[str, str]
) -> None:
    """The old head is stored and the new tail is sent; no size and no time shows it."""
    agent.kill()
    agent.settings = {"ALLOWED_ROOTS": str(mounted)}
    agent.start()
    owner.online()
    path, content = mounted / "a.bin", os.urandom(CHUNK + 9)
    assert mounted.stat().st_ctime_ns % SECOND == 0

    def rewrite_after_the_first_part(upload_id: str) -> bool:
        stored = len(sink.puts)
        grant(owner, sink, [1], 1, upload_id)
        owner.until(lambda: len(sink.puts) > stored)
        with path.open("r+b") as file:
            file.write(os.urandom(len(content)))
        return True

    upload_id = begun_just_after_a_change(owner, path, content, rewrite_after_the_first_part, **options)
    grant(owner, sink, [2], 1, upload_id)
    owner.until(lambda: owner.answers(upload_id)[-1].status != "in_progress")
    assert (owner.answers(upload_id)[-1].status, owner.answers(upload_id)[-1].error) == ("error", "source_changed")


def test_without_digests_a_file_just_written_waits_until_its_times_show_a_change(
    agent: AgentProcess, owner: Owner, sink: PutSink, mounted: Path
) -> None:
    agent.kill()
    agent.settings = {"ALLOWED_ROOTS": str(mounted)}
    agent.start()
    owner.online()
    path = mounted / "a.bin"
    path.write_bytes(b"content")
    config = UploadConfig(upload_id="u1", owner="cli-test", digest=DigestName.NONE)
    owner.send(DownloadFile(upload_config=config, file_path=str(path)), Action.DOWNLOAD_FILE)
    offer = report(owner.answer("u1", 1))
    assert offer.fingerprint is not None
    assert time.time_ns() - offer.fingerprint.ctime_ns > SECOND
    grant(owner, sink, [1], 1)
    assert owner.answer("u1", 2).status == "success"
