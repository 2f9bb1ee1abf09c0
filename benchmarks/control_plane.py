"""The control plane alone: status messages a second, and what 100,000 registered clients do to its answers.

Rule: the program is `backhaul serve`; its load comes from another process, its CPU from /proc.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.asker import asking
from benchmarks.figures import MIB, Figure, Report, median, percentile
from benchmarks.processes import cpu_seconds, python_module, resident_bytes, run
from benchmarks.site import ROOT, Site, get_json, running_site
from control_plane.adapters.database import SqlDatabase
from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.packets import Connect, Publish, TopicFilter
from control_plane.domain.clients import Client

RATE: Final = 8_000
DEVICES: Final = 2_000
ASKED: Final = 200
LOOKS: Final = 150
DELAYED: Final = 2.0
"""Times as long as when calm: what counts as no delay of a response beside which a core is half busy."""

_PAUSE: Final = 0.05
_BATCH: Final = 1_000
_SETTLED: Final = 3.0
_TOLD_EVERY: Final = 11.0


def ingest(messages: int = 120_000) -> Report:
    """A flood of Status of 2,000 devices, and how long a response takes to be answered meanwhile."""
    with tempfile.TemporaryDirectory() as directory, running_site(Path(directory)) as site:
        calm = asyncio.run(_calm(site))
        before, started = cpu_seconds(site.plane.pid), time.monotonic()
        busy = asyncio.run(_flooded(site, messages))
        spent, seconds = _settled(site, before), time.monotonic() - started
        dropped = asyncio.run(_dropped(site))
    during = f"at {RATE:,} status messages a second"
    figures = [
        Figure("status messages a second, one core", (messages - dropped) / spent, "/s", at_least=RATE),
        Figure("status messages that the broker dropped", dropped, "", at_most=0),
        Figure(f"answer to a response, {during}, median", *_beside(busy, calm, 0.5), at_most=DELAYED),
        Figure(f"answer to a response, {during}, p95", *_beside(busy, calm, 0.95)),
    ]
    details = {"messages": messages, "cpu_seconds": spent, "seconds": seconds, "answers": {"calm": calm, "busy": busy}}
    return Report("ingest", figures, details)


def clients(registered: int = 100_000) -> Report:
    """A database full of clients, before the control plane starts."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "control-plane"
        folder.mkdir()
        asyncio.run(_register(f"sqlite:///{folder / 'backhaul.db'}", registered))
        with running_site(Path(directory)) as site:
            resident = resident_bytes(site.plane.pid)
            pages = list(_times(f"{site.server}/clients", ASKED))
            last = f"client-{registered // 2:06}"
            statuses = list(_times(f"{site.server}/status/{last}", ASKED))
    many = f"{registered:,} registered clients"
    figures = [
        Figure(f"GET /clients, a page of {many}, p95", 1000 * percentile(pages, 0.95), "ms", at_most=20),
        Figure(f"GET /status, {many}, p95", 1000 * percentile(statuses, 0.95), "ms", at_most=20),
        Figure(f"control plane resident, {many}", resident / MIB, "MiB"),
    ]
    details = {"median_ms": {"clients": 1000 * median(pages), "status": 1000 * median(statuses)}}
    return Report("clients", figures, details)


class _Counter:
    """Hears how many messages the broker dropped since its start; Mosquitto tells it every ten seconds."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[int] = asyncio.Queue()

    def connected(self, connection: MqttConnection) -> None:
        """Listen to the broker itself."""
        connection.subscribe([TopicFilter("$SYS/broker/publish/messages/dropped")])

    def received(self, message: Publish) -> None:
        """The retained value first, then a fresh one when it changed."""
        self.told.put_nowait(int(message.payload))

    def acknowledged(self, packet_id: int, reason: int) -> None:
        """Nothing is waited for."""

    def disconnected(self, connection: MqttConnection, why: str) -> None:
        """It is over."""


async def _dropped(site: Site) -> int:
    """The broker's own count, after it had time to tell it."""
    await asyncio.sleep(_TOLD_EVERY)
    counter, address = _Counter(), site.broker.address
    connection = MqttConnection(Connect(client_id="benchmark-counter", clean_start=True), counter)
    await asyncio.get_running_loop().create_connection(lambda: connection, address.host, address.port)
    async with asyncio.timeout(2 * _TOLD_EVERY):
        count = await counter.told.get()
    connection.close()
    return count


def _beside(busy: list[float], calm: list[float], share: float) -> tuple[float, str, str, float]:
    return 1000 * percentile(busy, share), "ms", "ms calm", 1000 * percentile(calm, share)


async def _calm(site: Site) -> list[float]:
    """Seconds from a response to its answer, with nothing beside."""
    found: list[float] = []
    async with asking(site.broker.address) as asker:
        for _ in range(LOOKS):
            found.append(await asker.ask())
            await asyncio.sleep(_PAUSE)
    return found


async def _flooded(site: Site, messages: int) -> list[float]:
    """The same while another process publishes."""
    address = site.broker.address
    arguments = (str(address.port), str(messages), str(RATE), str(DEVICES))
    flood = asyncio.create_task(
        asyncio.to_thread(run, python_module("benchmarks.flood", *arguments), {"PYTHONPATH": str(ROOT)})
    )
    found: list[float] = []
    async with asking(address) as asker:
        while not flood.done():
            found.append(await asker.ask())
            await asyncio.sleep(_PAUSE)
    await flood
    return found


def _settled(site: Site, before: float) -> float:
    """CPU seconds since `before` once nothing is left to do."""
    spent = cpu_seconds(site.plane.pid)
    while True:
        time.sleep(_SETTLED)
        now = cpu_seconds(site.plane.pid)
        if now - spent < 0.1 * _SETTLED:
            return spent - before
        spent = now


def _times(url: str, count: int) -> Iterator[float]:
    for _ in range(count):
        started = time.perf_counter()
        get_json(url)
        yield time.perf_counter() - started


async def _register(url: str, count: int) -> None:
    store = SqlDatabase.open(url)
    now = time.time()
    for start in range(0, count, _BATCH):
        some = [_client(number, now) for number in range(start, min(start + _BATCH, count))]
        await store.write(lambda records, some=some: records.clients.save(some))  # type: ignore[misc]
    await store.close()


def _client(number: int, now: float) -> Client:
    return Client(
        client_id=f"client-{number:06}",
        install_id=f"install-{number}",
        epoch=1,
        sequence=0,
        online=True,
        seen_at=now,
        connected_at=now,
        registered_at=now,
        labels={"site": f"site-{number % 500}"},
    )
