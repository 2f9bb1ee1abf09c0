"""What the agent writes to its disk: counted for each upload with strace, and nothing at rest.

Rule: the numbers of `docs/explanation/bad-days.md` are the bounds here; a memory card wears out by writes.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.support.bad_days.fixtures import calm
from tests.support.bad_days.tracing import Disk, Watched, disk_of
from tests.support.fault_sites import CHUNK, FaultSite

SMALL_SYNCS: Final = 4
SMALL_BYTES: Final = 4 * 1024
PARTS: Final = 52
# On a busy machine some records that would share a synchronisation come one after another.
LARGE_SYNCS: Final = PARTS + 12
LARGE_BYTES: Final = 20 * 1024
BEATS: Final = 2
"""Beats of the presence that are waited for, 30 s apart: the agent is watched at rest for about a minute."""


def upload(site: FaultSite, name: str, strace: str, log: Path, size: int) -> Disk:
    """What an agent that is connected asks of its disk for one upload, from its command to its close."""
    agent = site.attach(name)
    first = site.file(name, "first.bin", 10)
    site.completed(site.trigger(name, first), first)
    site.until(lambda: closed(site, name, 1), "the close of the first upload")
    path = site.file(name, "a.bin", size)
    with Watched(strace, log, agent.pid) as watched:
        site.completed(site.trigger(name, path), path)
        site.until(lambda: closed(site, name, 2), "the close of the upload")
    return watched.disk


def closed(site: FaultSite, name: str, number: int) -> bool:
    """Whether the journal has so many tombstones: the last record of each upload."""
    journal = Path(site.agents[name].settings["STATE_DIR"]) / "journal"
    return journal.read_bytes().count(b'"completed"') >= number


@pytest.mark.slow
def test_a_small_upload_takes_a_few_synchronisations(site: FaultSite, name: str, strace: str, tmp_path: Path) -> None:
    disk = upload(site, name, strace, tmp_path / "strace", 1000)
    assert 1 <= disk.syncs <= SMALL_SYNCS, disk
    assert 0 < disk.bytes <= SMALL_BYTES, disk
    assert all("/state/" in line for line in disk.lines), disk


@pytest.mark.slow
def test_a_large_upload_takes_one_synchronisation_a_part_at_most(
    site: FaultSite, name: str, strace: str, tmp_path: Path
) -> None:
    disk = upload(site, name, strace, tmp_path / "strace", PARTS * CHUNK)
    assert 1 <= disk.syncs <= LARGE_SYNCS, disk
    assert 0 < disk.bytes <= LARGE_BYTES, disk
    assert all("/state/" in line for line in disk.lines), disk


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_agent_at_rest_writes_nothing(site: FaultSite, name: str, strace: str, tmp_path: Path) -> None:
    agent = site.attach(name)
    path = site.file(name, "a.bin", 1000)
    site.completed(site.trigger(name, path), path)
    site.until(lambda: closed(site, name, 1), "the close of the upload")
    with Watched(strace, tmp_path / "strace", agent.pid) as watched:
        seen: set[str] = set()

        def beaten() -> bool:
            clients = site.get("/clients?limit=500")["clients"]
            seen.update(str(one["last_activity"]) for one in clients if one["client_id"] == name)
            return len(seen) > BEATS

        site.until(beaten, "beats", 150)
        assert calm(agent)
        disk = watched.disk
    assert disk == Disk(0, 0, ()), disk


LINES: Final = {
    "sync": ("7 fdatasync(5</s/journal>) = 0", 1, 0, 1),
    "write to a file": ('7 write(5</s/journal>, ""..., 90) = 90', 0, 90, 1),
    "write to a socket": ('7 write(5<socket:[12]>, ""..., 90) = 90', 0, 0, 0),
    "write that failed": ('7 write(5</s/journal>, ""..., 90) = -1 ENOSPC (No space left on device)', 0, 0, 1),
    "open to read": ('7 openat(AT_FDCWD</s>, ""..., O_RDONLY|O_CLOEXEC) = 5</s/journal>', 0, 0, 0),
    "open to write": ('7 openat(AT_FDCWD</s>, ""..., O_WRONLY|O_CREAT, 0600) = 5</s/journal>', 0, 0, 1),
    "rename": ("7 rename(...) = 0", 0, 0, 1),
    "a signal": ("7 --- SIGTERM ---", 0, 0, 0),
}


@pytest.mark.parametrize("kind", LINES)
def test_the_counter_of_writes_knows_what_asks_a_disk(kind: str) -> None:
    line, syncs, written, lines = LINES[kind]
    found = disk_of([line])
    assert (found.syncs, found.bytes, len(found.lines)) == (syncs, written, lines)


def test_the_counter_of_writes_joins_a_call_in_two_lines() -> None:
    lines = ['7 write(5</s/journal>, ""..., 90 <unfinished ...>', "8 fsync(3</s>) = 0", "7 <... write resumed>) = 90"]
    assert (disk_of(lines).syncs, disk_of(lines).bytes) == (1, 90)
