"""The agent beside other uploaders: CPU, throughput and memory for one large file; then its whole life.

Rule: the agent is the real program with a broker and an owner that grants without signing. Its CPU is that of the whole
process, from its start to its end, as is that of the peers; a figure is the median of the rounds.
"""

import asyncio
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import peers
from benchmarks.certificates import self_signed
from benchmarks.figures import MIB, Figure, Report, median
from benchmarks.owner import owning
from benchmarks.peers import Sink
from benchmarks.processes import Cost, Watched, cpu_seconds, forget_peak, peak_bytes, resident_bytes
from benchmarks.sink import COUNTS
from benchmarks.site import ROOT, running_broker, running_sink
from broker.process import Broker
from control_plane.cli.simulate.http_pool import HttpPool
from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from device_agent.trust.trust_file import TrustFile
from schemas.signing.documents import RootDocument
from schemas.signing.ed25519 import SEED_SIZE, Signer
from schemas.signing.trust import sign_document
from schemas.topics import Topics
from schemas.values import DigestName

CLIENT: Final = "benchmark-agent"
GOALS: Final = {DigestName.MD5: 0.75, DigestName.SHA256: 0.45, DigestName.CRC32: 0.3, DigestName.NONE: 0.2}
OVER_TLS: Final = 0.15
_ENVIRONMENT: Final = ROOT / "build" / "agent"
PEERS: Final[dict[str, Callable[[Path, Sink], Cost]]] = {
    "aws s3 cp": peers.aws,
    "boto3": peers.boto3,
    "rclone": peers.rclone,
    "bare loop": peers.floor,
}


def _installed() -> str:
    """The interpreter of an environment with the agent's locked requirements, made at the first call."""
    python = _ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", _ENVIRONMENT], check=True)
        requirements = ROOT / "requirements" / "agent.txt"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", requirements], check=True)
    return str(python)


@dataclass(frozen=True, slots=True)
class Place:
    """Where agents of this benchmark live."""

    folder: Path
    broker: Broker
    sink: Sink
    python: str = field(default_factory=_installed)
    """Runs them."""


def uploads(mebibytes: int = 1024, rounds: int = 3) -> Report:
    """One large file, every digest, over HTTP and over TLS, each beside the peers of the same round."""
    peers.install()
    figures: list[Figure] = []
    details: dict[str, Any] = {"mebibytes": mebibytes, "peers": peers.versions()}
    for scheme in ("http", "https"):
        with place_over(scheme) as place:
            path = random_file(place.folder, mebibytes)
            costs: dict[str, list[Cost]] = {}
            digests: dict[str, list[float]] = {}
            for _ in range(rounds):
                for digest in DigestName:
                    digests.setdefault(digest, []).append(_digesting(path, digest))
                for name, peer in PEERS.items():
                    with _arriving(place.sink, path):
                        costs.setdefault(name, []).append(peer(path, place.sink))
                for digest in DigestName:
                    with _arriving(place.sink, path):
                        costs.setdefault(f"agent {digest}", []).append(asyncio.run(_once(place, path, digest)))
        details[scheme] = {name: [asdict(cost) for cost in some] for name, some in costs.items()}
        details[f"{scheme}, digest alone"] = digests
        alone = {name: median(some) for name, some in digests.items()}
        figures += _figures(scheme, costs, alone, mebibytes / 1024)
    return Report("agent", figures, details)


def life(uploads_done: int = 1_000) -> Report:
    """Start to online, idle, and whether a thousand uploads leave anything behind."""
    with place_over("http") as place:
        small = random_file(place.folder, 0)
        found = asyncio.run(_life(place, small, uploads_done))
    grown = found["after all"] - found["after a tenth"]
    figures = [
        Figure("agent start to online", found["start"], "s", at_most=0.5),
        Figure("floor: bare MQTT client, start to online", found["bare start"], "s", "s agent", found["start"]),
        Figure("agent idle, resident", found["idle"] / MIB, "MiB", at_most=32),
        Figure(f"agent growth over {uploads_done:,} uploads", grown / MIB, "MiB", at_most=1),
        Figure("agent CPU for one upload of 4 KiB", found["cpu"] / uploads_done * 1000, "ms"),
    ]
    return Report("agent-life", figures, found)


