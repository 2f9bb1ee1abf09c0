"""What the agent's loop meets of the world: two clocks, chance, the network, the workers.

Rule: wiring only. The loop asks for nothing but this, so that a simulation can stand in for the world as a whole.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from device_agent.effects import EffectRunner
from device_agent.files.compressed import CompressedCopies
from device_agent.inbox import BirthArrived, CommandArrived, Connected, Disconnected, EventQueue
from device_agent.mqtt.connection import AckToken, Connection
from device_agent.settings import Settings
from device_agent.storage.throttle import Throttle
from device_agent.storage.uploader import Uploader
from device_agent.system_info import boot_clock, system_info
from device_agent.workers.part_io import PartIO
from schemas.topics import Channel
from schemas.values import PresignedPart, SystemInfo


class Network(Protocol):
    """The broker, as `device_agent.connection.Connection` has it."""

    def start(self) -> None:
        """Begin to connect; returns at once."""

    def stop(self, offline: bytes | None = None) -> None:
        """Take leave."""

    def publish(self, channel: Channel, data: bytes, *, expiry: int | None = None) -> bool:
        """Hand a message over; False when it was not taken."""

    def ack(self, token: AckToken) -> None:
        """Acknowledge a command."""


@dataclass(frozen=True, slots=True)
class Environment:
    """`clock` never goes back, `wall` may; `chance` is from 0 to 1; `connect` takes who makes the next will."""

    inbox: EventQueue
    runner: EffectRunner
    connect: Callable[[Callable[[], bytes]], Network]
    check_url: Callable[[PresignedPart], object]
    system_info: Callable[[], SystemInfo]
    clock: Callable[[], float] = field(default=boot_clock)
    wall: Callable[[], float] = field(default=time.time)
    chance: Callable[[], float] = field(default=random.random)


def doors_of(settings: Settings) -> Environment:
    """The real world."""
    inbox, rate = EventQueue(), settings.max_bytes_per_second
    uploader = Uploader(settings.hosts, throttle=None if rate is None else Throttle(rate))
    part_io = PartIO(settings.roots, uploader, CompressedCopies(settings.state_dir / "spool", settings.roots))
    return Environment(
        inbox=inbox,
        runner=EffectRunner(part_io, inbox, senders=settings.max_parallel_parts),
        connect=lambda will: _connection(settings, inbox, will),
        check_url=uploader.check,
        system_info=lambda: system_info(str(settings.state_dir)),
    )


def _connection(settings: Settings, inbox: EventQueue, will: Callable[[], bytes]) -> Connection:
    return Connection(
        url=settings.mqtt_url,
        client_id=settings.client_id,
        username=settings.mqtt_username,
        password=settings.mqtt_password,
        topics=settings.topics,
        will=will,
        on_connected=lambda: inbox.put(Connected()),
        on_disconnected=lambda text: inbox.put(Disconnected(text)),
        on_command=lambda data, token: inbox.put(CommandArrived(data, token)),
        on_birth=lambda _data: inbox.put(BirthArrived()),
    )
