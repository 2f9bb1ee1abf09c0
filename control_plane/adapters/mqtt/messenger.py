"""The port `Messenger` over aiomqtt.

aiomqtt is a fixed choice of the project: it is tuned (socket options, inflight window, concurrent publishes), and never
replaced by a client written here.

The limits that the broker announces in its CONNACK are kept (docs/decisions/0019): a client that goes over one is
disconnected, and with it every upload stops.

Rule: every connection is a new session (clean start, no expiry): the database is the truth, and each connect requests
a hello from every client. aiomqtt acknowledges a message when it queues it, so no promise depends on that
acknowledgement; it also ignores a negative PUBACK, and drops messages when its queue is full (docs/reliability.md 0.7).
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from control_plane.adapters.mqtt.prompt_client import DeliveringQueue, PromptClient
from control_plane.adapters.mqtt.terms import BrokerTerms
from control_plane.adapters.mqtt.tls import context_for
from control_plane.services.backoff import full_jitter
from control_plane.services.errors import BrokerRefused, MessengerDown
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Delivered, Sign, UserProperties
from schemas.broker_url import BrokerUrl
from schemas.codec import MAX_MESSAGE_SIZE, encode
from schemas.messages import Birth
from schemas.names import TRACED_ROOM, TRACEPARENT
from schemas.signing.canonical import SIGNED_ROOM, SignedKind
from schemas.topics import CONTROL_PLANE, FLEET_CHANNELS, QOS, RETAINED, Channel, Topics

TIMEOUT: Final = 10.0
KEEPALIVE: Final = 30
SHORTEST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
LASTING: Final = 10.0
"""Seconds after which a connection counts as good: only then the pause before the next one is short again."""

BIRTH_EVERY: Final = 30.0
"""Seconds between two births at least; a hello follows a birth within as many."""

WINDOW: Final = 65_535
"""Receive Maximum. Without it Mosquitto sends 20 messages, queues 200 and drops the rest of a fleet's presence.

