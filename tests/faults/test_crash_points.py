"""Killed at its n-th fsync or rename, for every n of one upload: restarted, the upload is completed, and once.

Rule: strace kills, so the process ends at exactly that call. The sweep is over when an upload ends before the call.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.fault_sites import CHUNK, TERMINAL, FaultSite, Victim, clock_of, running_site
from tests.support.strict_s3 import Operation

PARTS: Final = 3
IN_FLIGHT: Final = 2
MOST: Final = 60
"""More calls than one upload can need: a sweep that gets there is going round in circles."""

CALLS: Final = "fsync,fdatasync,rename"
LEASE: Final = "+35"
"""Where the control plane's clock is moved: beyond the half minute that whoever began something has for it."""

TRACED: Final = 240.0
"""Seconds that a traced program has for what another does in one or two: strace stops it at every call it makes."""

QUICK: Final = 5.0
"""Seconds after which an upload counts as one that waits for that."""

CLIENT: Final = "swept"


@dataclass(slots=True)
class Sweep:
    """One upload for each call, with one crash in it."""

    site: FaultSite
    clock: Path
    strace: str
    crashed: bool = False

    def run(self, victim: Victim) -> int:
        """Crash `victim` at every call; how many calls there were."""
        for call in range(1, MOST):
            if not self._survives(victim, call):
                return call - 1
        pytest.fail(f"no upload ended within {MOST} calls")

    def _survives(self, victim: Victim, call: int) -> bool:
        """Whether the victim reached the call, and the upload was completed all the same."""
        site = self.site
        victim.kill()
        self.crashed = False
        self.clock.write_text("+0")
        victim.start(*tracer(self.strace, call))
        path = site.file(CLIENT, f"{call}.bin", PARTS * CHUNK)
        upload_id = self._asked(path, victim)
        site.until(lambda: not victim.alive or self._over(upload_id), f"the crash at call {call}, or the end", TRACED)
        crashed = self.crashed or not victim.alive
        if not crashed:
            # It would be killed at the call all the same, while the end is looked at.
            victim.kill()
        self._go_on(victim)
        wait_until = time.monotonic() + QUICK
        site.until(lambda: self._over(upload_id) or time.monotonic() > wait_until, "a quick end")
        # What the dead process had begun is now anybody's.
        self.clock.write_text(LEASE)
        site.until(lambda: self._over(upload_id), f"the end, after a crash at call {call}")
        upload = site.completed(upload_id, path)
        assert upload["attempt"] == 1, f"call {call}"
        assert len(site.s3_uploads(upload_id)) == 1, f"call {call}"
        assert site.bytes_received(upload_id) <= (PARTS + IN_FLIGHT) * CHUNK, f"call {call}"
        made = [one for one in site.events(upload_id, Operation.COMPLETE_MULTIPART_UPLOAD) if one.done]
        assert len(made) == 1, f"call {call}"
        path.unlink()
        return crashed

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
            self.crashed = True
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


def tracer(strace: str, call: int) -> list[str]:
    """The command line that runs another and kills it at its `call`-th chance to lose something."""
    inject = f"inject={CALLS}:signal=SIGKILL:when={call}"
    return [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", inject]


@pytest.fixture
def sweep(tmp_path: Path, faketime: str, strace: str) -> Iterator[Sweep]:
    """A site with one agent that sends two parts side by side."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with running_site(tmp_path, {"CLIENT_TIMEOUT": "5", **clock_of(faketime, clock, traced=True)}) as site:
        site.attach(CLIENT, MAX_PARALLEL_PARTS=str(IN_FLIGHT))
        yield Sweep(site, clock, strace)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_agent_killed_at_any_call(sweep: Sweep) -> None:
    calls = sweep.run(sweep.site.agents[CLIENT])
    sys.stdout.write(f"{calls} crash points\n")
    # The identity, the command, the offer, each part, the end, the close.
    assert calls >= 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_control_plane_killed_at_any_call(sweep: Sweep) -> None:
    calls = sweep.run(sweep.site.plane)
    sys.stdout.write(f"{calls} crash points\n")
    # The trigger, the dispatch, the offer, the multipart upload, the question, the end, the proof.
    assert calls >= 6
