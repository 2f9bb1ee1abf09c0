"""The results of a job: every file is accounted for, in each form, and in the report of each run.

Rule: a real database; the object store is a fake that keeps what is put.
"""

import csv
import errno
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

import pytest
from msgspec.structs import replace

from control_plane.domain.jobs.model import ExecutionState, FileOutcome, JobState
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import PartRecord, State
from control_plane.services.errors import ObjectStoreDown, ObjectStoreRefused
from control_plane.services.jobs.results import reader
from control_plane.services.jobs.results.report import ReportWriter
from schemas.parts import MIB
from schemas.values import DigestName
from tests.support.databases import an_upload
from tests.support.fake_services import NOW
from tests.support.fakes import FakeObjects
from tests.support.job_rest import JobSite, job_site, tills
from tests.support.jobs import a_file, a_job, an_execution

MD5 = "kAFQmDzST7DWlj99KOF/cg=="
"""Base64 of the MD5 of `abc`, as the wire has it."""

HEX = "900150983cd24fb0d6963f7d28e17f72"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[JobSite]:
    """A job that is over: a file of each outcome, and executions without files."""
    async with job_site(tmp_path) as site:
        execution = an_execution("j1", "till-1", state=ExecutionState.PARTIAL, due_at=None, left_out=7, attempt=2)
        proven = an_upload(
            "till-1",
            upload_id="u1",
            state=State.COMPLETED,
            s3_key="uploads/j1/till-1/data/1.log",
            digest=DigestName.MD5,
            file_size=3,
            part_size=5 * MIB,
            chunk_size=5 * MIB,
            parts={1: PartRecord(MD5, "e")},
        )
        none = Reason(ReasonCode.NO_MATCH, "no file matches")
        await site.store(
            *tills(3),
            a_job("j1", state=JobState.COMPLETED, ended_at=NOW, deadline=NOW + 60),
            execution,
            an_execution("j1", "till-2", state=ExecutionState.SKIPPED, due_at=None, reason=none),
            an_execution("j1", "till-3"),
            a_file(execution, 1, upload_id="u1", outcome=FileOutcome.PROVEN, key=proven.s3_key),
            a_file(execution, 2, outcome=FileOutcome.FAILED, reason=Reason("file_not_found", "it is gone")),
        )
        await site.database.write(lambda records: records.uploads.add(proven))
        yield site


async def lines(site: JobSite) -> list[dict[str, Any]]:
    """The results as REST writes them."""
    answer = await site.http.get("/jobs/j1/results")
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_every_file_and_every_execution_without_one_has_a_line(site: JobSite) -> None:
    """What was left out is counted; what is not over and has no file has no line yet."""
    found = await lines(site)
    assert [(one["client_id"], one["path"], one["outcome"], one["reason_code"], one["count"]) for one in found] == [
        ("till-1", "/data/1.log", "proven", None, 1),
        ("till-1", "/data/2.log", "failed", "file_not_found", 1),
        ("till-1", None, "left_out", "over_limit", 7),
        ("till-2", None, "skipped", "no_match", 0),
    ]
    assert (found[0]["bytes"], found[0]["attempts"], found[0]["digest"]) == (3, 2, f"md5:{HEX}")
    assert found[0]["key"] == "uploads/j1/till-1/data/1.log"


async def test_the_size_of_a_page_changes_nothing(site: JobSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executions and files are read by pages that do not end together."""
    whole = await lines(site)
    monkeypatch.setattr(reader, "PAGE", 1)
    assert await lines(site) == whole


async def test_a_spreadsheet_reads_the_rows(site: JobSite) -> None:
    """The same facts as CSV."""
    answer = await site.http.get("/jobs/j1/results", params={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["outcome"] for row in rows] == ["proven", "failed", "left_out", "skipped"]


@pytest.mark.parametrize("form", ["curl", "aria2"])
async def test_a_download_list_has_the_proven_files_only(site: JobSite, form: str) -> None:
    """With a URL that reads each."""
    text = (await site.http.get("/jobs/j1/results", params={"format": form})).text
    assert text.count("http://s3/") == 1
    assert "till-1/data/1.log" in text
    assert "2.log" not in text


async def test_an_unknown_form_is_refused(site: JobSite) -> None:
    """And the sentence names those that there are."""
    answer = await site.http.get("/jobs/j1/results", params={"format": "zip"})
    assert answer.status_code == 422
    assert "'jsonl', 'csv', 'curl' or 'aria2'" in answer.json()["detail"]


def writer_of(site: JobSite, events: list[str]) -> ReportWriter:
    """A writer over the site's database and object store."""
    return ReportWriter(
        site.database, site.objects, site.services, lambda event, _: events.append(event), base_path="uploads"
    )


async def test_a_run_that_ended_gets_one_report(site: JobSite) -> None:
    """Its lines are those of the results; a repeat of the job gets another report."""
    events: list[str] = []
    writer = writer_of(site, events)
    assert await writer.step()
    assert not await writer.step()
    report = site.objects.own["uploads/j1/report-1.jsonl"]
    assert [json.loads(line) for line in report.splitlines()] == await lines(site)
    job = await site.job("j1")
    await site.database.write(lambda records: records.jobs.save(job, replace(job, run=2)))
    assert await writer.step()
    assert sorted(site.objects.own) == ["uploads/j1/report-1.jsonl", "uploads/j1/report-2.jsonl"]
    assert events == ["job.reported", "job.reported"]


async def test_a_report_that_could_not_be_stored_is_written_later(site: JobSite) -> None:
    """Also after a restart: nothing but the row remembers it."""
    site.objects.fails["put"] = [ObjectStoreDown("away")]
    with pytest.raises(ObjectStoreDown):
        await writer_of(site, []).step()
    assert (await site.job("j1")).reported == 0
    assert await writer_of(site, []).step()
    assert (await site.job("j1")).reported == 1


async def test_a_report_that_is_refused_holds_up_no_other(site: JobSite) -> None:
    """It is tried again a while later."""
    await site.store(a_job("j2", state=JobState.COMPLETED, ended_at=NOW + 1))
    events: list[str] = []
    writer = writer_of(site, events)
    site.objects.fails["put"] = [ObjectStoreRefused("no", "AccessDenied")]
    assert [await writer.step() for _ in range(3)] == [True, True, False]
    assert events == ["job.report_failed", "job.reported"]
    assert [(await site.job(one)).reported for one in ("j1", "j2")] == [0, 1]


async def test_a_report_for_which_the_disk_has_no_room_is_tried_again(
    site: JobSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not end the control plane."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("control_plane.services.jobs.results.report._append", full)
    events: list[str] = []
    writer = writer_of(site, events)
    assert [await writer.step() for _ in range(2)] == [True, False]
    assert events == ["job.report_failed"]


async def test_a_job_that_began_again_meanwhile_is_reported_after_its_next_run(
    site: JobSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report of the run that ended is stored, and the row belongs to the new one."""

    async def put(objects: FakeObjects, key: str, content: IO[bytes]) -> None:
        objects.own[key] = content.read()
        job = await site.job("j1")
        again = replace(job, run=2, state=JobState.RUNNING, ended_at=None)
        await site.database.write(lambda records: records.jobs.save(job, again))

    monkeypatch.setattr(FakeObjects, "put", put)
    assert await writer_of(site, []).step()
    assert (await site.job("j1")).reported == 0
    assert not await writer_of(site, []).step()
