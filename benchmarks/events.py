"""The event stream: a thousand readers beside ten, under the same uploads.

Rule: each reader follows one client, as `backhaul watch` does; the uploads and their pace are the same in both runs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import MIB, Figure, Report, percentile
from benchmarks.processes import cpu_seconds, python_module, resident_bytes
from benchmarks.site import ROOT, running_site
from broker.child_process import clean_environment

FEW: Final = 10
NAME: Final = "simulated-{}"
_PATIENCE: Final = 600


def events(readers: int = 1_000, rounds: int = 5) -> Report:
    """Few readers, then many."""
    few, many = _measure(FEW, readers, rounds), _measure(readers, readers, rounds)
    lost = readers * rounds - len(many["delays"])
    figures = [
        Figure(f"an event at its reader, {readers:,} readers, p95", percentile(many["delays"], 0.95), "s", at_most=1.0),
        Figure("events that did not arrive", lost, "", at_most=0),
        Figure(
            f"control plane CPU with {readers:,} readers", many["cpu"], "s", f"s {FEW} readers", few["cpu"], at_most=1.3
        ),
        Figure("control plane memory per reader", (many["resident"] - few["resident"]) / readers / 1024, "KiB"),
    ]
    details = {name: {**run, "delays": len(run["delays"])} for name, run in {"few": few, "many": many}.items()}
    return Report("events", figures, {**details, "resident_mib": many["resident"] / MIB})


def _measure(readers: int, devices: int, rounds: int) -> dict[str, Any]:
    """Uploads of all devices while that many readers follow one device each."""
    with tempfile.TemporaryDirectory() as directory, running_site(Path(directory)) as site:
        following = subprocess.Popen(
            python_module("benchmarks.readers", site.server, str(readers), NAME),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment({"PYTHONPATH": str(ROOT)}),
            cwd=ROOT,
        )
        assert following.stdout is not None  # noqa: S101 - for the type checker
        try:
            if following.stdout.readline() != "ready\n":
                message = "the readers do not connect"
                raise RuntimeError(message)
            before = cpu_seconds(site.plane.pid)
            options = ("--devices", str(devices), "--rounds", str(rounds), "--triggers-at-once", "8")
            where = ("--server", site.server, "--mqtt-url", site.broker.address.url, "--username", NAME)
            command = (sys.executable, "-m", "control_plane.cli.main", "simulate", "--json", "--trigger")
            subprocess.run(
                [*command, *where, *options],
                check=True,
                capture_output=True,
                timeout=_PATIENCE,
                env=clean_environment({}),
                cwd=ROOT,
            )
            cpu, resident = cpu_seconds(site.plane.pid) - before, resident_bytes(site.plane.pid)
            output, _ = following.communicate("")
        finally:
            following.kill()
            following.wait()
        return {"cpu": cpu, "resident": resident, "delays": json.loads(output)["delays"]}
