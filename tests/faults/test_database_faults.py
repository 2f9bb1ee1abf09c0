"""A locked or full database: the answer is 503, nothing is half done, and everything works again afterwards."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.fault_sites import CHUNK, FaultSite, fill, running_site, small_tmpfs

pytestmark = pytest.mark.slow


@contextmanager
def locked(site: FaultSite) -> Iterator[None]:
    """Another connection holds the write lock of the SQLite file."""
    path = site.plane.settings["DATABASE_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def test_an_upload_waits_for_a_locked_database_and_completes(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=3)
    with locked(site):
        sent = site.s3.carried
        site.s3.flow()
        site.until(lambda: site.s3.carried >= sent + 2 * CHUNK - CHUNK // 2, "the rest of the file to be sent")
        assert site.upload(upload_id)["state"] == "in_progress", "a read must not wait for the writer"
    assert site.completed(upload_id, path)["attempt"] == 1


def test_a_database_locked_for_long_answers_503_with_retry_after(site: FaultSite, name: str) -> None:
    site.attach(name)
    path = site.file(name, "small.bin", 1000)
    with locked(site):
        answer = httpx.post(f"{site.server}/trigger-download/{name}", json={"file_path": str(path)}, timeout=60)
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert int(answer.headers["Retry-After"]) > 0
    site.completed(site.trigger(name, path), path)
    assert len(site.get(f"/uploads?client_id={name}")["uploads"]) == 1, "the refused trigger created an upload"


def test_a_full_database_disk_answers_503_and_loses_no_trigger(tmp_path: Path, name: str) -> None:
    with (
        small_tmpfs(tmp_path / "disk", "6m") as disk,
        running_site(tmp_path, {"DATABASE_URL": f"sqlite:///{disk / 'backhaul.db'}"}) as site,
    ):
        upload_id, path = site.begun(name, parts=3)
        fill(disk / "ballast")
        answered: list[str] = []

        def refused() -> bool:
            body = {"file_path": str(path), "metadata": {"text": "x" * 3_000}}
            answer = site.post(f"/trigger-download/{name}", body)
            if answer.status_code == httpx.codes.OK:
                answered.append(str(answer.json()["upload_id"]))
            return answer.status_code == httpx.codes.SERVICE_UNAVAILABLE

        site.until(refused, "a trigger to be refused")
        assert not site.ready()
        assert site.get("/health")["status"] == "ok"
        assert site.upload(upload_id)["state"] == "in_progress"
        site.s3.flow()
        (disk / "ballast").unlink()
        site.until(site.ready, "the control plane to recover")
        for known in (upload_id, *answered):
            assert site.completed(known, path)["attempt"] == 1
