"""A model of the broker: sessions, retained presence, wills, and every way in which Mosquitto 2.0.11 loses messages.

Rule: it guarantees what MQTT guarantees and nothing more. Its state survives a restart unless the fault is `amnesia`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from control_plane.services.errors import MessengerDown
from control_plane.services.ports.messenger import Delivered
from schemas.topics import Channel, Topics
from tests.simulation.world import World

WINDOW: Final = 16
SESSION_EXPIRY: Final = 600.0
WILL_DELAY: Final = 10.0
PATIENCE: Final = 10.0
MAX_REMEMBERED: Final = 200


class Network(Protocol):
    """A device's connection."""

    client_id: str

    def deliver(self, packet: int, data: bytes) -> None:
        """Take one command; `Broker.ack` acknowledges it."""

    def deliver_birth(self) -> None:
        """Take the birth message of a control plane."""

    def lost(self) -> None:
        """The broker ended the connection."""


class Subscriber(Protocol):
    """A control plane's connection."""

    def deliver(self, message: Delivered) -> None:
        """Take one message."""


@dataclass(eq=False)
class Session:
    """The MQTT session of one device; `away_since` (s) is when its connection was lost."""

    client_id: str
    network: Network | None = None
    subscribed: bool = False
    queue: deque[bytes] = field(default_factory=deque)
    flying: dict[int, bytes] = field(default_factory=dict)
    will: bytes | None = None
    away_since: float | None = None
    visits: int = 0


