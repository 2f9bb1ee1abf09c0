"""A database that is restored from a backup: later events are recovered, and no object is made twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.fault_sites import CHUNK, FaultSite
from tests.support.strict_s3 import Operation

pytestmark = pytest.mark.slow


def database_of(site: FaultSite) -> Path:
    return Path(site.plane.settings["DATABASE_URL"].removeprefix("sqlite:///"))


def backup(site: FaultSite, copy: Path) -> None:
    with closing(sqlite3.connect(database_of(site))) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def state_in(copy: Path, upload_id: str) -> str:
    """The state of an upload in a backup."""
    with closing(sqlite3.connect(copy)) as database:
        row = database.execute("SELECT state FROM uploads WHERE upload_id = ?", (upload_id,)).fetchone()
    return str(row[0])


def restore(site: FaultSite, copy: Path) -> None:
    path = database_of(site)
    site.plane.kill()
    for left in ("-wal", "-shm"):
        path.with_name(path.name + left).unlink(missing_ok=True)
    path.write_bytes(copy.read_bytes())
    site.restart_plane()
    # Agents publish a hello within half a minute of the birth message; on a new connection at once.
    site.mqtt.cut()


def test_an_upload_that_progressed_after_the_backup_completes_once(site: FaultSite, name: str, tmp_path: Path) -> None:
    upload_id, path = site.begun(name, parts=4)
    backup(site, tmp_path / "copy.db")
    sent = site.s3.carried
    site.s3.stall_after(CHUNK + CHUNK // 2)
    site.s3.flow()
    site.until(lambda: site.s3.carried >= sent + CHUNK // 2, "more of the file to be sent")
    restore(site, tmp_path / "copy.db")
    site.s3.flow()
    assert site.completed(upload_id, path)["attempt"] == 1
    assert len(site.s3_uploads(upload_id)) == 1


def test_an_object_completed_after_the_backup_is_found_by_its_token(site: FaultSite, name: str, tmp_path: Path) -> None:
    upload_id, path = site.begun(name, parts=4)
    backup(site, tmp_path / "copy.db")
    site.s3.flow()
    site.completed(upload_id, path)
    # Read before the restore: a control plane that runs on the backup can complete the upload within milliseconds.
    assert state_in(tmp_path / "copy.db", upload_id) != "completed"
    restore(site, tmp_path / "copy.db")
    upload = site.completed(upload_id, path)
    assert upload["attempt"] == 1
    assert sum(one.done for one in site.events(upload_id, Operation.COMPLETE_MULTIPART_UPLOAD)) == 1


def test_an_upload_unknown_to_the_backup_does_not_block_the_client(site: FaultSite, name: str, tmp_path: Path) -> None:
    site.attach(name)
    backup(site, tmp_path / "copy.db")
    path = site.file(name, "small.bin", 1000)
    site.completed(site.trigger(name, path), path)
    restore(site, tmp_path / "copy.db")
    site.until(lambda: site.connected(name), "the client")
    again = site.file(name, "again.bin", CHUNK + 1)
    assert site.completed(site.trigger(name, again), again)["attempt"] == 1
