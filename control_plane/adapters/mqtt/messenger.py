"""The broker behind the port `Messenger`: the one module that imports aiomqtt.

aiomqtt is a fixed choice of the project: it is never replaced by a client of our own, whatever a profile shows; what
can be tuned is how it is used (socket options, inflight window, concurrent publishes).

Rule: a connection is a session of its own (clean start, no expiry), because the database is the truth and every
reconnect asks the fleet to say hello. aiomqtt acknowledges a message when it is queued, so nothing may rest on the
broker's acknowledgement (reliability notes on aiomqtt 2.5: a negative PUBACK is swallowed, a full queue drops).
"""

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

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

So many of our own may be in flight too. Beyond that paho would send from within a callback, where writing at once to a
broken connection would wait for ever for a lock that paho holds.
"""

PACKET_ROOM: Final = 64 * 1024
_HEARD: Final = (Channel.RESPONSE, Channel.STATUS, Channel.PRESENCE, Channel.COMMAND)
_FAILURE: Final = 0x80  # SUBACK reason codes (MQTT 5.0 section 3.9.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """Where the broker is and who we are there; `announces` makes every connect ask the fleet for hellos."""

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    identifier: str = field(default_factory=lambda: f"{CONTROL_PLANE}-{secrets.token_hex(4)}")
    only_client: str | None = None
    announces: bool = True


class MqttMessenger:
    """Keeps one connection for ever, delivers what the fleet says, publishes what the services say."""

    def __init__(self, settings: MqttSettings, topics: Topics, log: EventLog) -> None:
        self._settings = settings
        self._topics = topics
        self._log = log
        self._client: _PromptClient | None = None
        self._queue = _HearingQueue()
        self._up = asyncio.Event()
        self._publishing = 0

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def up(self) -> None:
        """Wait until the connection stands."""
        await self._up.wait()

    async def run(self, deliver: Callable[[Delivered], None]) -> None:
        """Connect, and connect again, until cancelled; every message that arrives is given to `deliver`."""
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
                    await self._listen(client, deliver)
            # ValueError: a host name that cannot even be looked up (UnicodeError).
            except (aiomqtt.MqttError, MessengerDown, OSError, ValueError) as error:
                self._log("broker.failed", {"error": str(error)})
            finally:
                self._client = None
                self._up.clear()
            wait = full_jitter(failures, first=SHORTEST_WAIT, longest=LONGEST_WAIT, at_least=SHORTEST_WAIT / 2)
            await asyncio.sleep(wait)
            failures += 1

    async def publish(self, channel: Channel, client_id: str, payload: bytes) -> None:
        """Publish and wait for the broker's word; `MessengerDown` when there is none."""
        client = self._client
        if client is None:
            message = "the broker is not connected"
            raise MessengerDown(message)
        topic = self._topics.birth() if channel is Channel.BIRTH else self._topics.of(client_id, channel)
        if not self._publishing:
            client.hurry()
        self._publishing += 1
        try:
            await client.publish(topic, payload, qos=QOS[channel], retain=RETAINED[channel], timeout=TIMEOUT)
        except (aiomqtt.MqttError, ValueError) as error:
            message = f"the broker did not take a message for {client_id}: {error}"
            raise MessengerDown(message) from error
        finally:
            self._publishing -= 1

    def _opened(self) -> "_PromptClient":
        broker = BrokerUrl.parse(self._settings.url)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = WINDOW
        properties.MaximumPacketSize = MAX_MESSAGE_SIZE + PACKET_ROOM
        client = _PromptClient(
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
            # paho allows itself 20 messages in flight; a fleet is told more at once.
            max_inflight_messages=WINDOW,
            queue_type=self._new_queue,  # type: ignore[arg-type]  # whatever makes a queue
        )
        # That many publishes are under way in a fleet; from ten on aiomqtt would log a warning for each.
        client.pending_calls_threshold = WINDOW
        return client

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        """All filters in one packet; No Local, so that our own commands do not come back."""
        options = {channel: SubscribeOptions(qos=QOS[channel], noLocal=True) for channel in _HEARD}
        granted = await client.subscribe([(self._filter(channel), one) for channel, one in options.items()])
        refused = [str(code) for code in granted if getattr(code, "value", code) >= _FAILURE]
        if refused:
            message = f"the broker refused our subscriptions: {', '.join(refused)}"
            raise MessengerDown(message)

    def _filter(self, channel: Channel) -> str:
        only = self._settings.only_client
        return self._topics.every(channel) if only is None else self._topics.of(only, channel)

    async def _listen(self, client: aiomqtt.Client, deliver: Callable[[Delivered], None]) -> None:
        """Deliver the messages that wait in the queue and those that arrive, until the connection is lost."""

        def hand_on(message: aiomqtt.Message) -> None:
            deliver(Delivered(message.topic.value, message.payload, retained=bool(message.retain)))

        while not self._queue.empty():
            hand_on(self._queue.get_nowait())
        self._queue.hears = hand_on
        await anext(client.messages)

    def _new_queue(self, maxsize: int) -> "_HearingQueue":
        self._queue = _HearingQueue(maxsize)
        return self._queue


class _PromptClient(aiomqtt.Client):
    """aiomqtt that can write a message at once.

    By itself it asks the loop to say when the socket can be written, which it nearly always can: whatever else the loop
    had to do goes first. For many messages that is right, since the broker is woken once for all of them.
    """

    _hurries = False

    def hurry(self) -> None:
        """Have the next packet of this turn of the loop written at once."""
        self._hurries = True
        asyncio.get_running_loop().call_soon(self._turned)

    def _turned(self) -> None:
        self._hurries = False

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:  # noqa: ANN401 - paho's
        if self._hurries:
            self._hurries = False
            try:
                client.loop_write()
            except Exception as error:  # noqa: BLE001 - whatever broke, the connection is over
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)
                return
            if client.socket() is None or not client.want_write():
                return
        super()._on_socket_register_write(client, userdata, sock)


class _HearingQueue(asyncio.Queue[aiomqtt.Message]):
    """aiomqtt's queue of incoming messages. Once somebody hears, nothing waits in it.

    To take a message out with `client.messages` costs a task and a wait for each of them.
    """

    hears: Callable[[aiomqtt.Message], None] | None = None

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Hand the message over, or keep it until somebody hears."""
        if self.hears is None:
            super().put_nowait(item)
        else:
            self.hears(item)
