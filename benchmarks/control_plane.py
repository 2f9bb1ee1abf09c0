"""The control plane alone: status messages a second, and what 100,000 registered clients do to its answers.

Rule: the program is `backhaul serve`; its load comes from another process, its CPU from /proc.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.figures import MIB, Figure, Report, median, percentile
from benchmarks.processes import cpu_seconds, python_module, resident_bytes, run
from benchmarks.round_trip import round_trip_client
from benchmarks.site import ROOT, Site, get_json, running_site
from control_plane.adapters.database import SqlDatabase
from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.packets import Connect, Publish, TopicFilter
from control_plane.domain.clients import Client

RATE: Final = 8_000
DEVICES: Final = 10_000
"""Each publishes less than one Status a second, as an agent does; more would be over the budget of a client."""

ASKED: Final = 200
LOOKS: Final = 150
DELAYED: Final = 2.0
"""The limit of the ratio busy to calm: up to it, a response counts as not delayed while a core is half busy."""

_PAUSE: Final = 0.05
_BATCH: Final = 1_000
_SETTLED: Final = 3.0
_COUNT_EVERY: Final = 11.0


def ingest(messages: int = 120_000) -> Report:
    """The Status messages of 10,000 devices, and how long a response takes to be answered meanwhile."""
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
    """Receives the number of messages that the broker dropped; Mosquitto publishes it every ten seconds."""

    def __init__(self) -> None:
        self.reported: asyncio.Queue[int] = asyncio.Queue()

    def connected(self, connection: MqttConnection) -> None:
        """Subscribe to the broker's own counter."""
        connection.subscribe([TopicFilter("$SYS/broker/publish/messages/dropped")])

    def received(self, message: Publish) -> None:
        """The retained value first, then a new one after each change."""
        self.reported.put_nowait(int(message.payload))

    def acknowledged(self, packet_id: int, reason: int) -> None:
        """Nothing is waited for."""

    def disconnected(self, connection: MqttConnection, why: str) -> None:
        """Nothing to do: the benchmark has ended."""


async def _dropped(site: Site) -> int:
    """The broker's own count, after the time that it needs to publish it."""
    await asyncio.sleep(_COUNT_EVERY)
    counter, address = _Counter(), site.broker.address
    connection = MqttConnection(Connect(client_id="benchmark-counter", clean_start=True), counter)
    await asyncio.get_running_loop().create_connection(lambda: connection, address.host, address.port)
    async with asyncio.timeout(2 * _COUNT_EVERY):
        count = await counter.reported.get()
    connection.close()
    return count


def _beside(busy: list[float], calm: list[float], share: float) -> tuple[float, str, str, float]:
    return 1000 * percentile(busy, share), "ms", "ms calm", 1000 * percentile(calm, share)


async def _calm(site: Site) -> list[float]:
    """Seconds from a response to its answer, without other load."""
    found: list[float] = []
    async with round_trip_client(site.broker.address) as client:
        for _ in range(LOOKS):
            found.append(await client.measure())
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
    async with round_trip_client(address) as client:
        while not flood.done():
            found.append(await client.measure())
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
