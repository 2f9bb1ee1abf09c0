"""A whole site in virtual time: control planes, broker, object store and devices.

Rule: `play(site, main)` runs a coroutine against it to its end; the same seed gives the same history.
"""

import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from control_plane.services.policy import Policy
from tests.simulation.broker import Broker
from tests.simulation.bucket import Bucket
from tests.simulation.history import patched
from tests.simulation.jobs.checks import JobChecks
from tests.simulation.jobs.database import Fate, SharedDatabase
from tests.simulation.jobs.devices import ModelDevice
from tests.simulation.jobs.plane import JobPlane
from tests.simulation.promises import Broken
from tests.simulation.world import World

T = TypeVar("T")


class Site:
    """The parts of one site. `fates` decides at each commit whether its control plane dies there."""

    def __init__(
        self,
        seed: int,
        faults: frozenset[str] = frozenset(),
        *,
        planes: int = 1,
        policy: Policy | None = None,
        fates: Callable[[JobPlane], Fate | None] = lambda _plane: None,
        traced: bool = False,
    ) -> None:
        self.world = World(seed, faults, traced=traced)
        self.broker = Broker(self.world)
        self.bucket = Bucket(self.world, opaque_etags=False)
        self.database = SharedDatabase(self.world)
        self.checks = JobChecks(self.world, self.database)
        self.devices: dict[str, ModelDevice] = {}
        self.planes = [
            JobPlane(
                self.world,
                f"plane-{number}",
                self.database,
                self.checks,
                self.broker,
                self.bucket,
                policy=policy or Policy(),
                fates=fates,
            )
            for number in range(1, planes + 1)
        ]

    def add(self, devices: Sequence[ModelDevice]) -> None:
        """Devices of this site; none is on yet."""
        self.devices.update({device.client_id: device for device in devices})

    def watch(self) -> None:
        """`Broken` when a check failed, or a control plane met a fault of its own, or ended."""
        if self.checks.breaches:
            raise self.checks.breaches[0]
        if self.checks.faults:
            raise Broken(self.checks.faults[0])
        for plane in self.planes:
            if failure := plane.failure():
                text = f"{plane.name} ended: {failure!r}"
                raise Broken(text) from failure

    def play(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` in virtual time, with random numbers and ids of this seed."""
        random.seed(self.world.seed)
        places = {
            "control_plane.services.uploads.outbox.POLL": 5.0,
            "control_plane.services.jobs.runner.POLL": 5.0,
            "control_plane.services.schedules.runner.EVERY": 5.0,
            "control_plane.services.maintenance.EVERY": 15.0,
            "control_plane.cli.simulate.publisher.datetime": _Clock(self.world),
        }
        with patched(self.world.seed, **places):
            return self.world.loop.play(main)


class _Clock:
    """`datetime` as the devices use it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self, zone: object) -> datetime:
        """The instant of the history."""
        assert zone is UTC
        return datetime.fromtimestamp(self._world.wall(), UTC)
