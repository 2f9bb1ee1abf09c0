"""One history from its seed: a fleet, an operator, a nemesis; then calm; then every promise is checked.

Rule: `play(seed)` is a pure function of its arguments, on every machine and in every process.
"""

import asyncio
import logging
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from unittest.mock import patch

from control_plane.domain.clients import Client
from control_plane.services.policy import Policy
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from schemas.parts import MIB
from schemas.values import DigestName
from tests.simulation.broker import Broker
from tests.simulation.bucket import Bucket
from tests.simulation.device import DEFAULT_FILE, Device
from tests.simulation.disk import DiskOs, NoLocks
from tests.simulation.nemesis import Nemesis
from tests.simulation.operator import Operator
from tests.simulation.plane import Database, Plane
from tests.simulation.promises import Broken, check_objects, require, unfinished
from tests.simulation.world import FAULTS, World

SIZES: Final = (0, 1, 3 * MIB, 5 * MIB, 5 * MIB + 1, 12 * MIB, 24 * MIB, 41 * MIB, 62 * MIB, 90 * MIB)
LARGE: Final = 210 * MIB
PATHS: Final = (DEFAULT_FILE, "/data/a.bin", "/data/b c.bin", "/data/grows.log")
LOGS: Final = frozenset({"/data/grows.log"})
COMPACT_ABOVE: Final = 4096
"""Bytes of a journal from which on it is rewritten."""

PATIENCE: Final = 6 * 3600.0
"""Seconds of calm in which every upload must end."""


@dataclass
class Result:
    """The result of a history; `calm_for` is in seconds."""

    seed: int
    faults: frozenset[str]
    states: Counter[str] = field(default_factory=Counter)
    calm_for: float = 0.0
    received: int = 0
    lines: list[str] = field(default_factory=list)


class Failure(Exception):
    """A history in which a promise did not hold; its cause names the promise, `lines` is its trace, if there is one."""

    def __init__(self, seed: int, without: frozenset[str], lines: list[str], program: str = "tests.simulation") -> None:
        more = f" --without {','.join(sorted(without))}" if without else ""
        super().__init__(f"replay it: python -m {program} --seed {seed} --trace{more}")
        self.lines = lines


