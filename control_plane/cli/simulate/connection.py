"""One MQTT connection to a broker: packets out, packets in.

Rule: the writes of one turn of the event loop are sent at once. A PUBLISH that comes in is
acknowledged after its listener has handled it.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, cast

from control_plane.cli.simulate import packets
from control_plane.cli.simulate.packets import (
    DISCONNECT,
    REFUSED,
    Connect,
    PacketReader,
    PacketType,
    Publish,
    TopicFilter,
    UserProperties,
)

LAST_PACKET_ID: Final = 65_535


class Listener(Protocol):
    """The callbacks of a connection. None of these may block."""

    def connected(self, connection: "MqttConnection") -> None:
        """The broker accepted the connection."""

    def received(self, message: Publish) -> None:
        """A PUBLISH came in."""

    def acknowledged(self, packet_id: int, reason: int) -> None:
        """The broker acknowledged a QoS 1 PUBLISH or a SUBSCRIBE; reasons from `REFUSED` on are failures."""

    def disconnected(self, connection: "MqttConnection", why: str) -> None:
        """The connection is gone, or was refused."""


class MqttConnection(asyncio.Protocol):
    """One TCP connection; asyncio sets TCP_NODELAY on it. `window` is the broker's Receive Maximum."""

    def __init__(self, connect: Connect, listener: Listener) -> None:
        self.window = packets.UNLIMITED
        self._connect = connect
        self._listener = listener
        self._frames = PacketReader()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._packet_id = 0
        self._why = "the broker closed the connection"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        # Not an isinstance check: uvloop's transports are not asyncio's by descent.
        self._transport = cast("asyncio.Transport", transport)
        self._write(self._connect.encode())

    def data_received(self, data: bytes) -> None:
        """Handle each packet that is complete."""
        try:
            for first, body in self._frames.feed(data):
                self._take(first, body)
        except (ValueError, IndexError) as error:
            self._end(f"the broker sent an invalid packet: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Report it to the listener."""
        self._transport = None
        self._unsent.clear()
        self._listener.disconnected(self, str(exc) if exc else self._why)

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry: int = 0,
        properties: UserProperties = (),
    ) -> int:
        """Send a message to a topic as `packets.text` encodes it; returns its packet id, 0 at QoS 0.

        Nothing happens once the connection is lost.
        """
        packet_id = self._next_id() if qos else 0
        self._write(
            packets.publish(topic, payload, packet_id=packet_id, retain=retain, expiry=expiry, properties=properties)
        )
        return packet_id

    def subscribe(self, filters: Sequence[TopicFilter]) -> int:
        """Subscribe to these topics; returns the packet id. A filter that is refused fails the whole packet."""
        packet_id = self._next_id()
        self._write(packets.subscribe(packet_id, filters))
        return packet_id

    def close(self) -> None:
        """Send DISCONNECT: the broker then discards the will."""
        self._write(DISCONNECT)
        self._end("closed")

    def abort(self, why: str) -> None:
        """Abort without DISCONNECT: the broker then publishes the will."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def _take(self, first: int, body: bytes) -> None:
        match first >> 4:
            case PacketType.PUBLISH:
                message = packets.read_publish(first, body)
                self._listener.received(message)
                if message.packet_id:
                    self._write(packets.puback(message.packet_id))
            case PacketType.PUBACK:
                self._listener.acknowledged(*packets.read_acknowledgement(body))
            case PacketType.SUBACK:
                packet_id, codes = packets.read_grants(body)
                self._listener.acknowledged(packet_id, max(codes))
            case PacketType.CONNACK if body[1] < REFUSED:
                self.window = packets.read_receive_maximum(body)
                self._listener.connected(self)
            case PacketType.CONNACK:
                self._end(f"the broker refused the connection: reason 0x{body[1]:02x}")
            case PacketType.DISCONNECT:
                self._end(f"the broker disconnected: reason 0x{body[0] if body else 0:02x}")
            case _:
                pass

    def _next_id(self) -> int:
        """An id is reused only after 65,535 messages, far beyond any window."""
        self._packet_id = self._packet_id % LAST_PACKET_ID + 1
        return self._packet_id

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        if self._transport is not None and self._unsent:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _end(self, why: str) -> None:
        self._why = why
        self._flush()
        if self._transport is not None:
            self._transport.close()
