"""A selection from a million files: memory and CPU of the agent, and how soon pages are there.

Rule: the real agent, real files and a broker; the files are empty. The peak is that of the whole process.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.agent import CLIENT, Place, agent_process
from benchmarks.figures import MIB, Figure, Report
from benchmarks.owner import owning
from benchmarks.peers import Sink
from benchmarks.processes import cpu_seconds, forget_peak, peak_bytes, resident_bytes
from benchmarks.site import running_broker
from control_plane.cli.simulate.http_pool import HttpPool
from schemas.messages import MAX_SELECTED, SelectFiles
from schemas.values import Pick

FOLDERS: Final = 100
LARGEST: Final = 32
"""MiB that the whole agent may take."""


def selection(files: int = 1_000_000) -> Report:
    """The newest 10,000 of that many files."""
    with tempfile.TemporaryDirectory() as directory, running_broker(Path(directory)) as broker:
        folder = Path(directory)
        _make(folder / "data", files)
        with agent_process(Place(folder, broker, Sink("http://127.0.0.1:9")), folder / "state") as agent:
            found = asyncio.run(_measure(folder, broker.address, agent.pid, files))
    peak = Figure(f"agent peak, a selection from {files:,} files", found["peak"] / MIB, "MiB", at_most=LARGEST)
    figures = [
        peak,
        Figure("the same, over what it was before", (found["peak"] - found["idle"]) / MIB, "MiB"),
        Figure("the first answer", found["first answer"], "s", at_most=5),
        Figure(f"the walk of {files:,} files", found["walk"], "s"),
        Figure("agent CPU of the walk, each file", found["cpu"] / files * 1e6, "us"),
        Figure(f"{MAX_SELECTED:,} entries read in pages", found["pages"], "s"),
    ]
    return Report("selection", figures, found)


def _make(folder: Path, files: int) -> None:
    for number in range(FOLDERS):
        (folder / f"{number:03}").mkdir(parents=True)
        inside = os.open(folder / f"{number:03}", os.O_RDONLY | os.O_DIRECTORY)
        for file in range(files // FOLDERS):
            os.close(os.open(f"report-{file:07}.csv", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=inside))
        os.close(inside)


async def _measure(folder: Path, address: Any, agent: int, files: int) -> dict[str, Any]:  # noqa: ANN401
    async with owning(address, "", HttpPool(1)) as owner:
        await owner.online(CLIENT)
        await asyncio.sleep(1)
        request = SelectFiles("benchmark", (f"{folder}/data/**/*.csv",), pick=Pick.NEWEST)
        idle, cpu = resident_bytes(agent), cpu_seconds(agent)
        forget_peak(agent)
        began = time.perf_counter()
        page = await owner.select(CLIENT, request)
        first = time.perf_counter() - began
        while not page.complete:
            await asyncio.sleep(0.2)
            page = await owner.select(CLIENT, request, page.selection)
        walk = time.perf_counter() - began
        used = cpu_seconds(agent) - cpu
        entries = len(page.entries)
        while page.next is not None:
            page = await owner.select(CLIENT, request, page.selection, page.next)
            entries += len(page.entries)
    if (page.files, entries) != (files, min(files, MAX_SELECTED)):
        message = f"{page.files} files matched, and {entries} were read"
        raise RuntimeError(message)
    pages = time.perf_counter() - began - walk
    peak = peak_bytes(agent)
    return {"first answer": first, "walk": walk, "pages": pages, "cpu": used, "idle": idle, "peak": peak}
