"""A thousand readers of the event stream beside ten: the CPU of the control plane, and the delay of an event.

Rule: the same changes for both, appended by another process as a replica would; the readers are a third one, and every
one of them must get every event.
"""

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Figure, Report
from benchmarks.processes import cpu_seconds, python_module, resident_bytes
from benchmarks.site import ROOT, Site, plane_settings, running_site
from broker.child_process import clean_environment
from control_plane.adapters.database import SqlDatabase
from control_plane.domain.changes import UploadStateChanged
from control_plane.domain.uploads.model import State

FEW: Final = 10
PER_SECOND: Final = 20
_REST: Final = 2
"""Seconds in which the last changes are sent."""

_SETTINGS: Final = {"TRUSTED_PROXIES": "1"}
"""All readers have one address here, as behind a proxy."""


@dataclass(frozen=True, slots=True)
class Run:
    """What so many readers saw, and CPU seconds and memory of the control plane meanwhile."""

    seen: dict[str, Any]
    cpu: float
    resident: int


def streams(readers: int = 1_000, seconds: int = 30) -> Report:
    """Few readers, and many; CPU without any reader is measured too."""
    none, few, many = (_measure(count, seconds) for count in (0, FEW, readers))
    cost = (many.cpu - few.cpu) / (readers - FEW) / (seconds * PER_SECOND)
    incomplete = many.seen["disconnected"] + (many.seen["events"] != [seconds * PER_SECOND])
    figures = [
        Figure(f"longest delay of an event, {readers:,} readers", many.seen["longest_delay"], "s", at_most=1.0),
        Figure("median delay", many.seen["median_delay"], "s"),
        Figure("readers that missed an event, or more", incomplete, "", at_most=0),
        Figure(
            f"CPU of the control plane, {readers:,} readers against {FEW}",
            many.cpu,
            "s",
            against="s",
            beside=few.cpu,
        ),
        Figure(f"share of a core, {readers:,} readers", 100 * many.cpu / (seconds + _REST), "%", at_most=5.0),
        Figure("CPU per event and reader", cost * 1e6, "µs"),
        Figure("memory per reader", (many.resident - few.resident) / (readers - FEW) / 1024, "KiB"),
    ]
    details = {"few": few.seen, "many": many.seen, "seconds": seconds, "cpu": [none.cpu, few.cpu, many.cpu]}
    return Report("streams", figures, details)


def _measure(readers: int, seconds: int) -> Run:
    with tempfile.TemporaryDirectory() as directory, running_site(Path(directory), _SETTINGS) as site:
        url = plane_settings(Path(directory), "", "", 0)["DATABASE_URL"]
        with _reading(site, readers) as seen:
            before = cpu_seconds(site.plane.pid)
            asyncio.run(_append(url, seconds))
            time.sleep(_REST)
            cpu = cpu_seconds(site.plane.pid) - before
        return Run(seen, cpu, resident_bytes(site.plane.pid))


async def _append(url: str, seconds: int) -> None:
    """So many changes a second, at even distances."""
    database = SqlDatabase.open(url)
    began = time.monotonic()
    for number in range(seconds * PER_SECOND):
        await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        change = UploadStateChanged(
            at=time.time(),
            client_id=f"restaurant-{number % 100}",
            upload_id=f"{number:032x}",
            attempt=1,
            was=State.COMPLETING,
            state=State.COMPLETED,
            error=None,
        )
        await database.write(lambda records, one=change: records.changes.append([one]))  # type: ignore[misc]
    await database.close()


@contextmanager
def _reading(site: Site, count: int) -> Iterator[dict[str, Any]]:
    """So many streams; what the readers saw is in the dictionary at the end."""
    with subprocess.Popen(
        python_module("benchmarks.readers", site.server, str(count)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment({}),
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None  # noqa: S101 - for the type checker
        assert process.stdout is not None  # noqa: S101 - for the type checker
        if process.stdout.readline() != "ready\n":
            message = "the readers did not open their streams"
            raise RuntimeError(message)
        seen: dict[str, Any] = {}
        yield seen
        process.stdin.write("\n")
        process.stdin.flush()
        seen |= json.loads(process.stdout.readline())
