"""Modelled devices: those of `backhaul simulate`, over the model of the broker and of the object store.

Rule: a device answers as protocol.md requires, unless it is one of those that lie, or are silent.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, cast

from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.device import SimulatedDevice, Trouble
from control_plane.cli.simulate.environment import Counters, Environment
from control_plane.cli.simulate.file import SyntheticFile
from control_plane.cli.simulate.http_pool import HttpAnswer, HttpPool, RequestFailed
from control_plane.cli.simulate.packets import Publish, TopicFilter
from schemas.parts import Part
from schemas.topics import Channel, Topics
from schemas.values import BudgetUse, DeviceBudget, DigestName
from tests.simulation.broker import Broker
from tests.simulation.bucket import Bucket
from tests.simulation.contents import Content, clip, md5_base64, size_of
from tests.simulation.jobs.lies import distorted
from tests.simulation.world import World

HEARTBEAT: Final = 30.0
PERIOD: Final = 3_600
"""Seconds of a day of a device with a cap, so that a history is short."""
TOPICS: Final = Topics()


class Behaviour(StrEnum):
    """What is wrong with a device."""

    HONEST = "honest"
    FAILS_ONCE = "fails the first upload of each file"
    FAILS = "fails every upload"
    SILENT = "is connected and answers nothing"
    LIES = "answers about files with nonsense"


TROUBLES: Final = {Behaviour.FAILS_ONCE: Trouble.ONCE, Behaviour.FAILS: Trouble.ALWAYS}


@dataclass(frozen=True, slots=True)
class ModelFile(SyntheticFile):
    """A file whose bytes are a range with a stamp, so that its size costs nothing."""

    stamp: int = 0

    def body(self, part: Part) -> bytes:
        """The bytes of a part, as the model of the object store takes them."""
        return cast("bytes", clip(self.content, part.offset, part.size))

    def digest(self, name: DigestName, part: Part) -> str | None:
        """The digest that the model of the object store compares."""
        return None if name is DigestName.NONE else md5_base64(cast("Content", self.body(part)))

    @property
    def content(self) -> Content:
        """The whole file."""
        return ((0, self.size, self.stamp),) if self.size else ()


class ModelHttp:
    """Sends a PUT to the model of the object store, in the place of `HttpPool`."""

    def __init__(self, world: World, bucket: Bucket) -> None:
        self._world = world
        self._bucket = bucket
        self.sent: Counter[int] = Counter()
        """Bytes of each `PERIOD` of the true time."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """The answer to a PUT."""
        assert method == "PUT"
        assert headers is not None
        self.sent[int(self._world.wall() // PERIOD)] += size_of(cast("Content", body))
        await asyncio.sleep(self._world.between(0.02, self._world.pace))
        if self._world.fails("s3"):
            message = "no answer"
            raise RequestFailed(message)
        answer = self._bucket.put(url, cast("Content", body))
        return HttpAnswer(answer.status, {"etag": answer.etag or ""}, answer.body)

    def close(self) -> None:
        """Nothing is held."""


class ModelDevice:
    """One device, on or off; it is also its own connection to the broker."""

    def __init__(
        self,
        world: World,
        broker: Broker,
        bucket: Bucket,
        client_id: str,
        files: Sequence[ModelFile],
        behaviour: Behaviour = Behaviour.HONEST,
        labels: Mapping[str, str] | None = None,
        cap: int | None = None,
    ) -> None:
        self.world = world
        self.broker = broker
        self.client_id = client_id
        self.behaviour = behaviour
        self.files = {one.path: one for one in files}
        self.http = ModelHttp(world, bucket)
        self.cap = cap
        environment = Environment(
            topics=TOPICS,
            files=cast("Mapping[str, SyntheticFile]", self.files),
            http=cast("HttpPool", self.http),
            counters=Counters(),
            first_epoch=1,
            wall=world.wall,
            labels=labels or {},
            roots=("/data", "/log"),
        )
        self.counters = environment.counters
        self.device = SimulatedDevice(client_id, environment, TROUBLES.get(behaviour, Trouble.NEVER))
        self.connected = False
        self.away = True
        self._number = 0

    # --- its life ---

    def switch_on(self) -> None:
        """Connect, and stay connected."""
        self.away = False
        self._dial()

    def switch_off(self, *, politely: bool = False) -> None:
        """Disconnect; without `politely` the broker publishes the will."""
        self.away = True
        if self.connected:
            if politely:
                self.device.publisher.go_offline()
            self._part()

    def _dial(self) -> None:
        if self.away or self.connected:
            return
        if not self.broker.up:
            self.world.later(self.world.between(1.0, 10.0), self._dial)
            return
        self._report()
        connect = self.device.publisher.next_connect()
        assert connect.will is not None
        self.connected = True
        self._number += 1
        self.broker.connect(self, connect.will.payload)
        self.device.connected(cast("MqttConnection", self))
        self.world.later(self.world.between(0.0, HEARTBEAT), self._beat, self._number)

    def _beat(self, number: int) -> None:
        if self.connected and number == self._number:
            self._report()
            self.device.heartbeat()
            self.world.later(HEARTBEAT, self._beat, number)

    def _report(self) -> None:
        """What it reports of its cap of a day. It does not hold to it: the check is of what it is granted."""
        if self.cap is not None:
            day = int(self.world.wall() // PERIOD)
            resets_at = datetime.fromtimestamp((day + 1) * PERIOD, UTC)
            self.device.publisher.budget = DeviceBudget(day=BudgetUse(self.cap, self.http.sent[day], resets_at))

    def _part(self) -> None:
        self.connected = False
        self._number += 1
        self.device.publisher.connection = None
        self.broker.drop(self)

    # --- the connection, as the device uses it ---

    def publish(
        self, topic: bytes, payload: bytes, *, qos: int = 1, retain: bool = False, expiry: int = 0, **_signed: object
    ) -> int:
        """PUBLISH; a message of a lost connection does not arrive."""
        assert retain or qos < 2
        number, name = self._number, topic[2:].decode()
        parsed = TOPICS.parse(name)

        def arrive(data: bytes) -> None:
            if number == self._number:
                self.broker.receive(self, parsed.channel, data, expiry or None)

        lies = self.behaviour is Behaviour.LIES and parsed.channel is Channel.RESPONSE
        for data in distorted(self.world.chance, payload) if lies else (payload,):
            self.broker.travel(f"from {self.client_id}", lambda one=data: arrive(one))  # type: ignore[misc]
        return 0

    def subscribe(self, _filters: Sequence[TopicFilter]) -> int:
        """SUBSCRIBE."""
        self.broker.subscribe(self)
        return 0

    def close(self) -> None:
        """DISCONNECT: the broker forgets the will, after what was published before has arrived."""
        self.broker.travel(f"from {self.client_id}", lambda: self.broker.drop(self, politely=True))

    # --- the connection, as the broker uses it ---

    def deliver(self, packet: int, data: bytes) -> None:
        """A command arrives."""
        if not self.connected:
            return
        if self.behaviour is not Behaviour.SILENT:
            self.device.received(Publish(TOPICS.command(self.client_id), data, packet, retained=False))
        self.world.later(0.005, self.broker.ack, self, packet)

    def deliver_birth(self) -> None:
        """A control plane started."""
        if self.connected and self.behaviour is not Behaviour.SILENT:
            self.device.received(Publish(TOPICS.birth(), b"", 0, retained=False))

    def lost(self) -> None:
        """The broker closed the connection."""
        if self.connected:
            self._part()
            self.world.later(self.world.between(1.0, 10.0), self._dial)

    @property
    def problems(self) -> dict[str, int]:
        """What went wrong on this device, counted."""
        return dict(self.counters.errors)


def model_files(client: int, count: int, size: int, **changes: Any) -> list[ModelFile]:  # noqa: ANN401
    """`count` files of one device in `/data`, each a minute newer than the one before."""
    return [
        ModelFile(size, f"/data/{number}.bin", 1_799_000_000_000_000_000 + number * 60 * 10**9, client * 1000 + number)
        for number in range(1, count + 1)
    ]
