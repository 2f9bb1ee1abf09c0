"""One device: the agent as it is shipped, on a disk, a file system, a broker and a store that are models.

Rule: a process dies between two instructions and leaves only its disk; what it published or sent is not undone.
"""

from pathlib import Path
from typing import Final, cast

from device_agent.agent import Agent, Environment
from device_agent.effects import EffectRunner
from device_agent.errors import JournalError
from device_agent.inbox import EventQueue, LoopEvent
from device_agent.mqtt.presence import PresenceBuilder
from device_agent.settings import Settings
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal
from device_agent.state.selections import KeptSelections
from device_agent.workers.part_io import PartIO
from schemas.topics import Channel
from schemas.values import SystemInfo
from tests.simulation.broker import Broker
from tests.simulation.bucket import Bucket
from tests.simulation.disk import Disk, DiskOs, DiskPath, PowerCut
from tests.simulation.files import Files
from tests.simulation.network import DeviceNetwork
from tests.simulation.part_io import Hired, SimPartIO
from tests.simulation.promises import DevicePromises
from tests.simulation.world import World

DEFAULT_FILE: Final = "/data/default.bin"


class _Bell(EventQueue):
    """A mailbox that rings when something arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.process: Process | None = None

    def put(self, mail: LoopEvent) -> None:
        super().put(mail)
        if self.process is not None:
            self.process.wake()


class Device:
    """A device that is on, or off for a while."""

    def __init__(self, world: World, client_id: str, broker: Broker, bucket: Bucket, system: DiskOs) -> None:
        self.world = world
        self.client_id = client_id
        self.broker = broker
        self.bucket = bucket
        self.system = system
        self.disk = Disk(world)
        self.files = Files(world)
        self.promises = DevicePromises(self)
        self.booted_at = 0.0
        self.process: Process | None = None

    def clock(self) -> float:
        """Seconds since this device booted."""
        return self.world.now() - self.booted_at + 5.0

    @property
    def busy(self) -> bool:
        """Whether the agent works on an upload."""
        return self.process is not None and any(not run.ended for run in self.process.agent.uploads)

    def start(self) -> None:
        """Start the agent, if it does not run."""
        if self.process is None:
            self.world.note(self.client_id, "starts")
            try:
                self.process = Process(self)
            except PowerCut:
                self.crash(power=True)
            except JournalError as error:
                self.world.note(self.client_id, f"does not start: {error}")
                self.crash(power=False)
            else:
                self.process.step()

    def crash(self, *, power: bool, wipe: bool = False) -> None:
        """End the agent. `power` loses what was not synced, `wipe` everything. It starts again after a while."""
        self.world.note(self.client_id, "loses power" if power else "is killed")
        if self.process is not None:
            self.process.die()
            self.process = None
        if power:
            self.disk.lose_power()
            self.booted_at = self.world.now()
            self.files.mount += 1
        self.disk.forget_handles()
        if wipe:
            self.disk.wipe()
            self.promises.forget()
        self.promises.crashed()
        self.world.later(0.5 if self.world.calm else self.world.between(0.5, 90.0), self.start)


class Process:
    """One run of the agent."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.dead = False
        self._timer: object = None
        self._rung = False
        device.system.disk = device.disk
        folder = cast("Path", DiskPath(device.disk, "/state"))
        self.journal, transfers = Journal.open(folder)
        self.bell = _Bell()
        self.part_io = SimPartIO(device.world, device.files, device.bucket, device.clock)
        self.part_io.on_put = device.promises.put_begins
        self.part_io.on_stored = device.promises.stored
        self.networks: list[DeviceNetwork] = []
        environment = Environment(
            inbox=self.bell,
            runner=EffectRunner(cast("PartIO", self.part_io), self.bell, senders=4, make_pool=Hired),
            connect=self._connect,
            check_url=lambda _url: None,
            system_info=SystemInfo,
            selections=KeptSelections(folder / "selections"),
            clock=device.clock,
            wall=device.world.wall,
            chance=device.world.chance.random,
        )
        settings = Settings(client_id=device.client_id, state_dir=folder, file_path=DEFAULT_FILE)
        self.agent = Agent(settings, self.journal, transfers, Installation.open(folder), environment)
        self.bell.process = self
        self.agent.start()

    def _connect(self, presence: PresenceBuilder) -> DeviceNetwork:
        device = self.device
        network = _Watched(device.world, device.broker, device.client_id, self.bell, presence)
        network.device = device
        self.networks.append(network)
        return network

    def wake(self) -> None:
        """Schedule a turn: an event arrived."""
        if not self._rung and not self.dead:
            self._rung = True
            self.device.world.loop.call_soon(self.step)

    def step(self) -> None:
        """One turn of the agent's loop, at this instant."""
        if self.dead:
            return
        self._rung = False
        device = self.device
        device.system.disk = device.disk
        try:
            patience = self.agent.turn(self.bell.take(0.0))
        except PowerCut:
            # Or a kill at that instant: the data is written, and may be durable or not.
            device.crash(power=device.world.chance.random() < 0.7)
            return
        device.promises.turned(self.journal)
        if self._timer is not None:
            self._timer.cancel()  # type: ignore[attr-defined]
        self._timer = device.world.later(max(patience, 0.001), self.step)

    def die(self) -> None:
        """Stop all work and all messages."""
        self.dead = self.part_io.dead = True
        for network in self.networks:
            network.dead = True
            self.device.broker.drop(network)


class _Watched(DeviceNetwork):
    """A network that checks that the disk holds what is published and acknowledged."""

    device: Device

    def publish(
        self, channel: Channel, data: bytes, *, expiry: int | None = None, traceparent: str | None = None
    ) -> bool:
        if channel is Channel.RESPONSE:
            self.device.promises.response_published(data)
        return super().publish(channel, data, expiry=expiry)

    def start(self) -> None:
        self.on_ack = self.device.promises.command_acknowledged
        super().start()

    def _dial(self) -> None:
        self.device.system.disk = self.device.disk
        try:
            super()._dial()
        except PowerCut:
            self.device.crash(power=True)
