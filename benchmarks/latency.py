"""From a trigger to a completed upload of 4 KiB, beside the least that it could take on this machine.

Rule: the floor is two MQTT round trips, one PUT and two durable commits, one after the other, between any two uploads:
so disk and processor are in the same power state for both. A real agent uploads another file each
time; the end is when the control plane releases it, which follows the commit of `completed`.
"""

import asyncio
import json
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.agent import CLIENT, Place, agent_process
from benchmarks.figures import Figure, Report, median, percentile
from benchmarks.peers import Sink
from benchmarks.site import BUCKET, Site, running_site
from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.http_pool import HttpPool
from control_plane.cli.simulate.packets import Connect, Publish, TopicFilter, text
from schemas.codec import decode_command
from schemas.messages import CloseUpload
from schemas.topics import Channel, Topics

ROUNDS: Final = 60
WARM_UP: Final = 5
PAUSE: Final = 0.05
"""Seconds of rest before each upload and each floor."""
SIZE: Final = 4096
_ECHO: Final = "benchmark/echo"


def latency() -> Report:
    """The median, and the 95th percentile, of one upload after the other."""
    with tempfile.TemporaryDirectory() as directory, running_site(Path(directory)) as site:
        folder = Path(directory)
        for path in _files(folder):
            path.write_bytes(bytes(SIZE))
        place = Place(folder, site.broker, Sink(site.sink_url))
        with agent_process(place, folder / "state"):
            times, floors = asyncio.run(_measure(site, folder))
    steps = {name: median([floor[name] for floor in floors]) for name in floors[0]}
    figures = [
        Figure("trigger to completed, 4 KiB, median", *_beside(times, floors, 0.5), at_most=3.0),
        Figure("trigger to completed, 4 KiB, p95", *_beside(times, floors, 0.95)),
        *(Figure(f"floor: {name}", 1000 * seconds, "ms") for name, seconds in steps.items()),
    ]
    return Report("latency", figures, {"seconds": times, "floors": floors})


def _beside(times: list[float], floors: list[dict[str, float]], share: float) -> tuple[float, str, str, float]:
    least = [sum(floor.values()) for floor in floors]
    return 1000 * percentile(times, share), "ms", "ms floor", 1000 * percentile(least, share)


class _Observer:
    """Receives the commands that close uploads, and its own echo."""

    def __init__(self) -> None:
        self.connection: MqttConnection | None = None
        self.ready = asyncio.Event()
        self.closed: asyncio.Queue[str] = asyncio.Queue()
        self.echoed = asyncio.Event()

    def connected(self, connection: MqttConnection) -> None:
        """Subscribe."""
        self.connection = connection
        connection.subscribe([TopicFilter(Topics().every(Channel.COMMAND)), TopicFilter(_ECHO)])

    def received(self, message: Publish) -> None:
        """A command, or the echo."""
        if message.topic == _ECHO:
            self.echoed.set()
            return
        payload = decode_command(message.payload).payload
        if isinstance(payload, CloseUpload):
            self.closed.put_nowait(payload.about or "")

    def acknowledged(self, packet_id: int, reason: int) -> None:  # noqa: ARG002 - the listener's signature
        """The subscription stands."""
        self.ready.set()

    def disconnected(self, connection: MqttConnection, why: str) -> None:
        """Nothing to do: the benchmark has ended."""


async def _measure(site: Site, folder: Path) -> tuple[list[float], list[dict[str, float]]]:
    observer, http = _Observer(), HttpPool(4)
    connection = MqttConnection(Connect(client_id="benchmark-ear", clean_start=True), observer)
    address = site.broker.address
    await asyncio.get_running_loop().create_connection(lambda: connection, address.host, address.port)
    await observer.ready.wait()
    await _known(site, http)
    times: list[float] = []
    floors: list[dict[str, float]] = []
    with closing(_database(folder / "floor.db")) as database:
        for path in _files(folder):
            times.append(await _upload(site, observer, http, str(path)))
            await asyncio.sleep(PAUSE)
            floors.append(await _floor(site, observer, http, database))
            await asyncio.sleep(PAUSE)
    connection.close()
    http.close()
    return times[WARM_UP:], floors[WARM_UP:]


def _files(folder: Path) -> list[Path]:
    return [folder / f"small-{number}.bin" for number in range(WARM_UP + ROUNDS)]


async def _known(site: Site, http: HttpPool) -> None:
    """Wait until the control plane sees the agent."""
    async with asyncio.timeout(20):
        while b'"connected":true' not in await _status(site, http):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def _status(site: Site, http: HttpPool) -> bytes:
    return (await http.send("GET", f"{site.server}/status/{CLIENT}", {})).body


async def _upload(site: Site, observer: _Observer, http: HttpPool, path: str) -> float:
    started = time.perf_counter()
    body = json.dumps({"file_path": path}).encode()
    headers = {"Content-Type": "application/json"}
    answer = await http.send("POST", f"{site.server}/trigger-download/{CLIENT}", headers, body)
    upload_id = json.loads(answer.body)["upload_id"]
    async with asyncio.timeout(30):
        while await observer.closed.get() != upload_id:
            pass
    return time.perf_counter() - started


async def _round_trip(observer: _Observer) -> float:
    """A message at QoS 1 to the broker and back."""
    assert observer.connection is not None  # noqa: S101 - it is connected
    observer.echoed.clear()
    started = time.perf_counter()
    observer.connection.publish(text(_ECHO), b"x" * 512)
    await observer.echoed.wait()
    return time.perf_counter() - started


async def _put(site: Site, http: HttpPool) -> float:
    started = time.perf_counter()
    await http.send("PUT", f"{site.sink_url}/{BUCKET}/floor", {}, bytes(SIZE))
    return time.perf_counter() - started


async def _floor(site: Site, observer: _Observer, http: HttpPool, database: sqlite3.Connection) -> dict[str, float]:
    """Seconds of each step, in the order in which an upload takes them."""
    return {
        "commit": _commit(database),
        "round trip": await _round_trip(observer),
        "PUT": await _put(site, http),
        "second round trip": await _round_trip(observer),
        "second commit": _commit(database),
    }


def _database(path: Path) -> sqlite3.Connection:
    """With the control plane's own settings."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE rows (value TEXT)")
    return database


def _commit(database: sqlite3.Connection) -> float:
    """Seconds that one durable commit of one row takes."""
    started = time.perf_counter()
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO rows VALUES (?)", ("x" * 50,))
    database.execute("COMMIT")
    return time.perf_counter() - started
