"""The port `Messenger` over aiomqtt.

aiomqtt is a fixed choice of the project: it is tuned (socket options, inflight window, concurrent publishes), and never
replaced by a client written here.

Rule: every connection is a new session (clean start, no expiry): the database is the truth, and each connect requests
a hello from every client. aiomqtt acknowledges a message when it queues it, so no promise depends on that
acknowledgement; it also ignores a negative PUBACK, and drops messages when its queue is full (docs/reliability.md 0.7).
"""

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from control_plane.adapters.mqtt.prompt_client import DeliveringQueue, PromptClient
from control_plane.services.backoff import full_jitter
from control_plane.services.errors import MessengerDown
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Delivered
from schemas.broker_url import BrokerUrl
from schemas.codec import MAX_MESSAGE_SIZE, encode
from schemas.messages import Birth
from schemas.topics import CONTROL_PLANE, QOS, RETAINED, Channel, Topics

TIMEOUT: Final = 10.0
KEEPALIVE: Final = 30
SHORTEST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
WINDOW: Final = 65_535
"""Receive Maximum. Without it Mosquitto sends 20 messages, queues 200 and drops the rest of a fleet's presence.

The same number of outgoing messages may be in flight. Beyond it paho would send from within a callback, where writing
at once to a broken connection waits for ever for a lock that paho holds.
"""

PACKET_ROOM: Final = 64 * 1024
_SUBSCRIBED: Final = (Channel.RESPONSE, Channel.STATUS, Channel.PRESENCE, Channel.COMMAND)
_RETAINED: Final = {True: SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, False: SubscribeOptions.RETAIN_DO_NOT_SEND}
"""Retain Handling: whether the broker sends what it has stored. Only presence is stored by intent."""
_FAILURE: Final = 0x80  # SUBACK reason codes (MQTT 5.0 section 3.9.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """Where the broker is, and the credentials; `announces` publishes a birth at each connect, which requests hellos.

    With `only_client` the subscriptions cover that client alone.
    """

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    identifier: str = field(default_factory=lambda: f"{CONTROL_PLANE}-{secrets.token_hex(4)}")
    only_client: str | None = None
    announces: bool = True


class MqttMessenger:
    """Keeps one connection open, delivers the messages of the clients, publishes those of the services."""

    def __init__(self, settings: MqttSettings, topics: Topics, log: EventLog) -> None:
        self._settings = settings
        self._topics = topics
        self._log = log
        self._client: PromptClient | None = None
        self._queue = DeliveringQueue()
        self._up = asyncio.Event()
        self._publishing = 0

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def up(self) -> None:
        """Wait until the connection is open."""
        await self._up.wait()

    async def run(self, deliver: Callable[[Delivered], None]) -> None:
        """Connect and reconnect until cancelled; `deliver` receives each message, in order, on the event loop."""
        failures = 0
        while True:
            try:
                async with self._opened() as client:
                    await self._subscribe(client)
                    self._client = client
                    self._up.set()
                    self._log("broker.connected", {"as": self._settings.identifier})
                    failures = 0
                    if self._settings.announces:
                        await self.publish(Channel.BIRTH, CONTROL_PLANE, encode(Birth(self._settings.identifier)))
                    await self._receive(client, deliver)
            # ValueError: a host name that cannot be encoded (UnicodeError).
            except (aiomqtt.MqttError, MessengerDown, OSError, ValueError) as error:
                self._log("broker.failed", {"error": str(error)})
            finally:
                self._client = None
                self._up.clear()
            wait = full_jitter(failures, first=SHORTEST_WAIT, longest=LONGEST_WAIT, at_least=SHORTEST_WAIT / 2)
            await asyncio.sleep(wait)
            failures += 1

    async def publish(self, channel: Channel, client_id: str, payload: bytes) -> None:
        """Publish and wait for the PUBACK; `MessengerDown` when there is none within `TIMEOUT`."""
        client = self._client
        if client is None:
            message = "the broker is not connected"
            raise MessengerDown(message)
        topic = self._topics.birth() if channel is Channel.BIRTH else self._topics.of(client_id, channel)
        if not self._publishing:
            client.write_next_now()
        self._publishing += 1
        try:
            await client.publish(topic, payload, qos=QOS[channel], retain=RETAINED[channel], timeout=TIMEOUT)
        except (aiomqtt.MqttError, ValueError) as error:
            message = f"the broker did not take a message for {client_id}: {error}"
            raise MessengerDown(message) from error
        finally:
            self._publishing -= 1

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
            tls_context=ssl.create_default_context() if broker.secure else None,
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
        refused = [str(code) for code in granted if getattr(code, "value", code) >= _FAILURE]
        if refused:
            message = f"the broker refused our subscriptions: {', '.join(refused)}"
            raise MessengerDown(message)

    def _filter(self, channel: Channel) -> str:
        only = self._settings.only_client
        return self._topics.every(channel) if only is None else self._topics.of(only, channel)

    async def _receive(self, client: aiomqtt.Client, deliver: Callable[[Delivered], None]) -> None:
        """Deliver the queued messages, then each new one as it arrives, until the connection is lost."""

        def deliver_message(message: aiomqtt.Message) -> None:
            left = getattr(message.properties, "MessageExpiryInterval", None)
            deliver(Delivered(message.topic.value, message.payload, retained=bool(message.retain), expires_in=left))

        while not self._queue.empty():
            deliver_message(self._queue.get_nowait())
        self._queue.deliver = deliver_message
        await anext(client.messages)

    def _new_queue(self, maxsize: int) -> DeliveringQueue:
        self._queue = DeliveringQueue(maxsize)
        return self._queue
