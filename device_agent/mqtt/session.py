"""One MQTT connection, from CONNECT to its end, and the reaction to each of its events.

Rule: uses MQTT and not paho. Events are handled between two turns of the network loop, where none of the client
library's locks is held; so a callback may publish, and no callback can break the loop.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, assert_never

from msgspec import Struct

from device_agent.reach.broker_link import BrokerWay
from device_agent.system_info import boot_clock
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.names import TRACED_ROOM
from schemas.signing.canonical import SIGNED_ROOM, Signature
from schemas.topics import FLEET_CHANNELS, QOS, Channel, Topics

KEEPALIVE: Final = 30
SESSION_EXPIRY: Final = 600
SLEPT: Final = 1.5 * KEEPALIVE
"""Seconds without a turn after which the broker has ended the connection (MQTT 5.0, section 3.1.2.10)."""

HEADROOM: Final = 8 * 1024
"""Bytes for a packet's topic and properties, in addition to its payload."""

_PACKET_HEAD: Final = 16
"""Bytes of a PUBLISH beside topic and payload: header, lengths, packet id, and the expiry of a presence."""

_HANDSHAKE_TIMEOUT: Final = 30.0
_FAILURE: Final = 0x80
"""Reason codes from here on are failures (MQTT 5.0, section 2.4)."""
_NO_RETRY_HELPS: Final = frozenset({132, 133, 134, 135, 138, 140, 142, 144, 149, 154, 155, 156, 157})
"""Reasons that a retry does not cure: wrong version, bad credentials, banned, client id in use, and similar ones."""

_SUBSCRIBED: Final = (Channel.COMMAND, Channel.BIRTH, Channel.PRESENCE, Channel.KEYS)
_NOT_MQTT: Final = "; no MQTT broker has answered: is this another service, or the login page of a network?"
_OWN_LATER_PRESENCE: Final = "the broker has a later presence of this device"

log = logging.getLogger(__name__)


class AckToken(Struct, frozen=True):
    """The command to acknowledge; useless after the end of its connection. QoS 0 has no acknowledgement."""

    connection: int
    packet_id: int
    qos: int = 1


class Callbacks(Struct, frozen=True, kw_only=True):
    """The functions that a session calls; see `Connection`."""

    on_connected: Callable[[], None]
    on_disconnected: Callable[[str], None]
    on_command: Callable[[bytes, AckToken, bool, str | None, Signature | None], None]
    on_birth: Callable[[bytes, Signature | None], None]
    on_retained_presence: Callable[[bytes, Signature | None], bool]
    on_keys: Callable[[bytes], None]
    on_refused: Callable[[Channel, str], None]


class ClientIdentity(Struct, frozen=True, kw_only=True):
    """The client and the way to its broker; `will` makes the payload of the next will.

    `sign` makes the user properties of each message that is published, the will among them; None: it is not signed.
    """

    way: BrokerWay
    client_id: str
    username: str | None
    password: str | None
    topics: Topics
    will: Callable[[], bytes]
    sign: Callable[[Channel, bytes], Sequence[tuple[str, str]]] | None = None

    def topic(self, channel: Channel) -> str:
        """The topic of this client's messages of one channel."""
        topics = {
            Channel.COMMAND: self.topics.command,
            Channel.RESPONSE: self.topics.response,
            Channel.STATUS: self.topics.status,
            Channel.PRESENCE: self.topics.presence,
        }
        return self.topics.every(channel) if channel in FLEET_CHANNELS else topics[channel](self.client_id)


class ConnectionEnd(Struct):
    """How a connection ended; `lasted` is in seconds since the subscriptions were in place."""

    text: str = ""
    connected: bool = False
    lasted: float = 0.0
    permanent: bool = False


class Connack(Struct, frozen=True, kw_only=True):
    """The broker has accepted the connection on its terms, or refused it with a reason.

    `largest_packet` is in bytes, `receive_maximum` counts messages; None where the broker announces no limit.
    """

    reason: int
    text: str
    largest_packet: int | None
    receive_maximum: int | None
    maximum_qos: int = 2
    stores: bool = True


class Suback(Struct, frozen=True):
    """The broker has answered one SUBSCRIBE; it granted the subscriptions except those in `refused`."""

    refused: tuple[str, ...]


