"""A process is killed at its n-th call that makes a file durable, for every n of one upload; the upload completes once.

Rule: strace kills, so the process ends at exactly that call, and the log of strace proves it. Each file has a separate
sweep; a sweep ends when an upload ends before the call, and the test fails if it had too few calls.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.crash_points import Point, Tracer, thread_of
from tests.support.fault_sites import CHUNK, TERMINAL, FaultSite, SiteProcess, running_site
from tests.support.strict_s3 import Operation

PARTS: Final = 3
IN_FLIGHT: Final = 2
MOST: Final = 40
"""More calls than one upload needs: a sweep that reaches this number would never end."""

TRACED: Final = 240.0
"""Seconds for a step that takes an untraced program one or two: strace stops the program at every system call."""

SETTLED: Final = 120.0
"""Seconds for the end after a crash. What the dead process had leased is due after 30 s: a step of the wall clock does
not hurry that, since the control plane follows none for minutes."""

AFTERWARDS: Final = 1.5
"""Seconds for the writes that follow the end of an upload."""

CLIENT: Final = "swept"


@dataclass(slots=True)
class Sweep:
    """A series of uploads, each with a crash at another call."""

    site: FaultSite
    strace: str
    uploads: int = 0
    died: bool = False

    @property
    def agent(self) -> SiteProcess:
        """The only agent of the site."""
        return self.site.agents[CLIENT]

    @property
    def state(self) -> Path:
        """The agent's state folder."""
        return self.site.directory / CLIENT / "state"

    @property
    def database(self) -> Path:
        """The folder of the control plane's database."""
        return self.site.plane.log_path.parent

    def every(self, victim: SiteProcess, call: str, *paths: Path, attached: bool = False) -> int:
        """Crash `victim` at each such call of an upload; returns the number of calls."""
        for number in range(1, MOST):
            if not self.at(victim, Point(call, paths, number), attached=attached):
                sys.stdout.write(f"{number - 1} crash points: {call} of {paths[0].name}\n")
                return number - 1
        pytest.fail(f"no upload ended within {MOST} calls")

    def at(self, victim: SiteProcess, point: Point, *, attached: bool = False) -> bool:
        """Whether the victim was killed at the point. In both cases the upload must complete once.

        With `attached` the tracer attaches to the one thread that makes the calls, after the start of the process.
        """
        site, label = self.site, f"{point.call} {point.number} of {point.paths[0].name}"
        victim.kill()
        log = site.directory / "strace.log"
        if attached:
            victim.start()
            site.until(site.ready, "the control plane")
            thread = thread_of(self.strace, log, point, victim.pid, site.ready)
            tracer = Tracer(self.strace, log, point, follow=False).attach(thread)
        else:
            tracer = Tracer(self.strace, log, point)
            victim.start(*tracer.command)
        self.died = False
        self.uploads += 1
        path = site.file(CLIENT, f"{self.uploads}.bin", PARTS * CHUNK)
        upload_id = self._trigger(path, victim)
        self._await_crash(victim, upload_id, label)
        # A victim may still reach the call after the end of the upload, so look before it is killed here.
        self.died = self.died or not victim.alive
        victim.kill()
        tracer.release()
        assert tracer.struck or not self.died, (
            f"{label}: the process ended, but not at that call\n{tracer.log}\n{site.log_tail()}"
        )
        self._revive(victim)
        self._check_completed_once(upload_id, path, label)
        path.unlink()
        return tracer.struck

    def _await_crash(self, victim: SiteProcess, upload_id: str, label: str) -> None:
        """Wait for the crash, or for the last write about an upload that ends without it."""
        over: list[float] = []

        def done() -> bool:
            if not over and not self.died and victim.alive and self._over(upload_id):
                over.append(time.monotonic())
            return self.died or not victim.alive or bool(over and time.monotonic() - over[0] > AFTERWARDS)

        self.site.until(done, f"the crash at {label}, or the end", TRACED)

    def _check_completed_once(self, upload_id: str, path: Path, label: str) -> None:
        site = self.site
        site.until(lambda: self._over(upload_id), f"the end, after a crash at {label}", SETTLED)
        upload = site.completed(upload_id, path)
        assert upload["attempt"] == 1, label
        assert len(site.s3_uploads(upload_id)) == 1, label
        assert site.bytes_received(upload_id) <= (PARTS + IN_FLIGHT) * CHUNK, label
        made = [one for one in site.events(upload_id, Operation.COMPLETE_MULTIPART_UPLOAD) if one.done]
        assert len(made) == 1, label

    def _trigger(self, path: Path, victim: SiteProcess) -> str:
        """Trigger one upload; if the crash loses the answer, repeat the request with the same idempotency key."""
        found: list[str] = []
        latest: list[str] = []

        def request() -> bool:
            body, headers = {"file_path": str(path)}, {"Idempotency-Key": path.name}
            try:
                url = f"{self.site.server}/trigger-download/{CLIENT}"
                answer = httpx.post(url, json=body, headers=headers, timeout=5)
            except httpx.TransportError as error:
                latest[:] = [repr(error)]
                self._revive(victim)
                return False
            latest[:] = [answer.text]
            if answer.status_code == httpx.codes.OK:
                found.append(str(answer.json()["upload_id"]))
            return bool(found)

        self.site.until(request, lambda: f"the trigger to be answered, last with {latest}", TRACED)
        return found[0]

    def _revive(self, victim: SiteProcess) -> None:
        """Start the victim again if it is dead, and cut the agent's connection so that it publishes a hello."""
        if not victim.alive:
            self.died = True
            victim.kill()
            victim.start()
            self.site.until(self._answers, "the control plane to answer")
            self.site.mqtt.cut()

    def _over(self, upload_id: str) -> bool:
        try:
            return self.site.upload(upload_id)["state"] in TERMINAL
        except httpx.TransportError:
            return False

    def _answers(self) -> bool:
        """Unlike the readiness check, this writes nothing to the database, so it makes none of the counted calls."""
        try:
            return httpx.get(f"{self.site.server}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@pytest.fixture
def sweep(tmp_path: Path, strace: str) -> Iterator[Sweep]:
    """A site with one agent that sends two parts in parallel."""
    with running_site(tmp_path, {"CLIENT_TIMEOUT": "5"}) as site:
        site.attach(CLIENT, MAX_PARALLEL_PARTS=str(IN_FLIGHT))
        yield Sweep(site, strace)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_agent_killed_at_any_fdatasync_completes_once(sweep: Sweep) -> None:
    calls = sweep.every(sweep.agent, "fdatasync", sweep.state / "journal")
    # The rest of the upload before, the command, the offer, the grant, one or more etags, the end, the close.
    assert calls >= 6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_agent_killed_while_it_writes_its_identity_completes_once(sweep: Sweep) -> None:
    """A separate thread writes it at every start, with three calls that replace the file."""
    fresh, folder = sweep.state / "identity.new", sweep.state
    # The folder first: as soon as there is a journal, another thread makes the folder durable earlier.
    for point in (Point("fsync", (folder,), 1), Point("fsync", (fresh,), 1), Point("rename", (fresh,), 1)):
        assert sweep.at(sweep.agent, point), point


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_control_plane_killed_at_any_fdatasync_completes_once(sweep: Sweep) -> None:
    files = (sweep.database / "backhaul.db-wal", sweep.database / "backhaul.db")
    calls = sweep.every(sweep.site.plane, "fdatasync", *files, attached=True)
    # The trigger, the offer, the multipart upload, the success response, the proof.
    assert calls >= 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_control_plane_killed_at_its_start_completes_once(sweep: Sweep) -> None:
    """At its start it checks the database, then checkpoints the write-ahead log into the database file."""
    for name in ("backhaul.db-wal", "backhaul.db"):
        point = Point("fdatasync", (sweep.database / name,), 1)
        assert sweep.at(sweep.site.plane, point), point
