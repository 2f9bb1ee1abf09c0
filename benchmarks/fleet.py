"""A fleet of simulated devices, one command each: uploads a minute, CPU per upload, memory per client, growth.

Rule: broker, control plane, store sink and devices share the machine, as the goal wants it; every upload is proven by
HEAD; beats, hellos and statuses are those of real agents. Nothing may be lost, and nothing sent twice.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Figure, Report
from benchmarks.processes import cpu_seconds, peak_bytes, resident_bytes
from benchmarks.site import ROOT, Site, running_site
from broker.child_process import clean_environment

SMALL: Final = 100
PATIENCE: Final = 600
_RATE: Final = 1000


@dataclass(frozen=True, slots=True)
class Run:
    """One fleet: what the devices reported, CPU seconds by program meanwhile, and the control plane's memory."""

    devices: int
    uploads: int
    reported: Mapping[str, Any]
    cpu: Mapping[str, float]
    repeated: int
    base_bytes: int
    connected_bytes: int
    peak_bytes: int

    @property
    def cpu_ms(self) -> dict[str, float]:
        """CPU milliseconds per upload."""
        return {name: 1000 * seconds / self.uploads for name, seconds in self.cpu.items()}


def fleet(devices: int = 10_000) -> Report:
    """Small and large, one after the other, so that they can be compared."""
    small = measure(SMALL, rounds=max(1, min(devices // SMALL, 30)))
    large = measure(devices)
    lost = large.uploads - large.reported["outcomes"].get("completed", 0)
    per_client = (large.connected_bytes - large.base_bytes) / large.devices
    figures = [
        Figure(f"uploads a minute, {devices:,} devices", large.reported["uploads_per_minute"], "/min", at_least=10_000),
        Figure("uploads lost", lost, "", at_most=0),
        Figure("objects sent twice", large.repeated, "", at_most=0),
        *(Figure(f"CPU per upload: {name}", cost, "ms") for name, cost in large.cpu_ms.items()),
        Figure(
            f"CPU per upload, {devices:,} devices against {SMALL}",
            sum(large.cpu_ms.values()),
            "ms",
            against="ms",
            beside=sum(small.cpu_ms.values()),
            at_most=1.2,
        ),
        Figure("control plane memory per connected client", per_client / 1024, "KiB", at_most=2.0),
        Figure("control plane peak", large.peak_bytes / 2**20, "MiB"),
    ]
    details = {"small": _details(small), "large": _details(large)}
    return Report("fleet", figures, details)


def measure(devices: int, rounds: int = 1) -> Run:
    """One site, one fleet."""
    with tempfile.TemporaryDirectory() as directory, running_site(Path(directory)) as site:
        base = resident_bytes(site.plane.pid)
        before = site.counts().puts
        command = (sys.executable, "-m", "control_plane.cli.main", "simulate", "--json", "--trigger")
        options = {
            "--server": site.server,
            "--mqtt-url": site.broker.address.url,
            "--devices": str(devices),
            "--rounds": str(rounds),
            "--rate": str(_RATE),
            "--patience": str(PATIENCE),
            # So that CPU can be read before the devices disconnect.
            "--duration": "3",
        }
        arguments = [word for pair in options.items() for word in pair]
        simulator = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment({}),
            cwd=ROOT,
        )
        window = _Window(site, simulator.pid)
        reported, output = _finish(simulator, window)
        if simulator.returncode:
            message = f"the simulator failed: {output}"
            raise RuntimeError(message)
        counts = site.counts()
        repeated = counts.repeated + (counts.puts - before) - reported["puts"]
        return Run(
            devices,
            devices * rounds,
            reported,
            window.cpu(),
            repeated,
            base,
            window.connected_bytes,
            peak_bytes(site.plane.pid),
        )


class _Window:
    """Reads CPU when all devices are connected, and when the last upload ended."""

    def __init__(self, site: Site, simulator: int) -> None:
        self.connected_bytes = 0
        self._site = site
        self._simulator = simulator
        self._marks: list[dict[str, float]] = []

    def mark(self) -> None:
        """Read it now."""
        if not self._marks:
            self.connected_bytes = resident_bytes(self._site.plane.pid)
        self._marks.append({**self._site.cpu(), "devices": cpu_seconds(self._simulator)})

    def cpu(self) -> dict[str, float]:
        """CPU seconds between the first and the last mark."""
        first, last = self._marks[0], self._marks[-1]
        return {name: last[name] - first[name] for name in last}


def _finish(simulator: "subprocess.Popen[str]", window: _Window) -> tuple[dict[str, Any], str]:
    """Mark when it reports that all are connected, then every half second; return its result and its messages."""
    assert simulator.stderr is not None  # noqa: S101 - for the type checker
    assert simulator.stdout is not None  # noqa: S101 - for the type checker
    output = simulator.stderr.readline()
    # What retained births and hellos cost belongs to connecting.
    window.mark()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5) and simulator.poll() is None:
            window.mark()

    watcher = threading.Thread(target=look)
    watcher.start()
    started = time.monotonic()
    reported = simulator.stdout.readline()
    over.set()
    watcher.join()
    rest = simulator.stderr.read()
    simulator.wait(PATIENCE)
    document: dict[str, Any] = json.loads(reported) if reported else {}
    document["window_seconds"] = time.monotonic() - started
    return document, output + rest


def _details(run: Run) -> dict[str, Any]:
    return {"devices": run.devices, "uploads": run.uploads, "told": run.reported, "cpu_ms_per_upload": run.cpu_ms}