class Puback(Struct, frozen=True):
    """The broker has acknowledged a published message, or `refused` it."""

    packet_id: int
    refused: str | None


class MessageArrived(Struct, frozen=True):
    """A message on a subscribed topic; `retained` if the broker had stored it before the subscription.

    `traceparent` is its user property of this name, `signature` that of two others; None where it has none.
    """

    topic: str
    payload: bytes
    packet_id: int
    qos: int
    retained: bool
    traceparent: str | None = None
    signature: Signature | None = None


class ServerDisconnect(Struct, frozen=True):
    """The broker has ended the connection with a reason."""

    reason: int
    text: str


ClientEvent = Connack | Suback | Puback | MessageArrived | ServerDisconnect


class MqttClient(Protocol):
    """The part of an MQTT client that a session uses; all calls but `connect` and `turn` return at once."""

    identity: ClientIdentity
    events: deque[ClientEvent]

    def connect(self) -> None:
        """Open the connection and send CONNECT."""

    def turn(self) -> str | None:
        """Run the network for up to a second; the reason when the connection has ended, else None."""

    def subscribe(self, *channels: Channel) -> None:
        """Subscribe to channels."""

    def publish(self, channel: Channel, data: bytes, expiry: int | None, traceparent: str | None) -> int | None:
        """Publish a message; its packet id, None when it is not accepted."""

    def ack(self, packet_id: int, qos: int) -> None:
        """Acknowledge a message of QoS 1 or 2."""

    def disconnect(self) -> None:
        """Send DISCONNECT."""


