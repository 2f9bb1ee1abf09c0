"""Thousands of simulated devices on one event loop: connecting at a given rate, heartbeats, reconnecting.

Rule: a device that loses its connection reconnects by itself, with growing and jittered pauses, as an agent does.
"""

import asyncio
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control_plane.cli.simulate.bundles import Bundles
from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.device import SimulatedDevice, Trouble
from control_plane.cli.simulate.environment import Counters, Environment
from control_plane.cli.simulate.file import files_of
from control_plane.cli.simulate.http_pool import HttpPool
from control_plane.cli.simulate.packets import REFUSED, Publish
from schemas.broker_url import BrokerUrl
from schemas.errors import SchemaError
from schemas.topics import DEFAULT_ROOT, Topics, require_client_id

HEARTBEAT_EVERY: Final = 30.0
STATUS_EVERY: Final = 1.0
LONGEST_WAIT: Final = 60.0
_TICK: Final = 0.1
_AT_ONCE: Final = 200
"""Connections that may be opening at once: a listener's backlog is limited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """How many devices, their names, and the broker. `rate` is connections a second, `file_size` bytes.

    `name` has one `{}` for the device's number, which counts from `first`; client id and username are the same. The
    share `failing` of the devices, the first ones, fail every upload; the share `failing_once`, the next ones, fail the
    first upload of each file. `bundles` is a folder with bundles of some of the devices.
    """

    devices: int
    mqtt_url: str
    name: str = "simulated-{}"
    first: int = 1
    password: str | None = None
    files: int = 1
    file_size: int = 4096
    failing: float = 0.0
    failing_once: float = 0.0
    rate: float = 500.0
    parallel: int = 64
    topic_root: str = DEFAULT_ROOT
    ca_file: str | None = None
    bundles: Path | None = None

    def client_ids(self) -> list[str]:
        """Every device's name; `SchemaError` when one cannot be a client id."""
        numbers = range(self.first, self.first + self.devices)
        return [require_client_id(self.name.format(number)) for number in numbers]

    def trouble(self, index: int) -> Trouble:
        """What the device of this index, from 0, does with its uploads."""
        always = round(self.devices * self.failing)
        if index < always:
            return Trouble.ALWAYS
        return Trouble.ONCE if index < always + round(self.devices * self.failing_once) else Trouble.NEVER


class Fleet:
    """All devices; `run` keeps them connected until it is cancelled."""

    def __init__(self, settings: FleetSettings) -> None:
        broker = BrokerUrl.parse(settings.mqtt_url)
        if broker.path is not None:
            text = "simulated devices speak no WebSockets: give mqtt:// or mqtts:// in MQTT_URL"
            raise SchemaError(text)
        context = ssl.create_default_context(cafile=settings.ca_file)
        self.counters = Counters()
        self.http = HttpPool(settings.parallel, context)
        self._settings = settings
        self._where = (broker.host, broker.port)
        self._tls = context if broker.secure else None
        environment = Environment(
            topics=Topics(settings.topic_root),
            files=files_of(settings.files, settings.file_size),
            http=self.http,
            counters=self.counters,
            # Seconds rise faster than one device reconnects, so a second run's epochs exceed those of the first.
            first_epoch=int(time.time()),
            password=settings.password,
        )
        bundles = Bundles(settings.bundles, environment.topics)
        self.members = [
            _Member(SimulatedDevice(client_id, environment, settings.trouble(index), bundles.account(client_id)), self)
            for index, client_id in enumerate(settings.client_ids())
        ]
        self._connecting = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Connect every device, then publish heartbeats until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._connect_all())
            group.create_task(self._publish_heartbeats())
            group.create_task(self._publish_statuses())

    async def leave(self) -> None:
        """Every device publishes that it is offline and disconnects."""
        for member in self.members:
            member.leave()
        self.http.close()
        await asyncio.sleep(0)

    async def connect(self, member: "_Member") -> None:
        """Open one connection; a failure is counted, and the device reconnects later."""
        host, port = self._where
        loop = asyncio.get_running_loop()
        try:
            async with self._connecting:
                await loop.create_connection(
                    lambda: MqttConnection(member.device.publisher.next_connect(), member), host, port, ssl=self._tls
                )
        except OSError as error:
            self.counters.errors[f"connect: {error.strerror or error}"] += 1
            member.reconnect_later()

    async def _connect_all(self) -> None:
        started = asyncio.get_running_loop().time()
        for number, member in enumerate(self.members):
            early = started + number / self._settings.rate - asyncio.get_running_loop().time()
            if early > 0:
                await asyncio.sleep(early)
            member.connect()

    async def _publish_heartbeats(self) -> None:
        """Each device publishes a presence once in 30 s, spread evenly."""
        steps = round(HEARTBEAT_EVERY / _TICK)
        started = asyncio.get_running_loop().time()
        step = 0
        while True:
            step += 1
            await asyncio.sleep(started + step * _TICK - asyncio.get_running_loop().time())
            for member in _share(self.members, step % steps, steps):
                member.device.heartbeat()

    async def _publish_statuses(self) -> None:
        """Publish a Status of each device that was busy a second ago."""
        busy: list[_Member] = []
        while True:
            await asyncio.sleep(STATUS_EVERY)
            for member in busy:
                member.device.publish_status()
            busy = [member for member in self.members if member.device.busy]


class _Member:
    """A device and the state of its connection."""

    def __init__(self, device: SimulatedDevice, fleet: Fleet) -> None:
        self.device = device
        self._fleet = fleet
        self._wait = 1.0
        self._leaving = False
        self._task: asyncio.Task[None] | None = None

    def connect(self) -> None:
        """Connect now."""
        if not self._leaving:
            self._task = asyncio.create_task(self._fleet.connect(self))

    def leave(self) -> None:
        """Publish that it is offline, and do not reconnect."""
        self._leaving = True
        self.device.leave()

    def reconnect_later(self) -> None:
        """Connect later."""
        pause = random.uniform(0.0, self._wait)  # noqa: S311 - spreads load, hides nothing
        self._wait = min(LONGEST_WAIT, self._wait * 2)
        asyncio.get_running_loop().call_later(pause, self.connect)

    def connected(self, connection: MqttConnection) -> None:
        """The broker accepted the connection."""
        self._wait = 1.0
        self._fleet.counters.connects += 1
        self._fleet.counters.connected += 1
        self._fleet.counters.changed.set()
        self.device.connected(connection)

    def received(self, message: Publish) -> None:
        """A message came in."""
        self.device.received(message)

    def acknowledged(self, packet_id: int, reason: int) -> None:  # noqa: ARG002 - the listener's signature
        """The broker acknowledged; a refusal is counted, since the device cannot correct it."""
        if reason >= REFUSED:
            self._fleet.counters.errors[f"message refused by the broker: reason 0x{reason:02x}"] += 1

    def disconnected(self, connection: MqttConnection, why: str) -> None:
        """The connection is lost: reconnect, unless the device is leaving."""
        if self.device.publisher.connection is connection:
            self.device.publisher.connection = None
            self._fleet.counters.connected -= 1
        if not self._leaving:
            self._fleet.counters.errors[f"connection: {why}"] += 1
            self.reconnect_later()


def _share(members: Sequence[_Member], step: int, steps: int) -> Sequence[_Member]:
    return members[len(members) * step // steps : len(members) * (step + 1) // steps]
