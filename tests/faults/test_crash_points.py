"""Killed at its n-th call that makes a file durable, for every n of one upload: restarted, it is completed, and once.

Rule: strace kills, so the process ends at exactly that call, and its log proves it. Each file is swept for itself; a
sweep is over when an upload ends before the call, and is worth nothing if that is too soon.
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
from tests.support.fault_sites import CHUNK, TERMINAL, FaultSite, Victim, clock_of, running_site
from tests.support.strict_s3 import Operation

PARTS: Final = 3
IN_FLIGHT: Final = 2
MOST: Final = 40
"""More calls than one upload can need: a sweep that gets there is going round in circles."""

LEASE: Final = "+35"
"""Where the control plane's clock is moved: beyond the half minute that whoever began something has for it."""

TRACED: Final = 240.0
"""Seconds that a traced program has for what another does in one or two: strace stops it at every call it makes."""

QUICK: Final = 3.0
"""Seconds after which an upload counts as one that waits for the lease."""

AFTERWARDS: Final = 1.5
"""Seconds after the end of an upload in which what is still written about it is written."""

CLIENT: Final = "swept"


@dataclass(slots=True)
class Sweep:
    """One upload for each call, with one crash in it."""

    site: FaultSite
    clock: Path
    strace: str
    uploads: int = 0
    died: bool = False

    @property
    def agent(self) -> Victim:
        """The one agent."""
        return self.site.agents[CLIENT]

    @property
    def state(self) -> Path:
        """Where it keeps what it must not forget."""
        return self.site.directory / CLIENT / "state"

    @property
    def database(self) -> Path:
        """The folder of the control plane's."""
        return self.site.plane.log_path.parent

    def every(self, victim: Victim, call: str, *paths: Path, attached: bool = False) -> int:
        """Crash `victim` at each such call of an upload; how many there were."""
        for number in range(1, MOST):
            if not self.at(victim, Point(call, paths, number), attached=attached):
                sys.stdout.write(f"{number - 1} crash points: {call} of {paths[0].name}\n")
                return number - 1
        pytest.fail(f"no upload ended within {MOST} calls")

    def at(self, victim: Victim, point: Point, *, attached: bool = False) -> bool:
        """Whether the victim was killed at the point. In any case the upload was completed, and once.

        Of a victim that is `attached` only the thread that makes the calls is traced, and its start is not.
        """
        site, told = self.site, f"{point.call} {point.number} of {point.paths[0].name}"
        victim.kill()
        self.clock.write_text("+0")
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
        upload_id = self._asked(path, victim)
        self._await_crash(victim, upload_id, told)
        # One that reached the end would be killed at the call all the same, while that is looked at.
        self.died = self.died or not victim.alive
        victim.kill()
        tracer.release()
        assert tracer.struck or not self.died, (
            f"{told}: it ended, and not by that call\n{tracer.log}\n{site.log_tail()}"
        )
        self._go_on(victim)
        self._completed_once(upload_id, path, told)
        path.unlink()
        return tracer.struck

    def _await_crash(self, victim: Victim, upload_id: str, told: str) -> None:
        """Wait for it, or for all that is written about an upload that ends without it."""
        over: list[float] = []

        def done() -> bool:
            if not over and not self.died and victim.alive and self._over(upload_id):
                over.append(time.monotonic())
            return self.died or not victim.alive or bool(over and time.monotonic() - over[0] > AFTERWARDS)

        self.site.until(done, f"the crash at {told}, or the end", TRACED)

    def _completed_once(self, upload_id: str, path: Path, told: str) -> None:
        site, wait_until = self.site, time.monotonic() + QUICK
        site.until(lambda: self._over(upload_id) or time.monotonic() > wait_until, "a quick end")
        # What the dead process had begun is now anybody's.
        self.clock.write_text(LEASE)
        site.until(lambda: self._over(upload_id), f"the end, after a crash at {told}")
        upload = site.completed(upload_id, path)
        assert upload["attempt"] == 1, told
        assert len(site.s3_uploads(upload_id)) == 1, told
        assert site.bytes_received(upload_id) <= (PARTS + IN_FLIGHT) * CHUNK, told
        made = [one for one in site.events(upload_id, Operation.COMPLETE_MULTIPART_UPLOAD) if one.done]
        assert len(made) == 1, told

    def _asked(self, path: Path, victim: Victim) -> str:
        """Trigger, once: an answer that the crash took is asked for again under the same key."""
        found: list[str] = []
        told: list[str] = []

        def ask() -> bool:
            body, headers = {"file_path": str(path)}, {"Idempotency-Key": path.name}
            try:
                url = f"{self.site.server}/trigger-download/{CLIENT}"
                answer = httpx.post(url, json=body, headers=headers, timeout=5)
            except httpx.TransportError as error:
                told[:] = [repr(error)]
                self._go_on(victim)
                return False
            told[:] = [answer.text]
            if answer.status_code == httpx.codes.OK:
                found.append(str(answer.json()["upload_id"]))
            return bool(found)

        self.site.until(ask, lambda: f"the trigger to be answered, last with {told}", TRACED)
        return found[0]

    def _go_on(self, victim: Victim) -> None:
        """Start the victim again if it is dead, and have the agent say hello to whoever is there."""
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
        """Unlike readiness this writes nothing, so it uses up no call."""
        try:
            return httpx.get(f"{self.site.server}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@pytest.fixture
def sweep(tmp_path: Path, faketime: str, strace: str) -> Iterator[Sweep]:
    """A site with one agent that sends two parts side by side."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with running_site(tmp_path, {"CLIENT_TIMEOUT": "5", **clock_of(faketime, clock, traced=True)}) as site:
        site.attach(CLIENT, MAX_PARALLEL_PARTS=str(IN_FLIGHT))
        yield Sweep(site, clock, strace)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_agent_killed_at_any_call(sweep: Sweep) -> None:
    calls = sweep.every(sweep.agent, "fdatasync", sweep.state / "journal")
    # What the last one left, the command, the offer, the grant, an etag or more, the end, the close.
    assert calls >= 6


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_agent_killed_while_it_writes_its_identity(sweep: Sweep) -> None:
    """A thread of its own does that at every start; each of the three calls that replace a file."""
    fresh, folder = sweep.state / "identity.new", sweep.state
    # The folder first: once there is a journal another thread makes its name durable sooner.
    for point in (Point("fsync", (folder,), 1), Point("fsync", (fresh,), 1), Point("rename", (fresh,), 1)):
        assert sweep.at(sweep.agent, point), point


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_control_plane_killed_at_any_call(sweep: Sweep) -> None:
    files = (sweep.database / "backhaul.db-wal", sweep.database / "backhaul.db")
    calls = sweep.every(sweep.site.plane, "fdatasync", *files, attached=True)
    # The trigger, the offer, the multipart upload, the client's success, the proof.
    assert calls >= 5


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_control_plane_killed_as_it_starts(sweep: Sweep) -> None:
    """It looks whether the database is the right one, and leaves it as one file."""
    for name in ("backhaul.db-wal", "backhaul.db"):
        point = Point("fdatasync", (sweep.database / name,), 1)
        assert sweep.at(sweep.site.plane, point), point
