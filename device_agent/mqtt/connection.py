"""The MQTT v5 connection to the broker, opened again for ever. The only module that imports paho.

Rule: one paho client serves one connection. paho would carry unacknowledged publishes, and a message that a broker
never accepts, into the next connection; the agent repeats what matters from its journal. paho's callbacks only queue
events (`device_agent.mqtt.session` handles them), because an exception in one of them would end paho's loop.
"""

import logging
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from paho.mqtt.client import Client, DisconnectFlags, MQTTMessage, error_string
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from device_agent.mqtt.reconnect import ReconnectBackoff
from device_agent.mqtt.session import (
    HEADROOM,
    KEEPALIVE,
    SESSION_EXPIRY,
    AckToken,
    Callbacks,
    ClientEvent,
    ClientIdentity,
    Connack,
    ConnectionEnd,
    MessageArrived,
    Puback,
    ServerDisconnect,
    Session,
    Suback,
)
from device_agent.reach.broker_link import BrokerWay
from device_agent.reach.websocket import WebSocket
from device_agent.system_info import boot_clock
from device_agent.tls import failure_text
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.names import TRACEPARENT, TRACEPARENT_PATTERN
from schemas.signing.canonical import Signature, read_signature
from schemas.topics import QOS, RETAINED, Channel, Topics
from schemas.values import WILL_DELAY

__all__ = ["AckToken", "Connection"]

RECEIVE_MAXIMUM: Final = 16
_FAREWELL_TIMEOUT: Final = 2.0
_STABLE_AFTER: Final = 3.0
_BRIEF: Final = 60.0
_LOOK: Final = 1.0
"""Seconds between two looks at the clock while the connection waits for its next try."""

