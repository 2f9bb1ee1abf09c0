"""One connection to a broker: packets out, packets in.

Rule: what is written while the event loop handles one thing leaves in one send. A PUBLISH that comes in is
acknowledged after its listener took it.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, cast

from control_plane.cli.simulate import packets
from control_plane.cli.simulate.packets import DISCONNECT, REFUSED, Connect, Filter, Frames, Kind, Publish

LAST_PACKET_ID: Final = 65_535


class Listener(Protocol):
    """Who is told what happens on a wire. None of these may wait."""

    def connected(self, wire: "Wire") -> None:
        """The broker took the connection."""

    def heard(self, message: Publish) -> None:
        """A message came in."""

    def acknowledged(self, packet_id: int, reason: int) -> None:
        """The broker answered a QoS 1 PUBLISH or a SUBSCRIBE; reasons from `REFUSED` on are failures."""

    def disconnected(self, wire: "Wire", why: str) -> None:
        """The connection is gone, or was refused."""


class Wire(asyncio.Protocol):
    """One TCP connection; asyncio sets TCP_NODELAY on it. `window` is the broker's Receive Maximum."""

    def __init__(self, connect: Connect, listener: Listener) -> None:
        self.window = packets.UNLIMITED
        self._connect = connect
        self._listener = listener
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._packet_id = 0
        self._why = "the broker closed the connection"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say CONNECT."""
        # Not an isinstance check: uvloop's transports are not asyncio's by descent.
        self._transport = cast("asyncio.Transport", transport)
        self._write(self._connect.encode())

    def data_received(self, data: bytes) -> None:
        """Understand what came."""
        try:
            for first, body in self._frames.feed(data):
                self._take(first, body)
        except (ValueError, IndexError) as error:
            self._end(f"the broker's words make no sense: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener."""
        self._transport = None
        self._unsent.clear()
        self._listener.disconnected(self, str(exc) if exc else self._why)

    def publish(self, topic: bytes, payload: bytes, *, qos: int = 1, retain: bool = False, expiry: int = 0) -> int:
        """Send a message to a topic as `packets.text` encodes it; returns its packet id, 0 at QoS 0.

        Nothing happens on a wire that is gone.
        """
        packet_id = self._next_id() if qos else 0
        self._write(packets.publish(topic, payload, packet_id=packet_id, retain=retain, expiry=expiry))
        return packet_id

    def subscribe(self, filters: Sequence[Filter]) -> int:
        """Ask for these topics; returns the packet id. A filter that is refused fails the whole."""
        packet_id = self._next_id()
        self._write(packets.subscribe(packet_id, filters))
        return packet_id

    def close(self) -> None:
        """Say DISCONNECT: the broker then forgets the will."""
        self._write(DISCONNECT)
        self._end("closed")

    def cut(self, why: str) -> None:
        """Vanish without a word: the broker then publishes the will."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def _take(self, first: int, body: bytes) -> None:
        match first >> 4:
            case Kind.PUBLISH:
                message = packets.read_publish(first, body)
                self._listener.heard(message)
                if message.packet_id:
                    self._write(packets.puback(message.packet_id))
            case Kind.PUBACK:
                self._listener.acknowledged(*packets.read_acknowledgement(body))
            case Kind.SUBACK:
                packet_id, codes = packets.read_grants(body)
                self._listener.acknowledged(packet_id, max(codes))
            case Kind.CONNACK if body[1] < REFUSED:
                self.window = packets.read_receive_maximum(body)
                self._listener.connected(self)
            case Kind.CONNACK:
                self._end(f"the broker refused the connection: reason 0x{body[1]:02x}")
            case Kind.DISCONNECT:
                self._end(f"the broker hung up: reason 0x{body[0] if body else 0:02x}")
            case _:
                pass

    def _next_id(self) -> int:
        """Ids in use come round again only after 65,535 messages, far beyond any window."""
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
