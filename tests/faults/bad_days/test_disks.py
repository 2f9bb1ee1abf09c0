"""Disks on a bad day: a state folder that is removed, read-only, full or missing, and a card that answers EIO.

Rule: what the agent has stored is sent once; a start that cannot work ends in one line, and the next one works.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.bad_days.fixtures import calm, impatient, logs, told
from tests.support.bad_days.tracing import Injected
from tests.support.fault_sites import CHUNK, FaultSite, SiteProcess, fill
from tests.support.patience import came_true

ONE_BY_ONE: Final = {"MAX_PARALLEL_PARTS": "1"}


def stalled(site: FaultSite, name: str, **settings: str) -> tuple[SiteProcess, str, Path]:
    """An impatient agent with an upload that stalls in the middle of its second part until `site.s3.flow()`."""
    agent = impatient(site, name, **ONE_BY_ONE, **settings)
    agent.start()
    site.until(lambda: site.connected(name), "the agent to connect")
    path = site.file(name, "big.bin", 3 * CHUNK)
    site.s3.stall_after(CHUNK + CHUNK // 2)
    upload_id = site.trigger(name, path)
    site.until(lambda: site.s3.stalled, "the upload to stall in the middle of a part")
    return agent, upload_id, path


@pytest.mark.slow
def test_a_state_folder_that_is_removed_is_written_again_and_a_restart_continues(site: FaultSite, name: str) -> None:
    agent, upload_id, path = stalled(site, name)
    folder = Path(agent.settings["STATE_DIR"])
    identity = (folder / "identity").read_bytes()
    shutil.rmtree(folder)
    site.s3.stall_after(CHUNK)
    site.s3.flow()
    site.s3.stall_after(CHUNK)
    logs(site, agent, "was removed while the agent ran: it is written again from memory")
    agent.kill()
    site.s3.flow()
    assert (folder / "identity").read_bytes() == identity
    agent.start()
    assert site.completed(upload_id, path)["attempt"] == 1
    assert len(site.s3_uploads(upload_id)) == 1
    assert calm(agent)


FAULTS: Final = {
    "fdatasync": ("EIO", "Input/output error"),
    "write": ("EROFS", "Read-only file system"),
    "openat": ("EIO", "Input/output error"),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", FAULTS)
def test_a_card_that_fails_for_a_while_costs_no_upload_and_no_restart(
    site: FaultSite, name: str, strace: str, tmp_path: Path, call: str
) -> None:
    error, text = FAULTS[call]
    agent, upload_id, path = stalled(site, name)
    journal = Path(agent.settings["STATE_DIR"]) / "journal"
    # A write that failed closes the journal; only then it is opened again.
    injected = ("fdatasync", "openat") if call == "openat" else (call,)
    with Injected(strace, tmp_path / "strace", agent.pid, injected, error, journal):
        site.s3.flow()
        logs(site, agent, f"{journal} cannot be written: {text}")
        site.until(lambda: (told(agent) or pytest.fail("no status")).journal.failing, "the status to have the fault")
    assert site.completed(upload_id, path)["attempt"] == 1
    assert site.bytes_received(upload_id) == path.stat().st_size
    assert calm(agent)
    site.until(lambda: (told(agent) or pytest.fail("no status")).journal.failing is None, "the fault to be over")


@contextmanager
def read_only(folder: Path, _strace: str) -> Iterator[tuple[str, ...]]:
    """The folder is a file system that was mounted read-only."""
    folder.mkdir(parents=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield ()
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def not_mounted(folder: Path, _strace: str) -> Iterator[tuple[str, ...]]:
    """A file stands where the folder would be."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("")
    yield ()
    folder.unlink()


@contextmanager
def failing(folder: Path, strace: str) -> Iterator[tuple[str, ...]]:
    """The card answers EIO to every open of the lock."""
    inject = ("-e", "trace=openat", "-P", str(folder / "lock"), "-e", "inject=openat:error=EIO")
    yield (strace, "-f", "-e", "signal=none", "-o", "/dev/null", *inject)


STARTS: Final = {
    "read-only": (read_only, "Read-only file system"),
    "not-mounted": (not_mounted, "File exists"),
    "failing-card": (failing, "Input/output error"),
}


@pytest.mark.slow
@pytest.mark.parametrize("day", STARTS)
def test_a_start_without_its_state_folder_ends_in_one_line_and_the_next_one_works(
    site: FaultSite, name: str, strace: str, day: str
) -> None:
    make, text = STARTS[day]
    agent = impatient(site, name)
    folder = Path(agent.settings["STATE_DIR"])
    with make(folder, strace) as before:
        agent.start(*before)
        site.until(lambda: not agent.alive, "the agent to end")
        assert agent.log.strip() == f"backhaul-agent: the state folder {folder} cannot be used: {text}"
    agent.start()
    site.until(lambda: site.connected(name), "the agent to connect")
    path = site.file(name, "a.bin", 1000)
    site.completed(site.trigger(name, path), path)
    assert calm(agent)


@pytest.mark.slow
def test_an_agent_that_starts_on_a_full_disk_is_online_says_so_and_works_when_there_is_room(
    site: FaultSite, name: str, small_disk: Path
) -> None:
    folder = small_disk / "state"
    folder.mkdir()
    fill(small_disk / "ballast")
    agent = impatient(site, name, STATE_DIR=str(folder))
    agent.start()
    site.until(lambda: site.connected(name), "the agent to connect")
    path = site.file(name, "a.bin", 1000)
    upload_id = site.trigger(name, path)
    site.until(lambda: "No space left on device" in str(site.upload(upload_id)["reason"]), "the reason")
    status = told(agent)
    assert status is not None
    assert "No space left on device" in (status.journal.failing or "")
    (small_disk / "ballast").unlink()
    assert came_true(lambda: (told(agent) or status).journal.failing is None, 30)
    site.completed(upload_id, path)
    assert calm(agent)


@pytest.mark.slow
def test_nothing_but_the_state_folder_is_written(site: FaultSite, name: str) -> None:
    """The root, and with it every other folder, is read-only for this agent."""
    agent = impatient(site, name)
    folder = Path(agent.settings["STATE_DIR"])
    folder.mkdir(parents=True)
    script = (
        'mount --make-rprivate / && mount --bind "$0" "$0" && '
        "for one in $(findmnt -rno TARGET | sort -r); do "
        'case "$one" in "$0" | /proc* | /dev* | /sys*) ;; *) mount -o remount,bind,ro "$one" ;; esac; done; '
        'touch / 2>&1 | grep -q "Read-only" || exit 77; exec "$@"'
    )
    apart = (shutil.which("unshare") or "/usr/bin/unshare", "--mount", "sh", "-c", script, str(folder))
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the root cannot be made read-only here")
    agent.start(*apart)
    site.until(lambda: site.connected(name), "the agent to connect")
    path = site.file(name, "a.bin", 1000)
    site.completed(site.trigger(name, path), path)
    assert calm(agent)