_SUSPICIOUS: Final = 3
"""This many accepted connections in a row that end within a minute point to a second device with the same id."""
_MAX_INFLIGHT: Final = 10
_MAX_QUEUED: Final = 256
_OPTIONS: Final = {
    channel: SubscribeOptions(qos=QOS[channel], retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
    for channel in (Channel.COMMAND, Channel.BIRTH)
} | {
    # QoS 0: the broker keeps none of it for a device that is away.
    Channel.PRESENCE: SubscribeOptions(qos=0, noLocal=True, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE),
    Channel.KEYS: SubscribeOptions(qos=QOS[Channel.KEYS], retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE),
}

log = logging.getLogger(__name__)


class Connection:
    """The agent's connection, which is opened again after every end.

    `will` makes the payload of the will for the next CONNECT, with a new epoch each time. After each CONNACK it
    subscribes again, and calls `on_connected` when the broker has granted that; commands that waited in the session
    may arrive earlier. `on_disconnected` follows each `on_connected` once. Callbacks run in the connection's thread and
    must only enqueue. A command stays unacknowledged until `ack`. If its callback raised, it is acknowledged at once:
    sixteen commands that are never acknowledged would stop the flow. `on_command` also receives whether the broker had
    stored the command before, the trace that it belongs to, and its signature; a birth comes with its signature, too.
    `on_retained_presence` receives what the broker has stored as this device's presence, before the birth; if it
    returns True, the connection is opened again, with a new will. `on_retry` receives why a connection ended or failed,
    and the seconds until the next. With `sign` every message is published with the user properties that it makes, and
    `on_keys` receives the list of keys.
    """

    def __init__(  # noqa: PLR0913 (called once, with every argument by name)
        self,
        *,
        way: BrokerWay,
        client_id: str,
        username: str | None,
        password: str | None,
        topics: Topics,
        will: Callable[[], bytes],
        on_connected: Callable[[], None],
        on_disconnected: Callable[[str], None],
        on_command: Callable[[bytes, AckToken, bool, str | None, Signature | None], None],
        on_birth: Callable[[bytes, Signature | None], None],
        on_retained_presence: Callable[[bytes, Signature | None], bool] = lambda _data, _signature: False,
        on_keys: Callable[[bytes], None] = lambda _data: None,
        sign: Callable[[Channel, bytes], Sequence[tuple[str, str]]] | None = None,
        on_refused: Callable[[Channel, str], None] = lambda _channel, _text: None,
        on_retry: Callable[[str, float], None] = lambda _text, _seconds: None,
        backoff: ReconnectBackoff | None = None,
    ) -> None:
        self._identity = ClientIdentity(
            way=way,
            client_id=client_id,
            username=username,
            password=password,
            topics=topics,
            will=will,
            sign=sign,
        )
        self._callbacks = Callbacks(
            on_connected=on_connected,
            on_disconnected=on_disconnected,
            on_command=on_command,
            on_birth=on_birth,
            on_retained_presence=on_retained_presence,
            on_keys=on_keys,
            on_refused=on_refused,
        )
        self._on_retry = on_retry
        self._backoff = backoff or ReconnectBackoff()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._session: Session | None = None
        self._sessions = 0
        self._short_connections = 0
        self.faults = 0
        """Callbacks that raised, and messages without a subscription."""

    @property
    def connected(self) -> bool:
        """Whether the subscriptions are in place."""
        session = self._session
        return session is not None and session.ready

    @property
    def room(self) -> int:
        """Bytes of the largest payload that the broker takes; the protocol's limit before the first CONNACK."""
        session = self._session
        return MAX_MESSAGE_SIZE if session is None else session.room

    def start(self) -> None:
        """Start to connect; returns at once."""
        self._thread.start()

    def stop(self, offline: bytes | None = None) -> None:
        """Publish `offline` as presence if connected, disconnect without a will, and end the thread."""
        if (session := self._session) is not None and offline is not None:
            session.publish(Channel.PRESENCE, offline)
            session.wait_acknowledged(_FAREWELL_TIMEOUT)
        self._stopping.set()
        if (session := self._session) is not None:
            session.disconnect()
        if self._thread.is_alive():
            self._thread.join(_FAREWELL_TIMEOUT)

    def publish(
        self, channel: Channel, data: bytes, *, expiry: int | None = None, traceparent: str | None = None
    ) -> bool:
        """Publish a message; `expiry` in seconds. Never raises, and never queues for a later connection.

        False when not connected, when too many messages wait, or when the message is larger than the protocol or the
        broker allows. True is no promise: a QoS 1 message that the broker refuses is reported to `on_refused`.
        """
        session = self._session
        return session is not None and session.publish(channel, data, expiry=expiry, traceparent=traceparent)

    def ack(self, token: AckToken) -> None:
        """Acknowledge a command; no effect after the end of its connection, because the broker sends it again."""
        session = self._session
        if session is not None and session.number == token.connection:
            session.ack(token.packet_id, token.qos)

    def _run(self) -> None:
        while not self._stopping.is_set():
            end_reason = self._connect_once()
            if not self._stopping.is_set():
                delay = self._backoff.next(stable=end_reason.lasted >= _STABLE_AFTER, permanent=end_reason.permanent)
                text = end_reason.text + self._takeover_hint(end_reason)
                log.warning("MQTT %s: %s; trying again in %.1f s", self._identity.way, text, delay)
                self._call(self._on_retry, text, delay)
                self._pause(delay)

    def _pause(self, seconds: float) -> None:
        """Wait until the next try; time in suspend counts."""
        until = boot_clock() + seconds
        while not self._stopping.is_set() and (left := until - boot_clock()) > 0:
            self._stopping.wait(min(left, _LOOK))

    def _takeover_hint(self, end_reason: ConnectionEnd) -> str:
        """A hint for the log: not every broker reports a takeover by the same client id (Mosquitto 2.0.11 does not)."""
        self._short_connections = (
            self._short_connections + 1 if end_reason.connected and end_reason.lasted < _BRIEF else 0
        )
        if self._short_connections < _SUSPICIOUS:
            return ""
        client_id = self._identity.client_id
        return f", as {self._short_connections} times in a row (does another device use CLIENT_ID {client_id}?)"

    def _connect_once(self) -> ConnectionEnd:
        self._sessions += 1
        client = _PahoClient(self._identity)
        session = self._session = Session(self._sessions, client, self._callbacks, self._call)
        try:
            session.run(self._stopping.is_set)
        except Exception as error:  # noqa: BLE001 (any failure of the network or the broker leads to a reconnect)
            session.end(failure_text(error))
        finally:
            self._session = None
            client.close()
        if session.end_reason.connected:
            self._call(self._callbacks.on_disconnected, session.end_reason.text)
        return session.end_reason

    def _call(self, function: Callable[..., None], *arguments: object) -> bool:
        try:
            function(*arguments)
        except Exception:
            self.faults += 1
            log.exception("MQTT: a callback failed; the connection stays open")
            return False
        return True


class _PahoClient:
    """One paho client. It holds no reference to its user, so both are freed when the connection ends."""

    def __init__(self, identity: ClientIdentity) -> None:
        self.identity = identity
        self.events: deque[ClientEvent] = deque()
        self._faults: deque[str] = deque(maxlen=1)
        self._client = client = _OwnSocketClient(
            identity.way.open,
            CallbackAPIVersion.VERSION2,
            identity.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.username_pw_set(identity.username, identity.password)
        client.max_inflight_messages_set(_MAX_INFLIGHT)
        client.max_queued_messages_set(_MAX_QUEUED)
        _collect_events(client, self.events)
        _keep_faults(client, self._faults)

    def connect(self) -> None:
        """Open the socket and queue CONNECT, with a new will; `OSError` when the broker cannot be reached."""
        identity = self.identity
        more = _properties(PacketTypes.WILLMESSAGE, WillDelayInterval=WILL_DELAY)
        presence, will = Channel.PRESENCE, identity.will()
        if identity.sign is not None:
            more.UserProperty = list(identity.sign(presence, will))
        self._client.will_set(identity.topic(presence), will, QOS[presence], RETAINED[presence], more)
        properties = _properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=SESSION_EXPIRY,
            ReceiveMaximum=RECEIVE_MAXIMUM,
            MaximumPacketSize=MAX_MESSAGE_SIZE + HEADROOM,
        )
        broker = identity.way.broker
        self._client.connect(broker.host, broker.port, KEEPALIVE, clean_start=False, properties=properties)

    def turn(self) -> str | None:
        """Run paho's loop for up to a second; the reason when the connection has ended, else None."""
        code = self._client.loop()
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            return None
        return ": ".join((error_string(code).rstrip("."), *self._faults))

    def subscribe(self, *channels: Channel) -> None:
        """Subscribe to these channels."""
        self._client.subscribe([(self.identity.topic(channel), _OPTIONS[channel]) for channel in channels])

    def publish(self, channel: Channel, data: bytes, expiry: int | None, traceparent: str | None) -> int | None:
        """Queue a message; its packet id, None when paho accepts no more."""
        sign = self.identity.sign
        named = [] if sign is None else list(sign(channel, data))
        if traceparent is not None:
            named.append((TRACEPARENT, traceparent))
        more = None if expiry is None else _properties(PacketTypes.PUBLISH, MessageExpiryInterval=expiry)
        if named:
            more = more or _properties(PacketTypes.PUBLISH)
            more.UserProperty = named
        info = self._client.publish(self.identity.topic(channel), data, QOS[channel], RETAINED[channel], more)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def ack(self, packet_id: int, qos: int) -> None:
        """Queue a PUBACK, or a PUBCOMP for QoS 2."""
        self._client.ack(packet_id, qos)

    def disconnect(self) -> None:
        """Queue DISCONNECT."""
        self._client.disconnect()

    def close(self) -> None:
        """Close the socket, if paho has not."""
        if sock := self._client.socket():
            sock.close()


class _OwnSocketClient(Client):
    """paho with a connection that `open_link` makes: paho's own knows no proxy but PySocks, and no limits."""

    def __init__(self, open_link: Callable[[], socket.socket | WebSocket], *arguments: Any, **named: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **named)
        self._open_link = open_link

    def _create_socket(self) -> Any:  # noqa: ANN401 (what paho takes for a socket)
        # A private part of paho, which the tests of every way to a broker cover.
        return self._open_link()


def _collect_events(client: Client, events: deque[ClientEvent]) -> None:
    """Make paho's callbacks append events."""

    def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        named = getattr(message.properties, "UserProperty", ())
        events.append(
            MessageArrived(
                topic,
                bytes(message.payload),
                message.mid,
                message.qos,
                message.retain,
                _traceparent(named),
                read_signature(named),
            )
        )

    def on_connect(client: Client, _data: object, _flags: object, reason: ReasonCode, more: Properties | None) -> None:
        # paho takes the broker's Server Keep Alive; a longer one would find a dead connection later.
        client._keepalive = min(client._keepalive or KEEPALIVE, KEEPALIVE)  # noqa: SLF001 (no setter while connected)
        events.append(_connack(reason, more))

    def on_disconnect(
        _client: Client, _data: object, flags: DisconnectFlags, reason: ReasonCode, more: Properties | None
    ) -> None:
        # For every other end the return code of the loop has more detail.
        if flags.is_disconnect_packet_from_server:
            events.append(ServerDisconnect(reason.value, _reason_text(reason, more)))

    # With this set, paho writes only in the thread that runs the loop; else every publishing thread would write.
    client.on_socket_register_write = lambda _client, _data, _sock: None
    client.on_connect = on_connect
    client.on_subscribe = lambda _client, _data, _mid, reasons, more: events.append(
        Suback(tuple(_reason_text(reason, more) for reason in reasons if reason.is_failure))
    )
    client.on_publish = lambda _client, _data, mid, reason, more: events.append(
        Puback(mid, _reason_text(reason, more) if reason.is_failure else None)
    )
    client.on_message = on_message
    client.on_disconnect = on_disconnect


def _keep_faults(client: Client, faults: deque[str]) -> None:
    """Keep the latest error of the socket, such as a certificate that the broker requires: paho only logs it."""

    def on_log(_client: object, _data: object, level: int, text: str) -> None:
        if level == LogLevel.MQTT_LOG_ERR and (error := text.partition(" on socket: ")[2]):
            faults.append(error)

    client.on_log = on_log


def _traceparent(named: Sequence[tuple[str, str]]) -> str | None:
    """The user property of this name, if it is one."""
    text = dict(named).get(TRACEPARENT, "")
    return text if re.match(TRACEPARENT_PATTERN, text) else None


def _connack(reason: ReasonCode, more: Properties | None) -> Connack:
    return Connack(
        reason=reason.value,
        text=_reason_text(reason, more),
        largest_packet=getattr(more, "MaximumPacketSize", None),
        receive_maximum=getattr(more, "ReceiveMaximum", None),
        maximum_qos=getattr(more, "MaximumQoS", 2),
        stores=bool(getattr(more, "RetainAvailable", 1)),
    )


def _reason_text(reason: ReasonCode, more: Properties | None) -> str:
    """The name of a reason with its code, the broker's own sentence, and the server that it refers to."""
    text = f"{reason} (0x{reason.value:02X})"
    sentence, server = getattr(more, "ReasonString", None), getattr(more, "ServerReference", None)
    return text + (f": {sentence[:200]}" if sentence else "") + (f", it refers to {server[:200]}" if server else "")


def _properties(packet: int, **values: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
