"""A control plane of real processes is killed at its n-th commit, for every n of a job; the job ends as it should.

Rule: strace kills at exactly that call of the database's thread, and its log proves it. `test_jobs_crash_points.py` has
the same sweeps in virtual time, over larger jobs.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.crash_points import Point, Tracer, thread_of
from tests.support.fault_sites import FaultSite, SiteProcess, running_site
from tests.support.strict_s3 import Operation

pytestmark = pytest.mark.slow

DEVICES: Final = 1
"""One, so that the sweep is short: each crash costs a start of the control plane, and a traced job."""

MOST: Final = 60
"""More commits than such a job needs."""

TRACED: Final = 240.0
SETTLED: Final = 120.0
"""Seconds for the end after a crash. What the dead process had leased is due after 30 s: a step of the wall clock does
not hurry that, since the control plane follows none for minutes."""

AFTERWARDS: Final = 1.5
MAKES_AN_OBJECT: Final = frozenset({Operation.PUT_OBJECT, Operation.COMPLETE_MULTIPART_UPLOAD})
OPEN: Final = frozenset({"running", "paused", "cancelling"})
SIMULATE: Final = (sys.executable, "-m", "control_plane.cli.main", "simulate", "--json")


@dataclass(slots=True)
class Sweep:
    """Jobs over the same devices, each with a crash of the control plane at another commit."""

    site: FaultSite
    strace: str

    def every(self, body: Mapping[str, Any]) -> int:
        """Crash at each commit of a job; returns the number of commits."""
        for number in range(1, MOST):
            if not self.at(number, {**body, "job_id": f"job-{number}"}):
                sys.stdout.write(f"{number - 1} crash points of a job\n")
                return number - 1
        pytest.fail(f"no job ended within {MOST} commits")

    def at(self, number: int, body: Mapping[str, Any]) -> bool:
        """Whether the control plane was killed at that commit. In both cases the job must end well."""
        site, plane, job_id = self.site, self.site.plane, str(body["job_id"])
        database = plane.log_path.parent
        point = Point("fdatasync", (database / "backhaul.db-wal", database / "backhaul.db"), number)
        log = site.directory / "strace.log"
        plane.kill()
        plane.start()
        site.until(site.ready, "the control plane")
        site.until(lambda: self._connected() == DEVICES, "the devices")
        thread = thread_of(self.strace, log, point, plane.pid, site.ready)
        tracer = Tracer(self.strace, log, point, follow=False).attach(thread)
        self._create(body)
        ended: list[float] = []

        def settled() -> bool:
            if not ended and plane.alive and not self._open(job_id):
                ended.append(time.monotonic())
            return not plane.alive or bool(ended and time.monotonic() - ended[0] > AFTERWARDS)

        site.until(settled, f"the crash at commit {number}, or the end", TRACED)
        died = not plane.alive
        plane.kill()
        tracer.release()
        assert tracer.struck or not died, f"the process ended, but not at commit {number}\n{tracer.log}"
        self._revive()
        self._check(job_id, number)
        return tracer.struck

    def _create(self, body: Mapping[str, Any]) -> None:
        """POST the job; if the crash loses the answer, again with the same id."""
        answers: list[str] = []

        def request() -> bool:
            try:
                answer = httpx.post(f"{self.site.server}/jobs", json=dict(body), timeout=10)
            except httpx.TransportError as error:
                answers[:] = [repr(error)]
                self._revive()
                return False
            answers[:] = [answer.text]
            return answer.status_code in {httpx.codes.CREATED, httpx.codes.OK}

        self.site.until(request, lambda: f"the job to be accepted, last with {answers}", TRACED)

    def _revive(self) -> None:
        plane = self.site.plane
        if not plane.alive:
            plane.kill()
            plane.start()
            self.site.until(self._answers, "the control plane to answer")

    def _answers(self) -> bool:
        """Unlike the readiness check, this writes nothing to the database."""
        try:
            return httpx.get(f"{self.site.server}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _connected(self) -> int:
        clients = self.site.get("/clients?limit=500")["clients"]
        return sum(1 for one in clients if one["connected"])

    def _open(self, job_id: str) -> bool:
        try:
            return self.site.get(f"/jobs/{job_id}")["state"] in OPEN
        except (httpx.TransportError, AssertionError):
            return True

    def _check(self, job_id: str, number: int) -> None:
        site = self.site
        site.until(lambda: not self._open(job_id), f"the end of the job, after a crash at commit {number}", SETTLED)
        job = site.get(f"/jobs/{job_id}")
        assert (job["state"], job["outcome"]) == ("completed", "all"), (number, job)
        files = site.get(f"/jobs/{job_id}/files")["files"]
        assert len(files) == DEVICES, (number, files)
        assert {one["outcome"] for one in files} == {"proven"}, (number, files)
        keys = [one["key"] for one in files]
        made = [one.key for one in site.strict.events() if one.done and one.operation in MAKES_AN_OBJECT]
        assert sorted(key for key in made if key in keys) == sorted(keys), number
        uploads = site.get("/uploads?limit=500")["uploads"]
        mine = [one for one in uploads if one["s3_key"] in keys]
        assert len(mine) == DEVICES, (number, mine)


@pytest.fixture
def sweep(tmp_path: Path, strace: str) -> Iterator[Sweep]:
    """A site with simulated devices of one file each."""
    with running_site(tmp_path, {"CLIENT_TIMEOUT": "5"}) as site:
        options = ("--mqtt-url", f"mqtt://{site.mqtt.host_port}", "--devices", str(DEVICES))
        with SiteProcess((*SIMULATE, *options), {}, tmp_path / "devices" / "devices.log"):
            yield Sweep(site, strace)


@pytest.mark.timeout(600)
def test_a_control_plane_killed_at_any_commit_of_a_job_ends_it(sweep: Sweep) -> None:
    body = {
        "targets": {"clients": ["simulated-*"]},
        "files": {"paths": ["/simulated/*"]},
        "rollout": {"max_running": 1},
    }
    commits = sweep.every(body)
    # Its creation, its begin, the listing with the upload, the offer, the proof, its end.
    assert commits >= 5