class Session:
    """One connection; `ready` while its subscriptions are in place."""

    def __init__(self, number: int, client: MqttClient, callbacks: Callbacks, call: Callable[..., bool]) -> None:
        self.number = number
        self.ready = False
        self.end_reason = ConnectionEnd()
        self._client = client
        self._callbacks = callbacks
        self._call = call
        self._unacknowledged: dict[int, Channel] = {}
        # Held around a publish, and never inside a callback of the library: locks are taken in one order only.
        self._acknowledged = threading.Condition()
        self.room = MAX_MESSAGE_SIZE
        """Bytes of the largest payload that the broker takes."""
        self._allowance: int | None = None
        self._ready_at = 0.0
        self._greeted = False
        """Whether a CONNACK has arrived."""
        self._presence_read = False
        """Whether the broker has answered the subscription to the device's own presence."""

    def run(self, stopping: Callable[[], bool]) -> None:
        """Connect and work until the connection ends; `end_reason` then has the cause."""
        self._client.connect()
        give_up_at = time.monotonic() + _HANDSHAKE_TIMEOUT
        over, awake_at = None, boot_clock()
        while over is None:
            over = self._client.turn()
            while self._client.events:
                self._handle(self._client.events.popleft())
            before, awake_at = awake_at, boot_clock()
            if over is None and awake_at - before > SLEPT:
                # The library's clock stands still meanwhile: it would wait for an answer that cannot come.
                over = f"this device was suspended, or stopped, for {awake_at - before:.0f} s"
            elif not self.ready and (stopping() or time.monotonic() > give_up_at):
                over = "the broker does not answer"
        self.end(over if self._greeted else over + _NOT_MQTT)

    def end(self, text: str, *, permanent: bool = False) -> None:
        """Record why it ended; the first reason counts."""
        if not self.end_reason.text:
            lasted = time.monotonic() - self._ready_at if self.ready else 0.0
            self.end_reason = ConnectionEnd(text, self.end_reason.connected, lasted, permanent)
        self.ready = False

    def disconnect(self) -> None:
        """Send DISCONNECT, which also deletes the will; `run` then returns."""
        self._client.disconnect()

    def publish(
        self, channel: Channel, data: bytes, *, expiry: int | None = None, traceparent: str | None = None
    ) -> bool:
        """Publish a message; see `Connection.publish`."""
        if len(data) > self.room:
            log.error("MQTT: a %s of %d bytes is not sent: at most %d are allowed", channel, len(data), self.room)
            return False
        if len(data) > self.room - TRACED_ROOM:
            # The message is worth more than its trace.
            traceparent = None
        with self._acknowledged:
            if not self.ready or (self._allowance is not None and len(self._unacknowledged) >= self._allowance):
                return False
            try:
                packet_id = self._client.publish(channel, data, expiry, traceparent)
            except (ValueError, OSError):
                log.exception("MQTT: a %s could not be published", channel)
                return False
            if packet_id is not None and QOS[channel]:
                self._unacknowledged[packet_id] = channel
        return packet_id is not None

    def wait_acknowledged(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until the broker has acknowledged all published messages."""
        with self._acknowledged:
            self._acknowledged.wait_for(lambda: not (self._unacknowledged and self.ready), timeout)

    def ack(self, packet_id: int, qos: int) -> None:
        """Acknowledge a message. One of QoS 0 has no packet id: a PUBACK for it would end the connection."""
        if qos:
            self._client.ack(packet_id, qos)

    def _handle(self, event: ClientEvent) -> None:
        match event:
            case Connack():
                self._on_connack(event)
            case Suback():
                self._on_suback(event)
            case Puback():
                self._on_puback(event)
            case MessageArrived():
                self._on_message(event)
            case ServerDisconnect():
                self.end(f"the broker closed the connection: {event.text}", permanent=event.reason in _NO_RETRY_HELPS)
            case _:
                assert_never(event)

    def _on_connack(self, connack: Connack) -> None:
        self._greeted = True
        if connack.reason >= _FAILURE:
            self.end(f"refused: {connack.text}", permanent=connack.reason in _NO_RETRY_HELPS)
            return
        if not connack.maximum_qos or not connack.stores:
            lacks = "QoS 1" if not connack.maximum_qos else "retained messages"
            self.end(f"the broker offers no {lacks}, which the protocol needs", permanent=True)
            self.disconnect()
            return
        if connack.largest_packet is not None:
            topic = max(len(self._client.identity.topic(channel)) for channel in Channel)
            signed = 0 if self._client.identity.sign is None else SIGNED_ROOM
            self.room = min(MAX_MESSAGE_SIZE, connack.largest_packet - topic - _PACKET_HEAD - signed)
        self._allowance = connack.receive_maximum
        # Its answer comes before those of later packets: a birth is published after the retained presence was read, and
        # a command is verified by the list of keys that was published before it.
        keys = () if self._client.identity.sign is None else (Channel.KEYS,)
        self._client.subscribe(Channel.PRESENCE, *keys)

    def _on_suback(self, suback: Suback) -> None:
        if not self._presence_read:
            # A broker may refuse this one: then a state folder that went back is seen by the owner only.
            self._presence_read = True
            self._client.subscribe(Channel.COMMAND, Channel.BIRTH)
            return
        if self.end_reason.text:
            # Answered after a presence that ended this connection.
            return
        if suback.refused:
            self.end(f"the broker refuses the subscriptions: {', '.join(suback.refused)}", permanent=True)
            self.disconnect()
            return
        self.ready = self.end_reason.connected = True
        self._ready_at = time.monotonic()
        self._call(self._callbacks.on_connected)

    def _on_puback(self, puback: Puback) -> None:
        with self._acknowledged:
            channel = self._unacknowledged.pop(puback.packet_id, None)
            self._acknowledged.notify_all()
        if channel is not None and puback.refused is not None:
            log.warning("MQTT: the broker refuses a %s: %s", channel, puback.refused)
            self._call(self._callbacks.on_refused, channel, puback.refused)

    def _on_message(self, message: MessageArrived) -> None:
        if not self._call(self._dispatch, message) or message.topic != self._client.identity.topic(Channel.COMMAND):
            self.ack(message.packet_id, message.qos)

    def _dispatch(self, message: MessageArrived) -> None:
        """Raises for a topic without a subscription."""
        identity = self._client.identity
        channels = {identity.topic(channel): channel for channel in _SUBSCRIBED}
        match channels[message.topic]:
            case Channel.COMMAND:
                token = AckToken(self.number, message.packet_id, message.qos)
                self._callbacks.on_command(
                    message.payload, token, message.retained, message.traceparent, message.signature
                )
            case Channel.PRESENCE:
                # Not retained: an echo of this connection's own, by a broker that ignores No Local.
                if message.retained and self._callbacks.on_retained_presence(message.payload, message.signature):
                    self.end(_OWN_LATER_PRESENCE)
                    self.disconnect()
            case Channel.KEYS:
                self._callbacks.on_keys(message.payload)
            case _ if not message.retained:
                self._callbacks.on_birth(message.payload, message.signature)