def keys() -> Report:
    """What signatures take of the memory of an agent at rest."""
    with place_over("http") as place:
        (place.folder / "signed").mkdir()
        _store_root(place.folder / "signed")
        unsigned, signed = (asyncio.run(_idle(place, place.folder / name)) for name in ("unsigned", "signed"))
    figures = [
        Figure("signed agent idle, resident", signed / MIB, "MiB", at_most=34),
        Figure("the same, over an unsigned agent", (signed - unsigned) / MIB, "MiB"),
    ]
    return Report("agent-keys", figures, {"unsigned": unsigned, "signed": signed})


def _store_root(state: Path) -> None:
    """Make the agent of a state folder a signed one."""
    signer, topic = Signer(os.urandom(SEED_SIZE)), Topics().keys()
    root = RootDocument(1, 1, (signer.verifier.text,), datetime.now(UTC))
    TrustFile.store_root(state, topic, sign_document(root, topic, [signer]))


async def _idle(place: Place, state: Path) -> int:
    """Bytes that an agent has resident when it is connected and rests."""
    async with owning(place.broker.address, place.sink.url, http_of(place.sink)) as owner:
        with agent_process(place, state) as agent:
            await owner.online(CLIENT)
            await asyncio.sleep(2)
            return resident_bytes(agent.pid)


def _digesting(path: Path, digest: DigestName) -> float:
    """CPU seconds to read the file and digest it, as the agent does it, and nothing else."""
    with open_source(str(path), Roots((str(path.parent),))) as source:
        before = time.process_time()
        source.digest(0, source.size, digest)
        return time.process_time() - before


def _figures(
    scheme: str, costs: dict[str, list[Cost]], digesting: dict[str, float], gibibytes: float
) -> Iterator[Figure]:
    def cpu(name: str) -> float:
        return median([cost.cpu for cost in costs[name]]) / gibibytes

    def speed(name: str) -> float:
        return gibibytes * 1024 / median([cost.seconds for cost in costs[name]])

    more = OVER_TLS if scheme == "https" else 0.0
    for digest, goal in GOALS.items():
        title = f"agent CPU for 1 GiB, {digest}, {scheme}"
        yield Figure(title, cpu(f"agent {digest}"), "s", "s aws s3 cp", cpu("aws s3 cp"), at_most=goal + more)
        least = cpu("bare loop") + digesting[digest] / gibibytes
        floor = "bare loop" if digest is DigestName.NONE else f"bare loop and {digest} alone"
        yield Figure(f"floor: {floor}, {scheme}", least, "s", "s aws s3 cp", cpu("aws s3 cp"))
    for name in ("boto3", "rclone"):
        yield Figure(f"{name} CPU for 1 GiB, {scheme}", cpu(name), "s", "s aws s3 cp", cpu("aws s3 cp"))
    best = max(("aws s3 cp", "boto3", "rclone"), key=speed)
    for digest in DigestName:
        title = f"agent throughput, {digest}, {scheme}"
        yield Figure(title, speed(f"agent {digest}"), "MiB/s", f"MiB/s {best}", speed(best), at_least=1.0)
    peak = max(cost.peak_bytes for digest in DigestName for cost in costs[f"agent {digest}"])
    yield Figure(f"agent peak, 4 parts in parallel, {scheme}", peak / MIB, "MiB", at_most=32)
    for name in PEERS:
        yield Figure(f"{name} peak, {scheme}", max(cost.peak_bytes for cost in costs[name]) / MIB, "MiB")


@contextmanager
def _arriving(sink: Sink, path: Path) -> Iterator[None]:
    """Require that the block sends the file once: a program that skips it would be the fastest of all."""
    before = bytes_taken(sink)
    yield
    arrived, size = bytes_taken(sink) - before, path.stat().st_size
    if arrived != size:
        message = f"{arrived} bytes arrived of a file of {size}"
        raise RuntimeError(message)


