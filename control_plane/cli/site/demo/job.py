"""One job over the fleet of the demo: the logs of every device, fetched and compared.

Rule: it calls REST as `backhaul job create` and `backhaul job pull` do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from control_plane.cli.output import CliOutput
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.rest.jobs.calls import JobCalls
from control_plane.cli.rest.jobs.progress import follow
from control_plane.cli.rest.jobs.pull import Puller
from control_plane.cli.site.demo.agents import LOG_TYPE, DemoDevice, file_digest
from control_plane.cli.site.demo.report import JobResult

JOB_ID: Final = "demo-logs"
SELECTOR: Final = "demo=yes"
LONGEST: Final = 120.0
"""Seconds after which the demo gives up on its job."""


def run_job(output: CliOutput, plane: ControlPlane, devices: Sequence[DemoDevice], folder: Path) -> JobResult:
    """Request the logs of every device in one job, fetch them into `folder`, and compare them."""
    output.note("one job over the fleet: the logs of every client with the label demo=yes")
    calls = JobCalls(plane)
    body = {"job_id": JOB_ID, "targets": {"selector": SELECTOR}, "files": {"type": LOG_TYPE}}
    calls.create(body)
    job = follow(lambda: calls.job(JOB_ID), output, LONGEST)
    pulled = Puller(plane, folder, parallel=len(devices)).run(JOB_ID)
    return JobResult(
        job_id=JOB_ID,
        outcome=str(job.get("outcome")),
        clients=int(job["clients"]),
        files=sum(len(device.logs) for device in devices),
        fetched=pulled.fetched,
        identical=_digests(folder) == sorted(file_digest(log) for device in devices for log in device.logs),
    )


def _digests(folder: Path) -> list[str]:
    return sorted(file_digest(path) for path in folder.rglob("*") if path.is_file())