The same number of outgoing messages may be in flight. Beyond it paho would send from within a callback, where writing
at once to a broken connection waits for ever for a lock that paho holds.
"""

PACKET_ROOM: Final = 64 * 1024
_SUBSCRIBED: Final = (Channel.RESPONSE, Channel.STATUS, Channel.PRESENCE, Channel.COMMAND)
_RETAINED: Final = {True: SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, False: SubscribeOptions.RETAIN_DO_NOT_SEND}
"""Retain Handling: whether the broker sends what it has stored. Only presence is stored by intent."""
_LONGEST_ID: Final = "x" * 64
_FAILURE: Final = 0x80  # SUBACK reason codes (MQTT 5.0 section 3.9.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """Where the broker is, and the credentials; `announces` publishes a birth at each connect, which requests hellos.

    With `only_client` the subscriptions cover that client alone. `certificate` and `key` are PEM files, for a
    broker that wants to see a certificate.
    """

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    identifier: str = field(default_factory=lambda: f"{CONTROL_PLANE}-{secrets.token_hex(4)}")
    only_client: str | None = None
    announces: bool = True
    certificate: str | None = None
    key: str | None = None


class MqttMessenger:
    """Keeps one connection open, delivers the messages of the clients, publishes those of the services.

    `now` is a monotonic clock (s). `sign` signs the births.
    """

    def __init__(
        self,
        settings: MqttSettings,
        topics: Topics,
        log: EventLog,
        *,
        now: Callable[[], float] = time.monotonic,
        sign: Sign | None = None,
    ) -> None:
        self._sign = sign
        self._on_connected: Callable[[], Coroutine[None, None, None]] | None = None
        self._settings = settings
        self._topics = topics
        self._log = log
        self._now = now
        self._client: PromptClient | None = None
        self._queue = DeliveringQueue()
        self._up = asyncio.Event()
        self._publishing = 0
        self._failure = ""
        self._answered_at = 0.0
        self._announced_at = -BIRTH_EVERY

    @property
    def problem(self) -> str | None:
        """Why messages cannot pass now; None while the broker answers."""
        client = self._client
        if client is None:
            return f"not connected: {self._failure}" if self._failure else "not connected"
        silence = self._now() - self._answered_at
        return f"connected, but without an answer for {silence:.0f} s" if silence > client.keepalive else None

    @property
    def max_message_size(self) -> int:
        """Bytes of payload that the broker takes in a command to any client."""
        if self._client is None:
            return MAX_MESSAGE_SIZE
        return min(MAX_MESSAGE_SIZE, self._client.terms.room(self._topics.command(_LONGEST_ID)))

    def on_connected(self, publish: Callable[[], Coroutine[None, None, None]]) -> None:
        """Call this after each connect, before the birth is published; it does not raise `MessengerDown`."""
        self._on_connected = publish

    async def up(self) -> None:
        """Wait until the connection is open."""
        await self._up.wait()

    async def run(self, deliver: Callable[[Delivered], None]) -> None:
        """Connect and reconnect until cancelled; `deliver` receives each message, in order, on the event loop."""
        failures = 0
        while True:
            began = self._now()
            await self._connection(deliver)
            # A broker that takes the connection and ends it at once counts as one that refuses it.
            failures = 0 if self._now() - began >= LASTING else failures + 1
            wait = full_jitter(failures, first=SHORTEST_WAIT, longest=LONGEST_WAIT, at_least=SHORTEST_WAIT / 2)
            await asyncio.sleep(wait)

    async def publish(
        self,
        channel: Channel,
        client_id: str,
        payload: bytes,
        *,
        traceparent: str | None = None,
        properties: UserProperties = (),
    ) -> None:
        """Publish and wait for the PUBACK; `MessengerDown` when there is none within `TIMEOUT`.

        `BrokerRefused` for a message that is larger than the broker allows: it would end the connection of all clients.
        """
        client = self._client
        if client is None:
            message = f"the broker is {self.problem}"
            raise MessengerDown(message)
        topic = self._topics.every(channel) if channel in FLEET_CHANNELS else self._topics.of(client_id, channel)
        room = client.terms.room(topic) - (SIGNED_ROOM if properties else 0)
        if len(payload) > room:
            message = f"a message of {len(payload)} bytes for {client_id}: the broker takes {room} bytes at most"
            raise BrokerRefused(message)
        if len(payload) > room - TRACED_ROOM:
            # The message is worth more than its trace.
            traceparent = None
        if traceparent is not None:
            properties = (*properties, (TRACEPARENT, traceparent))
        retain = RETAINED[channel] and client.terms.retain_available
        try:
            await client.free_place()
            if not self._publishing:
                client.write_next_now()
            self._publishing += 1
            try:
                await client.publish(
                    topic, payload, QOS[channel], retain=retain, properties=_with_user(properties), timeout=TIMEOUT
                )
            except ValueError:
                client.return_place()
                raise
            finally:
                self._publishing -= 1
        except (aiomqtt.MqttError, ValueError) as error:
            message = f"the broker did not take a message for {client_id}: {error}"
            raise MessengerDown(message) from error

    async def _connection(self, deliver: Callable[[Delivered], None]) -> None:
        """One connection, from CONNECT to its end, and the log of the end."""
        client: PromptClient | None = None
        beside: list[asyncio.Task[None]] = []
        try:
            client = self._opened()
            async with client:
                _require(client.terms)
                await self._subscribe(client)
                self._answered_at = self._now()
                self._client = client
                self._up.set()
                self._log("broker.connected", {"as": self._settings.identifier})
                beside = [asyncio.create_task(self._ping(client))]
                if self._settings.announces:
                    beside.append(asyncio.create_task(self._announce(client)))
                await self._receive(client, deliver)
        # ValueError: a host name that cannot be encoded (UnicodeError).
        except (aiomqtt.MqttError, MessengerDown, OSError, ValueError) as error:
            # aiomqtt's text only has that the connection is over; the client has the reason.
            reason = client.ending if client is not None and isinstance(error, aiomqtt.MqttError) else None
            self._failure = reason or str(error)
            self._log("broker.failed", {"error": self._failure})
        finally:
            self._client = None
            self._up.clear()
            for task in beside:
                task.cancel()

    async def _ping(self, client: PromptClient) -> None:
        """Measure that the broker answers; paho closes the connection when a PINGRESP is late."""
        asked_at = self._now()
        while True:
            await asyncio.sleep(client.keepalive / 3)
            if client.answered:
                self._answered_at, asked_at = asked_at, self._now()
                client.ping()

    async def _announce(self, client: PromptClient) -> None:
        """Publish the birth, at most once in `BIRTH_EVERY`: every client answers it with a hello."""
        if self._on_connected is not None:
            await self._on_connected()
        await asyncio.sleep(max(0.0, self._announced_at + BIRTH_EVERY - self._now()))
        self._announced_at = self._now()
        birth = encode(Birth(self._settings.identifier))
        signature = self._sign(SignedKind.BIRTH, self._topics.birth(), birth) if self._sign else ()
        try:
            await self.publish(Channel.BIRTH, CONTROL_PLANE, birth, properties=signature)
        except (MessengerDown, BrokerRefused) as error:
            client.end(str(error))

    def _opened(self) -> PromptClient:
        broker = BrokerUrl.parse(self._settings.url)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = WINDOW
        properties.MaximumPacketSize = MAX_MESSAGE_SIZE + PACKET_ROOM
        client = PromptClient(
            broker.host,
            broker.port,
            username=self._settings.username,
            password=self._settings.password,
            identifier=self._settings.identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            keepalive=KEEPALIVE,
            properties=properties,
            tls_context=context_for(broker, self._settings.certificate, self._settings.key),
            transport="tcp" if broker.path is None else "websockets",
            websocket_path=broker.path,
            # Nagle's algorithm turns a round trip of 0.8 ms into one of 68 ms.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            timeout=TIMEOUT,
            # paho limits itself to 20 messages in flight; a fleet needs more at once.
            max_inflight_messages=WINDOW,
            queue_type=self._new_queue,  # type: ignore[arg-type]  # a factory will do
        )
        # aiomqtt logs a warning for each publish beyond ten under way, which is normal with a fleet.
        client.pending_calls_threshold = WINDOW
        return client

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        """All filters in one packet; No Local, so that the commands published here do not come back."""
        options = {
            channel: SubscribeOptions(qos=QOS[channel], noLocal=True, retainHandling=_RETAINED[RETAINED[channel]])
            for channel in _SUBSCRIBED
        }
        granted = await client.subscribe([(self._filter(channel), one) for channel, one in options.items()])
        refused = {str(code) for code in granted if getattr(code, "value", code) >= _FAILURE}
        if refused:
            message = f"the broker refused our subscriptions: {', '.join(sorted(refused))}"
            raise MessengerDown(message)

    def _filter(self, channel: Channel) -> str:
        only = self._settings.only_client
        return self._topics.every(channel) if only is None else self._topics.of(only, channel)

    async def _receive(self, client: aiomqtt.Client, deliver: Callable[[Delivered], None]) -> None:
        """Deliver the queued messages, then each new one as it arrives, until the connection is lost."""

        def deliver_message(message: aiomqtt.Message) -> None:
            properties = message.properties
            left = getattr(properties, "MessageExpiryInterval", None)
            user = tuple(getattr(properties, "UserProperty", ()))
            traceparent = dict(user).get(TRACEPARENT)
            deliver(Delivered(message.topic.value, message.payload, bool(message.retain), left, traceparent, user))

        while not self._queue.empty():
            deliver_message(self._queue.get_nowait())
        self._queue.deliver = deliver_message
        await anext(client.messages)

    def _new_queue(self, maxsize: int) -> DeliveringQueue:
        self._queue = DeliveringQueue(maxsize)
        return self._queue


def _require(terms: BrokerTerms) -> None:
    """`MessengerDown` for terms under which the protocol cannot work."""
    if terms.maximum_qos < 1:
        message = "the broker allows QoS 0 only, and commands need QoS 1: raise its limit (max_qos in Mosquitto)"
        raise MessengerDown(message)


def _with_user(user: UserProperties) -> Properties | None:
    """The properties of a message with these user properties."""
    if not user:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = list(user)
    return properties
