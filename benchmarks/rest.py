"""The agent at rest as its unit runs it: CPU, wake-ups, bytes written and memory, beside a bare MQTT client.

Rule: both run in the same minutes, on the same broker, from the same environment. CPU is the kernel's own sum of run
times, in nanoseconds: ticks of 10 ms are too coarse for a process that rests.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from benchmarks.agent import CLIENT, Place, agent_process, bare_client, http_of, place_over, random_file
from benchmarks.figures import MIB, Figure, Report
from benchmarks.owner import owning
from benchmarks.processes import resident_bytes
from schemas.values import DigestName

WATCHDOG: Final = 180
"""Seconds, as in the unit."""

SETTLED: Final = 5.0
_WRITES: Final = "write_bytes:"
_WAKES: Final = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")


@dataclass(frozen=True, slots=True)
class Rest:
    """What a process has taken since its start."""

    cpu: float
    wakes: int
    written: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """CPU in seconds, context switches, and bytes that it made the kernel write to a disk."""
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        cpu = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        rows = [line.split() for task in tasks for line in (task / "status").read_text().splitlines()]
        wakes = sum(int(row[1]) for row in rows if row and row[0] in _WAKES)
        written = next(
            int(row.split()[1]) for row in Path(f"/proc/{pid}/io").read_text().splitlines() if _WRITES in row
        )
        return cls(cpu, wakes, written)

    def since(self, before: Self) -> Self:
        """The difference."""
        return type(self)(self.cpu - before.cpu, self.wakes - before.wakes, self.written - before.written)


def rest(seconds: int = 600) -> Report:
    """An agent that was used once and then rests, with everything that its unit turns on."""
    with place_over("http") as place, _service_manager(place.folder) as address:
        figures, details = asyncio.run(_rest(place, address, seconds))
    return Report("agent-rest", figures, details)


async def _rest(place: Place, address: str, seconds: int) -> tuple[list[Figure], dict[str, float]]:
    unit = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(WATCHDOG * 1_000_000), "LOG_LEVEL": "info"}
    file = random_file(place.folder, 0)
    async with owning(place.broker.address, place.sink.url, http_of(place.sink)) as owner:
        with agent_process(place, place.folder / "rest", unit) as agent, bare_client(place) as bare:
            bare.wait_for("online")
            await owner.online(CLIENT)
            idle = resident_bytes(agent.pid)
            await owner.upload(CLIENT, str(file), DigestName.MD5)
            await asyncio.sleep(SETTLED)
            before = Rest.of(agent.pid), Rest.of(bare.pid)
            await asyncio.sleep(seconds)
            ours, floor = Rest.of(agent.pid).since(before[0]), Rest.of(bare.pid).since(before[1])
            after, bare_memory = resident_bytes(agent.pid), resident_bytes(bare.pid)
    minutes = seconds / 60
    figures = [
        Figure("agent CPU at rest", ours.cpu / seconds * 100, "%", at_most=0.05),
        Figure(
            "floor: bare MQTT client, CPU at rest", floor.cpu / seconds * 100, "%", "% agent", ours.cpu / seconds * 100
        ),
        Figure("agent wake-ups at rest", ours.wakes / minutes, "/min", "/min bare client", floor.wakes / minutes),
        Figure("agent bytes written at rest", ours.written, "B", at_most=0),
        Figure("agent idle as its unit runs it, resident", idle / MIB, "MiB", "MiB bare client", bare_memory / MIB),
        Figure("agent idle as its unit runs it, after an upload", after / MIB, "MiB", at_most=32),
    ]
    return figures, {"seconds": seconds, "cpu": ours.cpu, "floor cpu": floor.cpu, "idle": idle, "after": after}


@contextmanager
def _service_manager(folder: Path) -> Iterator[str]:
    """The address of one that takes every message and does nothing."""
    path = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)

        def read() -> None:
            while listening.recv(4096) != b"END":
                pass

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
                own.sendto(b"END", path)
            thread.join()
