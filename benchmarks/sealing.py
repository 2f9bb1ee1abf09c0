"""A sealed file beside `age` itself: the same bytes, for one recipient, one after the other.

Rule: both are whole programs that write to /dev/null, so what is compared is CPU and seconds of reading and encrypting.
Before that `age -d` opens what the agent sealed, and it must be the file.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.agent import random_file
from benchmarks.figures import MIB, Figure, Report, median
from benchmarks.processes import Cost, python_module, run
from benchmarks.site import ROOT

_SMALL: Final = 4
"""MiB of the file that `age` opens again."""

ALONE: Final = "1"
AS_SENT: Final = "2"
"""Passes: a part is sealed for its digest, and again to be sent."""


def sealing(mebibytes: int = 512, rounds: int = 3) -> Report:
    """Encryption alone, and with the pass for the digests."""
    if shutil.which("age") is None:
        message = "age is not installed: apt-get install age"
        raise RuntimeError(message)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        key = folder / "key"
        subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
        recipient = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True, text=True).stdout.strip()
        _require_same(random_file(folder, _SMALL), key, recipient)
        path = random_file(folder, mebibytes)
        costs: dict[str, list[Cost]] = {"age": [], ALONE: [], AS_SENT: []}
        for _ in range(rounds):
            costs["age"].append(run(("age", "-r", recipient, "-o", "/dev/null", str(path))))
            for passes in (ALONE, AS_SENT):
                costs[passes].append(run(_command(path, recipient, passes), {"PYTHONPATH": str(ROOT)}))
    cpu = {name: median([cost.cpu for cost in some]) for name, some in costs.items()}
    rate = {name: mebibytes / median([cost.seconds for cost in some]) for name, some in costs.items()}
    gib = mebibytes / 1024
    figures = [
        Figure("sealing alone", rate[ALONE], "MiB/s", "MiB/s age", rate["age"]),
        Figure("sealing as an upload does, twice", rate[AS_SENT], "MiB/s", "MiB/s age", rate["age"]),
        Figure("sealing alone, CPU", cpu[ALONE] / gib, "s/GiB", "s/GiB age", cpu["age"] / gib),
        Figure("sealing as an upload does, CPU", cpu[AS_SENT] / gib, "s/GiB", "s/GiB age", cpu["age"] / gib),
        Figure("sealing, peak memory", costs[AS_SENT][0].peak_bytes / MIB, "MiB", "MiB age", _peak(costs["age"])),
    ]
    return Report("sealing", figures, {"mebibytes": mebibytes, "cpu": cpu, "rate": rate})


def _peak(costs: list[Cost]) -> float:
    return costs[0].peak_bytes / MIB


def _command(path: Path, recipient: str, passes: str) -> tuple[str, ...]:
    return tuple(python_module("benchmarks.seal_file", str(path), recipient, passes))


def _require_same(path: Path, key: Path, recipient: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sealed = subprocess.run(_command(path, recipient, AS_SENT), env=environment, check=True, capture_output=True).stdout
    opened = subprocess.run(["age", "-d", "-i", key], input=sealed, check=True, capture_output=True).stdout
    if hashlib.sha256(opened).digest() != hashlib.sha256(path.read_bytes()).digest():
        message = "age opened something else than was sealed"
        raise RuntimeError(message)
