"""What the agent asks of a disk for one upload: synchronisations and bytes written, counted by strace.

Rule: counts, not times: the load of the machine hardly changes them. The floor is traced by the same strace in the same
run. An upload is counted from its command until its last record is written.
"""

import asyncio
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.agent import CLIENT, Place, agent_process, http_of, place_over, random_file
from benchmarks.figures import Figure, Report, median
from benchmarks.owner import owning
from benchmarks.processes import python_module
from benchmarks.site import ROOT
from broker.child_process import clean_environment
from schemas.values import DigestName
from tests.support.bad_days.tracing import Disk
from tests.support.bad_days.tracing import Watched as Traced

KIB: Final = 1024
PART: Final = 5
"""MiB, which is the agent's own choice for these files."""

MOST: Final = {1: (4, 4 * KIB), 52: (58, 20 * KIB)}
"""Parts of an upload: synchronisations and bytes, the bounds of docs/explanation/bad-days.md."""

_LAST: Final = b'"completed"'
_SETTLED: Final = 1.0
_PATIENCE: Final = 30.0


def writes(rounds: int = 3) -> Report:
    """An upload of one part and one of 52, each by an agent that is connected and has had one upload before."""
    strace = shutil.which("strace")
    if strace is None:
        message = "strace is not installed"
        raise RuntimeError(message)
    figures: list[Figure] = []
    details: dict[str, list[dict[str, int]]] = {}
    with place_over("http") as place:
        for parts, (syncs, written) in MOST.items():
            folder = place.folder / str(parts)
            folder.mkdir()
            file = random_file(folder, 0 if parts == 1 else parts * PART)
            found = [asyncio.run(_traced(place, strace, folder / f"state-{n}", file)) for n in range(rounds)]
            floor = _floor(strace, folder / "bare", parts)
            details |= {f"agent, {_named(parts)}": [_numbers(one) for one in found]}
            details |= {f"floor, {_named(parts)}": [_numbers(floor)]}
            ours, bytes_ours = median([one.syncs for one in found]), median([one.bytes for one in found])
            what, kib = f"for an upload of {_named(parts)}", bytes_ours / KIB
            bare = f"floor: a synced line for each part, {_named(parts)}"
            figures += [
                Figure(f"agent synchronisations {what}", ours, "", at_most=syncs),
                Figure(f"{bare}, synchronisations", floor.syncs, "", "agent", ours),
                Figure(f"agent bytes written {what}", kib, "KiB", at_most=written / KIB),
                Figure(f"{bare}, bytes written", floor.bytes / KIB, "KiB", "KiB agent", kib),
            ]
    return Report("agent-writes", figures, details)


async def _traced(place: Place, strace: str, state: Path, file: Path) -> Disk:
    """The first upload is not counted: it makes the files that stay."""
    async with owning(place.broker.address, place.sink.url, http_of(place.sink)) as owner:
        with agent_process(place, state) as agent:
            await owner.online(CLIENT)
            await owner.upload(CLIENT, str(file), DigestName.MD5)
            await _closed(state, 1)
            with Traced(strace, state.with_suffix(".strace"), agent.pid) as traced:
                await owner.upload(CLIENT, str(file), DigestName.MD5)
                await _closed(state, 2)
    return traced.disk


async def _closed(state: Path, number: int) -> None:
    """Wait until the journal has that many last records, and until the last one is synced."""
    deadline = time.monotonic() + _PATIENCE
    while (state / "journal").read_bytes().count(_LAST) < number:
        if time.monotonic() > deadline:
            message = f"the journal has no record of the end of upload {number}"
            raise RuntimeError(message)
        await asyncio.sleep(0.05)
    await asyncio.sleep(_SETTLED)


def _floor(strace: str, path: Path, parts: int) -> Disk:
    command = python_module("benchmarks.bare_journal", str(path), str(parts))
    settings = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, env=clean_environment(settings), stdin=subprocess.PIPE) as bare:
        with Traced(strace, path.with_suffix(".strace"), bare.pid) as traced:
            bare.communicate(timeout=_PATIENCE)
        return traced.disk


def _named(parts: int) -> str:
    return "one part" if parts == 1 else f"{parts} parts"


def _numbers(disk: Disk) -> dict[str, int]:
    return {"synchronisations": disk.syncs, "bytes": disk.bytes}
