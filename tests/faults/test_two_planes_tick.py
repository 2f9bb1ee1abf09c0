"""Two control planes of real processes on one database and one broker: a tick, and a job, happen once.

Rule: what is counted is what the object store received and what the rows show at the end, at either of them.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from broker.server import free_port
from schemas.names import RECEIPT_SUFFIX
from tests.support.fault_sites import SERVE, FaultSite, SiteProcess, running_site
from tests.support.fault_sites_ticks import BODY, check_tick, create_schedule, make_due, settled, simulated_devices
from tests.support.postgres import Postgres, postgres

__all__ = ["postgres"]

pytestmark = pytest.mark.slow

DEVICES: Final = 3
SCHEDULES: Final = ("first", "second", "third")
"""All are due in one commit: three races for a run, while the job that an operator creates runs."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[FaultSite, SiteProcess]]:
    """A site with devices, and a second control plane with its database and its broker."""
    settings = {}
    if request.param == "postgres":
        cluster: Postgres = request.getfixturevalue("postgres")
        settings["DATABASE_URL"] = cluster.url(cluster.create_database())
    with running_site(tmp_path, settings) as site, simulated_devices(site, DEVICES), second_of(site) as second:
        yield site, second


@contextmanager
def second_of(site: FaultSite) -> Iterator[SiteProcess]:
    """A second control plane that can work."""
    settings = {**site.plane.settings, "SERVER_PORT": str(free_port())}
    with SiteProcess(SERVE, settings, site.directory / "second" / "plane.log") as second:

        def ready() -> bool:
            try:
                return httpx.get(f"{server_of(second)}/health/ready", timeout=5).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        site.until(ready, "the second control plane")
        yield second


def server_of(plane: SiteProcess) -> str:
    return f"http://127.0.0.1:{plane.settings['SERVER_PORT']}"


def test_a_tick_and_a_job_of_two_control_planes_happen_once(pair: tuple[FaultSite, SiteProcess]) -> None:
    site, second = pair
    for schedule_id in SCHEDULES:
        create_schedule(server_of(second), schedule_id)
    make_due(site, SCHEDULES)
    # The same request at both, as a client that lost the first answer repeats it.
    for server in (site.server, server_of(second)):
        answer = httpx.post(f"{server}/jobs", json={"job_id": "by-hand", **BODY["job"]}, timeout=60)
        assert answer.is_success, answer.text

    def over() -> bool:
        return all(settled(site, one, DEVICES) for one in SCHEDULES)

    site.until(over, "the ticks")
    site.until(lambda: site.get("/jobs/by-hand")["state"] == "completed", "the job")
    for schedule_id in SCHEDULES:
        check_tick(site, schedule_id, DEVICES)
    jobs = site.get("/jobs")["jobs"]
    assert len(jobs) == len(SCHEDULES) + 1, jobs
    uploads = site.get("/uploads?limit=500")["uploads"]
    assert Counter((one["state"], one["attempt"]) for one in uploads) == {("completed", 1): DEVICES * len(jobs)}
    # One PUT for each upload: no file was sent a second time.
    events = site.strict.events()
    puts = [one.key for one in events if one.done and "/simulated-" in one.key]
    sent = Counter(key for key in puts if not key.endswith(RECEIPT_SUFFIX))
    assert sent == dict.fromkeys((one["s3_key"] for one in uploads), 1)
    assert httpx.get(f"{server_of(second)}/jobs", timeout=60).json()["jobs"] == jobs
