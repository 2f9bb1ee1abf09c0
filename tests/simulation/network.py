"""The device's side of the wire, in the place of `device_agent.mqtt.connection`.

Rule: it keeps that module's promises: a new epoch in each CONNECT, `Connected` after the subscription, nothing queued
while it is away, an acknowledgement only for the connection that brought the command.
"""

from collections.abc import Callable

from device_agent.errors import JournalError
from device_agent.inbox import BirthArrived, CommandArrived, Connected, Disconnected, EventQueue
from device_agent.mqtt.connection import AckToken
from device_agent.mqtt.presence import PresenceBuilder
from device_agent.mqtt.reconnect import ReconnectBackoff
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.topics import Channel
from tests.simulation.broker import Broker
from tests.simulation.world import World


class DeviceNetwork:
    """One process's connections, one after another; `dead` once the process is."""

    def __init__(
        self, world: World, broker: Broker, client_id: str, inbox: EventQueue, presence: PresenceBuilder
    ) -> None:
        self.client_id = client_id
        self.dead = False
        self.on_ack: Callable[[bytes], None] = lambda _data: None
        self._world = world
        self._broker = broker
        self._inbox = inbox
        self._presence = presence
        self._backoff = ReconnectBackoff(chance=world.chance.random)
        self._number = 0
        self._ready = False
        self._cut = False
        self._brought: dict[int, bytes] = {}

    @property
    def room(self) -> int:
        """The broker takes whatever the protocol allows."""
        return MAX_MESSAGE_SIZE

    def start(self) -> None:
        """Begin to connect."""
        self._world.later(0.001, self._dial)

    def stop(self, offline: bytes | None = None) -> None:
        """Publish `offline` and disconnect."""
        if self._ready and offline is not None:
            self.publish(Channel.PRESENCE, offline)
        self._broker.drop(self, politely=True)
        self.dead = True

    def publish(
        self, channel: Channel, data: bytes, *, expiry: int | None = None, traceparent: str | None = None
    ) -> bool:
        """Publish; on a cut connection the message is lost."""
        if not self._ready:
            return False
        if not self._cut:
            number = self._number
            self._broker.travel(f"from {self.client_id}", lambda: self._arrive(number, channel, data, expiry))
        return True

    def ack(self, token: AckToken) -> None:
        """Acknowledge, if the connection that brought the command still stands."""
        data = self._brought.pop(token.packet_id, None)
        if data is not None and token.connection == self._number and self._ready and not self._cut:
            self.on_ack(data)
            self._world.later(0.005, self._broker.ack, self, token.packet_id)

    def deliver(self, packet: int, data: bytes) -> None:
        """A command arrives."""
        if not self.dead and not self._cut and self._number:
            self._brought[packet] = data
            self._inbox.put(CommandArrived(data, AckToken(self._number, packet)))

    def deliver_birth(self) -> None:
        """A control plane started."""
        if not self.dead and not self._cut:
            self._inbox.put(BirthArrived())

    def lost(self) -> None:
        """The device notices that the connection is lost."""
        if self.dead:
            return
        if not self._cut:
            self._broker.drop(self)
        was, self._ready, self._cut = self._ready, False, False
        self._number += 1
        self._brought.clear()
        if was:
            self._inbox.put(Disconnected("lost"))
        self._world.later(self._backoff.next(stable=was), self._dial)

    def cut(self) -> None:
        """Cut the connection: each side notices by itself, up to one and a half keepalives later."""
        if not self._ready or self._cut:
            return
        self._cut = True
        number = self._number
        for notice in (self._broker.drop, type(self).lost):
            self._world.later(
                self._world.between(0.0, 50.0), lambda call=notice: call(self) if number == self._number else None
            )

    def _arrive(self, number: int, channel: Channel, data: bytes, expiry: int | None) -> None:
        if number == self._number and not self._cut:
            self._broker.receive(self, channel, data, expiry)

    def _dial(self) -> None:
        if self.dead or self._ready:
            return
        try:
            will = self._presence.will()
        except JournalError:
            self._world.later(self._backoff.next(), self._dial)
            return
        self._number += 1
        if not self._broker.up or self._world.now() < self._broker.frozen_until:
            self._world.later(self._backoff.next(), self._dial)
            return
        self._broker.connect(self, will)
        number = self._number
        self._world.later(self._world.between(0.01, 0.1), lambda: self._subscribed(number))

    def _subscribed(self, number: int) -> None:
        if self.dead or number != self._number:
            return
        stored = self._broker.online(self.client_id)
        if stored is not None and self._presence.read_retained(stored):
            self._broker.drop(self, politely=True)
            self._world.later(self._backoff.next(), self._dial)
            return
        self._ready = True
        self._inbox.put(Connected())
        self._broker.subscribe(self)
