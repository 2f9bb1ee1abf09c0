"""A control plane of real processes is killed at its n-th commit, for every n of a schedule's tick and its job.

Rule: strace kills at exactly that call of the database's thread, and its log proves it. `test_jobs_crash_points.py` has
the same sweep in virtual time, over several ticks.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.crash_points import Point, Tracer, thread_of
from tests.support.fault_sites import FaultSite, running_site
from tests.support.fault_sites_ticks import check_tick, connected, create_schedule, make_due, settled, simulated_devices

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEVICES: Final = 1
"""One, so that the sweep is short: each crash costs a start of the control plane, and a traced job."""

MOST: Final = 60
"""More commits than a tick and its job need."""

FEWEST: Final = 7
"""The run with the job, its begin, the listing with the upload, the offer, the proof, the end of the run, the cell."""

SHARES: Final = 4
"""The sweep is made by this many tests, so that they can run beside each other."""

TRACED: Final = 120.0
SETTLED: Final = 120.0
"""Seconds for the end after a crash. What the dead process had leased is due after 30 s: a step of the wall clock does
not hurry that, since the control plane follows none for minutes."""


@dataclass(slots=True)
class Sweep:
    """One schedule for each crash, with one tick, over the same device."""

    site: FaultSite
    strace: str

    def every(self, first: int) -> int:
        """Crash at each commit that is of this share; returns the first of them that is not reached."""
        for number in range(first, MOST, SHARES):
            if not self.at(number):
                return number
        pytest.fail(f"no job ended within {MOST} commits")

    def at(self, number: int) -> bool:
        """Whether the control plane was killed at that commit. In both cases all must end well."""
        site, plane, schedule_id = self.site, self.site.plane, f"tick-{number}"
        create_schedule(site.server, schedule_id)
        database = plane.log_path.parent
        point = Point("fdatasync", (database / "backhaul.db-wal", database / "backhaul.db"), number)
        log = site.directory / "strace.log"
        tracer = Tracer(self.strace, log, point, follow=False).attach(
            thread_of(self.strace, log, point, plane.pid, site.ready)
        )
        make_due(site, [schedule_id])

        def over() -> bool:
            return not plane.alive or settled(site, schedule_id, DEVICES)

        site.until(over, f"the crash at commit {number}, or the end", TRACED)
        died = not plane.alive
        tracer.release()
        assert tracer.struck or not died, f"the process ended, but not at commit {number}\n{tracer.log}"
        if died:
            self._start()
            what = f"the end, after a crash at commit {number}"
            site.until(lambda: settled(site, schedule_id, DEVICES), what, SETTLED)
        check_tick(site, schedule_id, DEVICES)
        return died

    def _start(self) -> None:
        site = self.site
        site.plane.kill()
        site.plane.start()
        site.until(self._answers, "the control plane to answer")
        site.until(lambda: connected(site) == DEVICES, "the device")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.site.server}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@pytest.fixture
def sweep(tmp_path: Path, strace: str) -> Iterator[Sweep]:
    """A site with one simulated device of one file."""
    with running_site(tmp_path, {"CLIENT_TIMEOUT": "5"}) as site, simulated_devices(site, DEVICES):
        yield Sweep(site, strace)


@pytest.mark.parametrize("first", range(1, SHARES + 1))
def test_a_control_plane_killed_at_any_commit_of_a_tick_makes_it_once(sweep: Sweep, first: int) -> None:
    ended = sweep.every(first)
    sys.stdout.write(f"a tick and its job have fewer than {ended} commits\n")
    assert ended > FEWEST
