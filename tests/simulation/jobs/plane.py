"""One control plane over the shared database, which may die at any commit.

Rule: a call of an operator ends with the process that serves it; the operator cannot know then whether it took effect.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from control_plane.domain.jobs.four_eyes import OFF
from control_plane.services.engine import Engine
from control_plane.services.policy import Policy
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from control_plane.services.schedules.jobs import machine
from control_plane.services.schedules.runner import ScheduleRunner
from schemas.values import DigestName
from tests.simulation.broker import Broker
from tests.simulation.bucket import Bucket
from tests.simulation.jobs.database import Fate, PlaneDatabase, SharedDatabase
from tests.simulation.plane import Plane, Promises
from tests.simulation.world import World

T = TypeVar("T")

SEEN: Final = ObjectStoreCapabilities(
    part_digests=frozenset({DigestName.MD5}),
    object_digests=frozenset({DigestName.MD5}),
    etag_is_md5=True,
    if_none_match=True,
)
"""An object store that enforces everything."""


class Lost(Exception):
    """The control plane died before it answered."""


class KillAt:
    """Kills the first control plane that reaches this commit of the database; commits count from 1."""

    def __init__(self, number: int, fate: Fate) -> None:
        self._number = number
        self._fate = fate

    def __call__(self, plane: "JobPlane") -> Fate | None:
        """Asked before each transaction."""
        reached = not plane.deaths and plane.shared.commits + 1 == self._number
        return self._fate if reached else None


class JobPlane(Plane):
    """A control plane. `fates` is asked at each of its commits."""

    def __init__(
        self,
        world: World,
        name: str,
        shared: SharedDatabase,
        promises: Promises,
        broker: Broker,
        bucket: Bucket,
        *,
        policy: Policy,
        fates: Callable[["JobPlane"], Fate | None] = lambda _plane: None,
        restarts_after: tuple[float, float] = (0.2, 60.0),
    ) -> None:
        database = PlaneDatabase(shared, lambda: fates(self), self._dies)
        super().__init__(world, name, database, promises, broker, bucket, seen=SEEN, policy=policy, fleet=True)
        self.shared = shared
        self._restarts_after = restarts_after
        self._calls: set[asyncio.Task[Any]] = set()
        self.deaths = 0

    def start(self) -> None:
        """Start a new process on the same database, with the loop of schedules."""
        if self.engine is not None:
            return
        super().start()
        engine = self.engine
        assert engine is not None
        assert engine.jobs is not None
        schedules = ScheduleRunner(
            engine.ports.database,
            engine.clock,
            self._log,
            jobs=machine(OFF),
            time_is_sure=engine.maintenance.time_is_sure,
            on_made=engine.jobs.poke,
        )
        self._tasks.append(asyncio.ensure_future(schedules.run()))

    async def call(self, what: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """One request of an operator; `Lost` when no answer comes."""
        if self.engine is None:
            raise Lost
        task = asyncio.get_running_loop().create_task(what(self.engine))
        self._calls.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._calls.discard(task)
        if task.cancelled():
            raise Lost
        return task.result()

    def kill(self) -> None:
        """Lose everything that was not committed."""
        for call in self._calls:
            call.cancel()
        super().kill()

    def _dies(self) -> None:
        self.deaths += 1
        self.kill()
        self.world.later(self.world.between(*self._restarts_after), self.start)
