"""Ticks of schedules at a site of real processes: made due at once, and checked to the end of their jobs.

Rule: what is expected is one run, one job, one object for each device, and cells that are proven; nothing more.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx
from sqlalchemy import create_engine, text

from control_plane.adapters.database.engines import parse_url
from schemas.names import RECEIPT_SUFFIX
from tests.support.fault_sites import FaultSite, SiteProcess
from tests.support.strict_s3 import Operation

SIMULATE: Final = (sys.executable, "-m", "control_plane.cli.main", "simulate", "--json")
MAKES_AN_OBJECT: Final = frozenset({Operation.PUT_OBJECT, Operation.COMPLETE_MULTIPART_UPLOAD})
PERIOD: Final = 7 * 86_400
"""Seconds: so long that no second tick is due while a test runs, but for one instant a week."""

BODY: Final[dict[str, Any]] = {
    "every": PERIOD,
    "catch_up": {"within": "30d"},
    "job": {"targets": {"clients": ["simulated-*"]}, "files": {"paths": ["/simulated/*"]}, "deadline": "1h"},
}


@contextmanager
def simulated_devices(site: FaultSite, count: int) -> Iterator[None]:
    """Devices of one file each, in one process; all are connected when the context begins."""
    options = ("--mqtt-url", f"mqtt://{site.mqtt.host_port}", "--devices", str(count))
    with SiteProcess((*SIMULATE, *options), {}, site.directory / "devices" / "devices.log"):
        site.until(lambda: connected(site) == count, "the devices")
        yield


def connected(site: FaultSite) -> int:
    """How many clients the control plane sees online."""
    return sum(1 for one in site.get("/clients?limit=500")["clients"] if one["connected"])


def create_schedule(server: str, schedule_id: str) -> None:
    """A schedule of one tick a week, over every simulated device."""
    answer = httpx.post(f"{server}/schedules", json={**BODY, "schedule_id": schedule_id}, timeout=60)
    assert answer.status_code == httpx.codes.CREATED, answer.text


def make_due(site: FaultSite, schedule_ids: Sequence[str]) -> None:
    """One tick of each is due at once, in one commit: as if the schedules had been made a week earlier."""
    engine = create_engine(parse_url(site.plane.settings["DATABASE_URL"]))
    with engine.begin() as connection:
        for schedule_id in schedule_ids:
            connection.execute(
                text("UPDATE schedules SET cursor = cursor - :period, due_at = 0 WHERE schedule_id = :schedule_id"),
                {"period": PERIOD, "schedule_id": schedule_id},
            )
    engine.dispose()


def settled(site: FaultSite, schedule_id: str, devices: int) -> bool:
    """Whether the one run is known to be over, and every cell is proven. False while no answer comes."""
    try:
        (run,) = site.get(f"/schedules/{schedule_id}/runs")["runs"] or [{"ended_at": None}]
        ticks = site.get(_coverage(schedule_id))["ticks"]
    except (httpx.TransportError, AssertionError):
        return False
    return run["ended_at"] is not None and sum(one["proven"] for one in ticks) == devices


def check_tick(site: FaultSite, schedule_id: str, devices: int) -> None:
    """One run, one job, one upload and one object for each device; the coverage counts each as proven."""
    (run,) = site.get(f"/schedules/{schedule_id}/runs")["runs"]
    assert (run["kind"], run["status"], run["outcome"]) == ("tick", "fired", "all"), run
    (job,) = site.get(f"/jobs?schedule_id={schedule_id}")["jobs"]
    assert (job["job_id"], job["state"]) == (run["job_id"], "completed"), (run, job)
    files = site.get(f"/jobs/{job['job_id']}/files")["files"]
    assert Counter(one["outcome"] for one in files) == {"proven": devices}, files
    assert len({one["client_id"] for one in files}) == devices, files
    keys = sorted(one["key"] for one in files)
    made = [one.key for one in site.strict.events() if one.done and one.operation in MAKES_AN_OBJECT]
    # Beside the devices' objects a job has a report, and each object its receipt.
    of_devices = [key for key in made if f"/{job['job_id']}/simulated-" in key]
    mine = sorted(key for key in of_devices if not key.endswith(RECEIPT_SUFFIX))
    assert mine == keys, (mine, keys)
    uploads = site.get("/uploads?limit=500")["uploads"]
    ended = sorted((one["s3_key"], one["state"]) for one in uploads if f"/{job['job_id']}/" in one["s3_key"])
    assert ended == [(key, "completed") for key in keys], (ended, keys)
    report = site.get(_coverage(schedule_id))
    (tick,) = report["ticks"]
    assert (tick["job_id"], tick["clients"], tick["proven"]) == (job["job_id"], devices, devices), tick
    cells = [(cell["state"], cell["healing_job_id"]) for one in report["clients"] for cell in one["cells"]]
    assert cells == [("proven", None)] * devices, cells


def _coverage(schedule_id: str) -> str:
    return f"/schedules/{schedule_id}/coverage"