def bytes_taken(sink: Sink) -> int:
    """What the sink has taken so far."""
    answer = asyncio.run(http_of(sink).send("GET", sink.url + COUNTS, {"Connection": "close"}))
    return int(answer.body.split()[2])


@contextmanager
def place_over(scheme: str) -> Iterator[Place]:
    """A broker and a sink of their own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = self_signed(folder) if scheme == "https" else None
        broker = stack.enter_context(running_broker(folder / "broker"))
        _, url = stack.enter_context(running_sink(folder / "sink", certificate))
        yield Place(folder, broker, Sink(url, certificate))


def random_file(folder: Path, mebibytes: int) -> Path:
    """A file of random bytes, in the page cache; 4 KiB for 0."""
    path = folder / "file.bin"
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
        if not mebibytes:
            file.write(os.urandom(4096))
    return path


def agent_process(place: Place, state: Path, more: Mapping[str, str] | None = None) -> Watched:
    """A real agent, on what a device installs: the development environment's other packages would be loaded too."""
    settings = {
        "PYTHONPATH": str(ROOT),
        "CLIENT_ID": CLIENT,
        "MQTT_URL": place.broker.address.url,
        "ALLOWED_ROOTS": str(place.folder),
        "UPLOAD_HOSTS": place.sink.url.partition("://")[2],
        "STATE_DIR": str(state),
        "LOG_LEVEL": "warning",
        **place.sink.settings,
        **(more or {}),
    }
    return Watched(
        (place.python, "-m", "device_agent", "--config-dir", str(place.folder)),
        settings,
        state.parent / f"{state.name}.log",
    )


async def _once(place: Place, path: Path, digest: DigestName) -> Cost:
    """An agent started for one upload: seconds until its success, CPU until its end, as of any other program."""
    state = place.folder / f"state-{digest}-{time.monotonic_ns()}"
    async with owning(place.broker.address, place.sink.url, http_of(place.sink)) as owner:
        started = time.perf_counter()
        with agent_process(place, state) as agent:
            await owner.online(CLIENT)
            await owner.upload(CLIENT, str(path), digest)
            seconds, peak = time.perf_counter() - started, peak_bytes(agent.pid)
    return Cost(agent.cpu, seconds, peak)


async def _life(place: Place, small: Path, uploads_done: int) -> dict[str, float]:
    found: dict[str, float] = {}
    async with owning(place.broker.address, place.sink.url, http_of(place.sink)) as owner:
        starts = []
        for number in range(5):
            started = time.monotonic()
            with agent_process(place, place.folder / f"start-{number}"):
                starts.append(await owner.online(CLIENT) - started)
        found["start"] = median(starts)
        found["bare start"] = median([_bare_start(place) for _ in range(5)])
        with agent_process(place, place.folder / "life") as agent:
            await owner.online(CLIENT)
            await asyncio.sleep(2)
            found["idle"] = resident_bytes(agent.pid)
            for number in range(uploads_done + uploads_done // 10):
                if number == uploads_done // 10:
                    found["after a tenth"] = resident_bytes(agent.pid)
                    before = cpu_seconds(agent.pid)
                    forget_peak(agent.pid)
                await owner.upload(CLIENT, str(small), DigestName.MD5)
            found["cpu"] = cpu_seconds(agent.pid) - before
            found["after all"] = resident_bytes(agent.pid)
    return found


def bare_client(place: Place) -> Watched:
    """The floor of an agent at rest; its log has the line `online`."""
    command = (place.python, "-m", "benchmarks.bare_mqtt", str(place.broker.address.port))
    return Watched(command, {"PYTHONPATH": str(ROOT)}, place.folder / "bare.log")


def _bare_start(place: Place) -> float:
    started = time.monotonic()
    with bare_client(place) as bare:
        bare.wait_for("online")
        return time.monotonic() - started


def http_of(sink: Sink) -> HttpPool:
    """A client that trusts the sink."""
    return HttpPool(4, ssl.create_default_context(cafile=str(sink.certificate)) if sink.certificate else None)
