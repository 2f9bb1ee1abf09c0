"""One control plane: the shipped engine over a database in memory whose commits may fail.

Rule: a kill loses everything that was not committed. Two control planes may share one database.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.services.engine import Engine, Ports, build_engine
from control_plane.services.errors import DatabaseUnavailable, MessengerDown
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Database as DatabasePort
from control_plane.services.ports.database import Records
from control_plane.services.ports.messenger import Delivered, UserProperties
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from schemas.codec import MAX_MESSAGE_SIZE, encode
from schemas.messages import Birth
from schemas.topics import CONTROL_PLANE, Channel
from tests.simulation.broker import Broker
from tests.simulation.bucket import Bucket
from tests.simulation.objects import Objects
from tests.simulation.promises import PlanePromises
from tests.simulation.world import World

T = TypeVar("T")


class Promises(Protocol):
    """What is checked while a control plane works."""

    def command_published(self, client_id: str, data: bytes) -> None:
        """A command is about to be published."""

    def logged(self, event: str, facts: Any) -> None:  # noqa: ANN401 - any facts of an event
        """An event was logged."""


class PlaneClock:
    """A control plane's clocks; the wall clock may be wrong by `skew` seconds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.skew = 0.0

    def now(self) -> float:
        """The wall clock (s since the epoch)."""
        return self._world.wall() + self.skew

    def monotonic(self) -> float:
        """Seconds; never goes back."""
        return self._world.now()


class Database:
    """The database of all control planes. Commits are durable; a write may fail before its commit or after it."""

    def __init__(self, world: World, bucket: Bucket) -> None:
        self.memory = MemoryDatabase()
        self.promises = PlanePromises(self.memory._tables, bucket)
        self.locked_until = 0.0
        self._world = world

    async def write(self, work: Callable[[Records], T]) -> T:
        """One transaction."""
        await asyncio.sleep(0)
        message = "the database is locked"
        if self._world.now() < self.locked_until or self._world.fails("locked"):
            await asyncio.sleep(1.0)
            raise DatabaseUnavailable(message)
        done = await self.memory.write(work)
        self.promises.committed()
        if self._world.fails("locked", 0.3):
            raise DatabaseUnavailable(message)
        return done

    async def read(self, work: Callable[[Records], T]) -> T:
        """One snapshot."""
        await asyncio.sleep(0)
        if self._world.now() < self.locked_until:
            message = "the database is locked"
            raise DatabaseUnavailable(message)
        return await self.memory.read(work)

    async def check(self) -> None:
        """Always usable."""

    async def close(self) -> None:
        """Nothing is held."""


class Messenger:
    """One control plane's connection to the broker."""

    def __init__(self, world: World, broker: Broker, promises: Promises, name: str) -> None:
        self._world = world
        self._broker = broker
        self._promises = promises
        self._name = name
        self.alive = True
        self.on_message: Callable[[Delivered], None] = lambda _message: None

    @property
    def connected(self) -> bool:
        """Whether the broker has its subscriptions."""
        return self in self._broker.subscribers

    @property
    def problem(self) -> str | None:
        """Whether messages can pass."""
        return None if self.connected else "not connected"

    @property
    def max_message_size(self) -> int:
        """As the protocol has it."""
        return MAX_MESSAGE_SIZE

    def deliver(self, message: Delivered) -> None:
        """Take a message from the broker."""
        if self.alive:
            self.on_message(message)

    async def publish(
        self,
        channel: Channel,
        client_id: str,
        payload: bytes,
        *,
        traceparent: str | None = None,
        properties: UserProperties = (),
    ) -> None:
        """Publish through the broker; `MessengerDown` while it is away."""
        if not self.alive or not self.connected:
            message = "the broker is not connected"
            raise MessengerDown(message)
        if channel is Channel.COMMAND:
            self._promises.command_published(client_id, payload)
        await self._broker.publish_from(self, channel, client_id, payload)

    async def run(self) -> None:
        """Connect, and reconnect after each loss."""
        while True:
            if not self.connected and self._broker.up and self._world.now() >= self._broker.frozen_until:
                self._broker.add_subscriber(self)
                self._world.note(self._name, "connected")
                await self._announce()
            await asyncio.sleep(2.0)

    async def _announce(self) -> None:
        try:
            await self.publish(Channel.BIRTH, CONTROL_PLANE, encode(Birth(self._name)))
        except MessengerDown:
            return


class Plane:
    """One control plane, running or killed."""

    def __init__(
        self,
        world: World,
        name: str,
        database: DatabasePort,
        promises: Promises,
        broker: Broker,
        bucket: Bucket,
        *,
        seen: ObjectStoreCapabilities,
        policy: Policy,
        fleet: bool = False,
    ) -> None:
        self.world = world
        self.name = name
        self._fleet = fleet
        self.clock = PlaneClock(world)
        self.engine: Engine | None = None
        self._database = database
        self._promises = promises
        self._broker = broker
        self._bucket = bucket
        self._seen = seen
        self._policy = policy
        self._tasks: list[asyncio.Task[None]] = []
        self._messenger: Messenger | None = None

    def start(self) -> None:
        """Start a new process on the same database."""
        if self.engine is not None:
            return
        self.world.note(self.name, "starts")
        messenger = Messenger(self.world, self._broker, self._promises, self.name)
        objects = Objects(self.world, self._bucket, self._seen, self.clock.now)
        near = Ports(self._database, objects, messenger, self.clock)
        engine = build_engine(near, self._log, self._policy, fleet=self._fleet)
        messenger.on_message = engine.inbox.receive
        self._messenger, self.engine = messenger, engine
        self._tasks = [asyncio.ensure_future(engine.run()), asyncio.ensure_future(messenger.run())]

    def kill(self) -> None:
        """Lose everything that was not committed."""
        if self.engine is None or self._messenger is None:
            return
        self.world.note(self.name, "is killed")
        self._messenger.alive = False
        if self._messenger in self._broker.subscribers:
            self._broker.subscribers.remove(self._messenger)
        for task in self._tasks:
            task.cancel()
        self.engine = self._messenger = None

    def failure(self) -> BaseException | None:
        """The exception that ended the engine; None while it runs."""
        for task in self._tasks:
            if self.engine is not None and task.done() and not task.cancelled():
                return task.exception()
        return None

    def _log(self, event: str, facts: Mapping[str, Any]) -> None:
        self._promises.logged(event, facts)
        if self.world.lines is not None:
            self.world.note(self.name, f"{event} {dict(facts)}")