class Broker:
    """One broker. `commands` and `responses` keep the last messages for the fault `replay`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topics = Topics()
        self.up = True
        self.frozen_until = 0.0
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, tuple[bytes, float | None]] = {}
        self.subscribers: list[Subscriber] = []
        self.commands: deque[tuple[str, bytes]] = deque(maxlen=MAX_REMEMBERED)
        self.responses: deque[tuple[str, bytes]] = deque(maxlen=MAX_REMEMBERED)
        self._packets = 0
        self._arrivals: dict[str, float] = {}

    # The wire: order is kept along one way, unless the fault is `reorder`.

    def travel(self, way: str, call: Callable[[], object]) -> None:
        """Deliver a message at the other end of `way`: once, never or twice."""
        if self.world.fails("drop"):
            return
        for _ in range(2 if self.world.fails("dup") else 1):
            self._travel(way, call)

    def _travel(self, way: str, call: Callable[[], object]) -> None:
        world = self.world
        at = max(world.now(), self.frozen_until) + world.between(0.002, 0.03)
        if world.fails("delay"):
            at += world.between(0.5, 20.0)
        if not world.fails("reorder", 2.0):
            at = self._arrivals[way] = max(at, self._arrivals.get(way, 0.0))
        world.loop.call_at(at, call)

    # Devices.

    def connect(self, network: Network, will: bytes) -> None:
        """CONNECT without clean start. It ends an old connection of the same name, whose will is not published."""
        session = self.sessions.setdefault(network.client_id, Session(network.client_id))
        old, session.network = session.network, network
        if old is not None and old is not network:
            old.lost()
        session.will, session.away_since = will, None
        session.visits += 1

    def subscribe(self, network: Network) -> None:
        """Deliver commands to the session again, the unacknowledged ones first."""
        session = self.sessions.get(network.client_id)
        if session is None or session.network is not network:
            return
        session.subscribed = True
        again = list(session.flying.values())
        session.flying.clear()
        session.queue.extendleft(reversed(again))
        self._flow(session)

    def receive(self, network: Network, channel: Channel, data: bytes, expiry: int | None) -> None:
        """PUBLISH from a device; nothing arrives from a lost connection."""
        session = self.sessions.get(network.client_id)
        if self.up and session is not None and session.network is network:
            if channel is Channel.RESPONSE:
                self.responses.append((network.client_id, data))
            self.publish(network.client_id, channel, data, expiry)

    def publish(self, client_id: str, channel: Channel, data: bytes, expiry: int | None = None) -> None:
        """Deliver a device's message, or its will, to every control plane."""
        if channel is Channel.PRESENCE:
            self.retained[client_id] = (data, None if expiry is None else self.world.now() + expiry)
        message = Delivered(self.topics.of(client_id, channel), data)
        for subscriber in self.subscribers:
            self.travel(f"{client_id} {id(subscriber)}", lambda to=subscriber: to.deliver(message))  # type: ignore[misc]

    def ack(self, network: Network, packet: int) -> None:
        """PUBACK: remove the message from the session."""
        session = self.sessions.get(network.client_id)
        if session is not None and session.network is network:
            session.flying.pop(packet, None)
            self._flow(session)

    def drop(self, network: Network, *, politely: bool = False) -> None:
        """A connection ends. Its will follows after WILL_DELAY, unless the device is back or disconnected politely."""
        session = self.sessions.get(network.client_id)
        if session is None or session.network is not network:
            return
        session.network, session.away_since = None, self.world.now()
        if politely:
            session.will = None
        visit = session.visits
        self.world.later(WILL_DELAY, self._will_of, session, visit)
        self.world.later(SESSION_EXPIRY, self._expire, session, visit)

    def _will_of(self, session: Session, visit: int) -> None:
        known = self.sessions.get(session.client_id) is session
        if known and self.up and session.visits == visit and session.network is None and session.will is not None:
            will, session.will = session.will, None
            self.publish(session.client_id, Channel.PRESENCE, will)

    def _expire(self, session: Session, visit: int) -> None:
        if self.sessions.get(session.client_id) is session and session.visits == visit and session.network is None:
            del self.sessions[session.client_id]

    def _flow(self, session: Session) -> None:
        while session.network is not None and session.subscribed and session.queue and len(session.flying) < WINDOW:
            self._packets += 1
            data, packet, network = session.queue.popleft(), self._packets, session.network
            session.flying[packet] = data
            self.travel(f"to {session.client_id}", lambda n=network, p=packet, d=data: n.deliver(p, d))  # type: ignore[misc]

    # Control planes.

    async def publish_from(self, sender: Subscriber, channel: Channel, client_id: str, data: bytes) -> None:
        """PUBLISH from a control plane; after `MessengerDown` the message may be delivered or not."""
        world = self.world
        if world.now() + PATIENCE < self.frozen_until:
            if world.chance.random() < 0.5:
                world.loop.call_at(self.frozen_until, self._command, sender, channel, client_id, data)
            await asyncio.sleep(PATIENCE)
            message = "the broker did not acknowledge in time"
            raise MessengerDown(message)
        await asyncio.sleep(max(0.0, self.frozen_until - world.now()) + 0.004)
        if not self.up or sender not in self.subscribers:
            message = "the connection broke"
            raise MessengerDown(message)
        self._command(sender, channel, client_id, data)

    def _command(self, sender: Subscriber | None, channel: Channel, client_id: str, data: bytes) -> None:
        if channel is Channel.BIRTH:
            for session in self.sessions.values():
                if session.network is not None and session.subscribed:
                    self.travel(f"to {session.client_id}", session.network.deliver_birth)
        elif channel is Channel.PRESENCE:
            self.retained.pop(client_id, None)
        else:
            self.commands.append((client_id, data))
            self.command(client_id, data)
            copy = Delivered(self.topics.of(client_id, channel), data)
            for one in self.subscribers:
                if one is not sender:
                    self.travel(f"{client_id} {id(one)}", lambda to=one: to.deliver(copy))  # type: ignore[misc]

    def command(self, client_id: str, data: bytes) -> None:
        """Queue a command in the session of its device; it is lost if there is none."""
        session = self.sessions.get(client_id)
        if session is None or not session.subscribed:
            return
        limit = 3 if "overflow" in self.world.faults and not self.world.calm else 200
        if session.network is None and len(session.queue) >= limit:
            # The newest is dropped, and its publisher gets a PUBACK (reliability.md section 2).
            return
        session.queue.append(data)
        self._flow(session)

    def add_subscriber(self, subscriber: Subscriber) -> None:
        """A control plane subscribes: the retained presence is delivered to it."""
        self.subscribers.append(subscriber)
        for client_id, (data, until) in self.retained.items():
            if until is None or until > self.world.now():
                left = None if until is None else until - self.world.now()
                topic = self.topics.of(client_id, Channel.PRESENCE)
                message = Delivered(topic, data, retained=True, expires_in=left)
                self.travel(f"{client_id} {id(subscriber)}", lambda to=message: subscriber.deliver(to))  # type: ignore[misc]

    # Faults of the broker.

    def stop(self, *, forgets: bool) -> None:
        """Stop: every connection breaks. A graceful stop publishes the wills; with `forgets` all state is lost."""
        self.up = False
        for session in list(self.sessions.values()):
            if session.network is not None:
                network = session.network
                self.drop(network)
                network.lost()
            if not forgets and session.will is not None:
                self.retained[session.client_id] = (session.will, None)
                session.will = None
            if self.world.chance.random() < 0.3:
                session.subscribed = False
        if forgets:
            self.sessions.clear()
            self.retained.clear()
        self.subscribers.clear()

    def start(self) -> None:
        """Start again."""
        self.up = True

    def online(self, client_id: str) -> bytes | None:
        """The retained presence of a client."""
        found = self.retained.get(client_id)
        return None if found is None or (found[1] is not None and found[1] <= self.world.now()) else found[0]
