"""What the agent's loop meets of the world: two clocks, chance, the network, the workers.

Rule: wiring only. The loop asks for nothing but this, so that a simulation can stand in for the world as a whole.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from device_agent.effects import Jobs
from device_agent.files.compressed import Spool
from device_agent.inbox import BirthArrived, CommandArrived, Connected, Disconnected, Mailbox
from device_agent.mqtt.connection import AckToken, Connection
from device_agent.settings import Settings
from device_agent.storage.throttle import Throttle
from device_agent.storage.uploader import Uploader
from device_agent.system_info import boot_clock, system_info
from device_agent.workers.part_io import Hands
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
class Doors:
    """`clock` never goes back, `wall` may; `chance` is from 0 to 1; `connect` takes who makes the next will."""

    mailbox: Mailbox
    jobs: Jobs
    connect: Callable[[Callable[[], bytes]], Network]
    check_url: Callable[[PresignedPart], object]
    system_info: Callable[[], SystemInfo]
    clock: Callable[[], float] = field(default=boot_clock)
    wall: Callable[[], float] = field(default=time.time)
    chance: Callable[[], float] = field(default=random.random)


def doors_of(settings: Settings) -> Doors:
    """The real world."""
    mailbox, rate = Mailbox(), settings.max_bytes_per_second
    uploader = Uploader(settings.hosts, throttle=None if rate is None else Throttle(rate))
    hands = Hands(settings.roots, uploader, Spool(settings.state_dir / "spool", settings.roots))
    return Doors(
        mailbox=mailbox,
        jobs=Jobs(hands, mailbox, senders=settings.max_parallel_parts),
        connect=lambda will: _connection(settings, mailbox, will),
        check_url=uploader.check,
        system_info=lambda: system_info(str(settings.state_dir)),
    )


def _connection(settings: Settings, mailbox: Mailbox, will: Callable[[], bytes]) -> Connection:
    return Connection(
        url=settings.mqtt_url,
        client_id=settings.client_id,
        username=settings.mqtt_username,
        password=settings.mqtt_password,
        topics=settings.topics,
        will=will,
        on_connected=lambda: mailbox.put(Connected()),
        on_disconnected=lambda text: mailbox.put(Disconnected(text)),
        on_command=lambda data, token: mailbox.put(CommandArrived(data, token)),
        on_birth=lambda _data: mailbox.put(BirthArrived()),
    )