class History:
    """All parts of one history."""

    def __init__(self, seed: int, without: frozenset[str] = frozenset(), *, traced: bool = False) -> None:
        drawn = Random(f"faults {seed}")
        share = drawn.choice([0.0, 0.15, 0.3, 0.5])
        faults = frozenset(name for name in FAULTS if drawn.random() < share) - without
        self.world = world = World(seed, faults, traced=traced)
        chance = world.chance
        self.logs = LOGS
        self.broker = Broker(world)
        self.bucket = Bucket(world, opaque_etags=chance.random() < 0.3)
        self.database = Database(world, self.bucket)
        self.system = DiskOs()
        names = [f"till-{number}" for number in range(1, chance.choice([1, 1, 2, 3]) + 1)]
        self.devices = {name: Device(world, name, self.broker, self.bucket, self.system) for name in names}
        policy = Policy(step_timeout=chance.choice([40.0, 120.0, 300.0]), url_expiry=chance.choice([120.0, 900.0]))
        seen = self._capabilities()
        self.planes = [
            Plane(
                world,
                f"plane-{number}",
                self.database,
                self.database.promises,
                self.broker,
                self.bucket,
                seen=seen,
                policy=policy,
            )
            for number in range(2 if "replica" in faults else 1)
        ]
        self.operator = Operator(self)

    def _capabilities(self) -> ObjectStoreCapabilities:
        chance = self.world.chance
        md5 = frozenset({DigestName.MD5})
        return ObjectStoreCapabilities(
            part_digests=md5,
            object_digests=md5 if chance.random() < 0.5 else frozenset(),
            etag_is_md5=not self.bucket.opaque_etags,
            if_none_match=chance.random() < 0.5,
        )

    @property
    def busy(self) -> bool:
        """Whether a device is working on an upload."""
        return any(device.busy for device in self.devices.values())

    def a_path(self) -> str:
        """Any of the files."""
        return self.world.chance.choice(PATHS)

    async def run(self) -> Result:
        """Play it; `Broken` names the promise that does not hold."""
        world, chance = self.world, self.world.chance
        for device in self.devices.values():
            for path in PATHS:
                # Only what takes several windows can change between two of them.
                large = chance.random() < (0.25 if path in LOGS else 0.06)
                device.files.write(path, LARGE if large else chance.choice(SIZES))
            world.later(world.between(0.0, 5.0), device.start)
        for plane in self.planes:
            plane.start()
        span = world.between(30.0, 300.0)
        for number in range(chance.choice([1, 2, 2, 3, 5])):
            self.operator.plan(number, chance.choice(list(self.devices)), self.a_path(), world.between(0.0, 0.8 * span))
        nemesis = Nemesis(self, span)
        try:
            await self._wait(span)
            world.note("nemesis", "relents")
            nemesis.relent()
            calm_for = await self._come_to_rest()
        finally:
            for plane in self.planes:
                plane.kill()
            self.operator.stop()
        self._check()
        tables = self.database.memory._tables
        states = Counter(str(upload.state) for upload in tables.uploads.values())
        return Result(world.seed, world.faults, states, calm_for, lines=world.lines or [])

    async def _wait(self, seconds: float) -> None:
        until = self.world.now() + seconds
        while self.world.now() < until:
            await asyncio.sleep(min(20.0, until - self.world.now()))
            self._watch()

    async def _come_to_rest(self) -> float:
        began, pause = self.world.now(), 10.0
        while left := self._unfinished():
            waited = self.world.now() - began
            require(waited < PATIENCE, f"P6: after {waited:.0f} s of calm: {'; '.join(left[:5])}")
            await asyncio.sleep(pause)
            self._watch()
            pause = min(120.0, pause * 1.3)
        return self.world.now() - began

    def _unfinished(self) -> list[str]:
        left = unfinished(self.database.memory._tables, self.bucket, self.devices, self._connected)
        return [f"{self.operator.waiting} triggers wait", *left] if self.operator.waiting else left

    def _connected(self, client: Client) -> bool:
        engines = [plane.engine for plane in self.planes if plane.engine is not None]
        return all(engine.beats.latest(client).connected(engine.clock.now()) for engine in engines)

    def _watch(self) -> None:
        promises = self.database.promises
        if promises.breaches:
            raise promises.breaches[0]
        require(not promises.faults, f"P13: {promises.faults}")
        for plane in self.planes:
            if failure := plane.failure():
                text = f"P13: {plane.name} ended: {failure!r}"
                raise Broken(text) from failure
        for device in self.devices.values():
            if device.process is not None:
                counters = device.process.agent.uploads.counters
                require(not counters["faults"] + counters["poison"], f"P13: {device.client_id} has a fault")

    def _check(self) -> None:
        self._watch()
        self.operator.check()
        check_objects(self.database.memory._tables.uploads, self.bucket, self.devices)


def play(seed: int, without: frozenset[str] = frozenset(), *, traced: bool = False) -> Result:
    """One whole history; `Failure` with its cause when a promise did not hold."""
    random.seed(seed)
    return played(History(seed, without, traced=traced), seed, without)


def played(history: History, seed: int, without: frozenset[str] = frozenset()) -> Result:
    """The same, of a history that is made."""
    try:
        with _patched_for(history):
            return history.world.loop.play(history.run())
    except Exception as error:
        raise Failure(seed, without, history.world.lines or []) from error


@contextmanager
def patched(seed: int, **places: Any) -> Iterator[None]:  # noqa: ANN401 - whatever stands in a place
    """Replace random ids, logging, and what stands at these places of the code under test."""
    chance = Random(f"ids {seed}")
    numbers: dict[str, Any] = {
        "secrets.token_hex": lambda count=16: f"{chance.getrandbits(count * 8):0{count * 2}x}",
        "secrets.randbits": chance.getrandbits,
        "uuid.uuid4": lambda: uuid.UUID(int=chance.getrandbits(128), version=4),
    }
    was = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    patches = [patch(name, value) for name, value in {**numbers, **places}.items()]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
        logging.disable(was)


def _patched_for(history: History) -> AbstractContextManager[None]:
    shortened: dict[str, Any] = {
        "control_plane.services.uploads.outbox.POLL": 5.0,
        "control_plane.services.maintenance.EVERY": 15.0,
        "control_plane.services.maintenance.LITTER_EVERY": 300.0,
        "control_plane.services.maintenance.LITTER_AGE": 600.0,
        "device_agent.state.journal.COMPACT_ABOVE": COMPACT_ABOVE,
    }
    places: dict[str, Any] = {
        "device_agent.state.journal.os": history.system,
        "device_agent.state.journal.fcntl": NoLocks,
        "device_agent.state.atomic_file.os": history.system,
        "device_agent.state.installation.os": history.system,
    }
    return patched(history.world.seed, **shortened, **places)
