"""A broker of bad manners: a proxy in front of a real one that announces limits, keeps to them, and breaks off.

Rule: one `Manners` is one kind of broker. What it announces it enforces as the standard has it: a client that goes over
a limit gets the DISCONNECT of MQTT 5.0 section 4.13, and `violations` counts it.

    with BadBroker(mosquitto.address.port, MANNERS["small packets"]) as broker:
        ...broker.url...
"""

import asyncio
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from tests.support.loop_thread import LoopThread
from tests.support.mqtt_packets import (
    Kind,
    Property,
    Value,
    decode,
    decode_properties,
    encode_properties,
    encode_text,
    frame,
    take_frame,
)

LOOPBACK: Final = "127.0.0.1"
BLOCK: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """What the broker does otherwise than the real one behind it.

    `at_plane` is what readiness of a control plane behind it names, and `at_agent` what the log of an agent does; empty
    where it works.
    """

    at_plane: str = ""
    at_agent: str = ""

    announces: Mapping[int, Value] = field(default_factory=dict)
    """Properties of its CONNACK; the limits among them are enforced."""

    refuses: int | None = None
    """Reason code of every CONNACK."""

    ends: int | None = None
    """Reason code of a DISCONNECT right after SUBACK; -1 closes without one."""

    reference: str | None = None
    """Server Reference of that DISCONNECT, or of the refusing CONNACK."""

    deaf: bool = False
    """After SUBACK nothing is answered any more, PINGREQ not either; the connection stays open."""

    deaf_at_once: bool = False
    """Not even the CONNECT is answered."""

    keeps_pubacks: bool = False
    resets_at_publish: bool = False
    """A PUBLISH of QoS 1 resets the connection."""

    retained_command: tuple[str, bytes] | None = None
    """Topic and payload of a retained PUBLISH of QoS 0 right after SUBACK."""


MANNERS: Final[Mapping[str, Manners]] = {
    "small packets": Manners(announces={Property.MAXIMUM_PACKET_SIZE: 4096}),
    "one message in flight": Manners(announces={Property.RECEIVE_MAXIMUM: 1}),
    "QoS 1 at most": Manners(announces={Property.MAXIMUM_QOS: 1}),
    "QoS 0 only": Manners(announces={Property.MAXIMUM_QOS: 0}, at_plane="QoS 0 only", at_agent="offers no QoS 1"),
    "no retained messages": Manners(announces={Property.RETAIN_AVAILABLE: 0}, at_agent="offers no retained messages"),
    "no wildcards": Manners(announces={Property.WILDCARD_AVAILABLE: 0}, at_plane="Wildcard subscription not supported"),
    "no shared subscriptions": Manners(announces={Property.SHARED_AVAILABLE: 0}),
    "keep alive of 5 s": Manners(announces={Property.SERVER_KEEP_ALIVE: 5}),
    "no keep alive": Manners(announces={Property.SERVER_KEEP_ALIVE: 0}),
    "ends after SUBACK": Manners(ends=-1, at_plane="the connection was lost", at_agent="The connection was lost"),
    "receive maximum exceeded": Manners(ends=0x93, at_plane="(0x93)", at_agent="(0x93)"),
    "packet too large": Manners(ends=0x95, at_plane="(0x95)", at_agent="(0x95)"),
    "quota exceeded": Manners(ends=0x97, at_plane="(0x97)", at_agent="(0x97)"),
    "use another server": Manners(
        ends=0x9C,
        reference="other.example:1883",
        at_plane="(0x9C), it refers to other.example:1883",
        at_agent="(0x9C), it refers to other.example:1883",
    ),
    "server moved": Manners(
        ends=0x9D,
        reference="new.example:1883",
        at_plane="(0x9D), it refers to new.example:1883",
        at_agent="(0x9D), it refers to new.example:1883",
    ),
    "deaf": Manners(
        deaf=True, at_plane="did not take a message for control-plane", at_agent="the broker does not answer"
    ),
    "deaf at once": Manners(
        deaf_at_once=True, at_plane="no answer within the time limit", at_agent="the broker does not answer"
    ),
    "wrong password": Manners(
        refuses=0x86, at_plane="Bad user name or password (0x86)", at_agent="Bad user name or password (0x86)"
    ),
    "not authorized": Manners(refuses=0x87, at_plane="Not authorized (0x87)", at_agent="Not authorized (0x87)"),
    "server busy": Manners(refuses=0x89, at_plane="Server busy (0x89)", at_agent="Server busy (0x89)"),
    "refers to another server": Manners(
        refuses=0x9C,
        reference="other.example:1883",
        at_plane="(0x9C), it refers to other.example:1883",
        at_agent="(0x9C), it refers to other.example:1883",
    ),
    "keeps PUBACKs": Manners(keeps_pubacks=True, at_plane="did not take a message for control-plane"),
    "resets at a publish": Manners(
        resets_at_publish=True, at_plane="the connection was lost", at_agent="The connection was lost"
    ),
}
"""Every kind by a name."""


@dataclass(slots=True)
class _Link:
    """One client: both ends, and what the broker knows of it."""

    down: asyncio.StreamWriter
    up: asyncio.StreamWriter
    packet_ids: set[int] = field(default_factory=set)
    """PUBLISHes of QoS 1 that wait for a PUBACK."""

    heard_at: float = field(default_factory=time.monotonic)
    subscribed: bool = False
    over: bool = False


class BadBroker:
    """Listens on a free port of loopback; the real broker listens on the port `target`."""

    def __init__(self, target: int, manners: Manners) -> None:
        self.manners = manners
        self.connects: list[float] = []
        """Instants (monotonic) of the CONNECTs."""

        self.violations: list[int] = []
        """Reason codes of the DISCONNECTs that clients earned."""

        self.published: list[str] = []
        """Topics of the PUBLISHes of clients that were passed on."""

        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._loop = LoopThread("bad-broker")
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._loop.start()
        self._server = self._loop.call(asyncio.start_server(self._join, LOOPBACK, 0, limit=BLOCK))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call(self._close())
        self._loop.stop()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The value for `MQTT_URL`."""
        return f"mqtt://{LOOPBACK}:{self.port}"

    # In the loop.

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._closing.set()
        # A connection that was just accepted has no task yet: that takes a few turns of the loop, and no fixed time.
        for _ in range(20):
            await asyncio.sleep(0)
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        above, up = await asyncio.open_connection(LOOPBACK, self._target, limit=BLOCK)
        link = _Link(writer, up)
        carrying: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._rise(reader, link)),
            asyncio.create_task(self._fall(above, link)),
        }
        carrying |= {asyncio.create_task(self._watch(link)), asyncio.create_task(self._closing.wait())}
        try:
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in carrying:
                one.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)
            for end in (link.down, link.up):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()
            self._tasks.discard(task)

    async def _rise(self, source: asyncio.StreamReader, link: _Link) -> None:
        """Packets of the client, until its end."""
        buffer = b""
        while data := await source.read(BLOCK):
            buffer += data
            while (found := take_frame(buffer)) is not None:
                size = len(buffer) - len(found[2])
                packet, buffer = buffer[:size], found[2]
                link.heard_at = time.monotonic()
                if self._takes(link, found[0], found[1], size):
                    link.up.write(packet)
                if link.over:
                    await link.down.drain()
                    return
            await link.up.drain()

    async def _fall(self, source: asyncio.StreamReader, link: _Link) -> None:
        """Packets of the real broker, until its end."""
        buffer = b""
        while data := await source.read(BLOCK):
            buffer += data
            while (found := take_frame(buffer)) is not None:
                packet, buffer = buffer[: len(buffer) - len(found[2])], found[2]
                link.down.write(self._answer(link, Kind(found[0] >> 4), found[1], packet))
            await link.down.drain()
            if link.over:
                return

    async def _watch(self, link: _Link) -> None:
        """End a client that is silent for 1.5 times the keep alive that was announced (3.1.2.10)."""
        keepalive = self.manners.announces.get(Property.SERVER_KEEP_ALIVE)
        while True:
            await asyncio.sleep(0.1)
            if isinstance(keepalive, int) and keepalive and time.monotonic() > link.heard_at + 1.5 * keepalive:
                self._end(link, 0x8D)
                await link.down.drain()
                return

    def _takes(self, link: _Link, first: int, body: bytes, size: int) -> bool:
        """Whether a client's packet goes on to the real broker."""
        kind, manners, announces = Kind(first >> 4), self.manners, self.manners.announces
        if kind is Kind.CONNECT:
            self.connects.append(time.monotonic())
            if manners.refuses is not None:
                properties: dict[int, Value] = (
                    {Property.SERVER_REFERENCE: manners.reference} if manners.reference else {}
                )
                link.down.write(frame(Kind.CONNACK, bytes((0, manners.refuses)) + encode_properties(properties)))
                link.over = True
            return manners.refuses is None and not manners.deaf_at_once
        if manners.deaf and link.subscribed:
            return False
        largest = announces.get(Property.MAXIMUM_PACKET_SIZE)
        if isinstance(largest, int) and size > largest:
            return self._violated(link, 0x95)
        if kind is Kind.SUBSCRIBE and announces.get(Property.WILDCARD_AVAILABLE) == 0 and b"+" in body:
            count = body.count(b"/+/")
            link.down.write(frame(Kind.SUBACK, body[:2] + encode_properties({}) + bytes((0xA2,)) * count))
            return False
        if kind is Kind.PUBLISH:
            return self._takes_publish(link, first, body)
        return True

    def _takes_publish(self, link: _Link, first: int, body: bytes) -> bool:
        announces, packet = self.manners.announces, decode(first, body)
        if packet.qos and self.manners.resets_at_publish:
            connection = link.down.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.down.transport.abort()
            link.over = True
            return False
        if packet.qos > int(str(announces.get(Property.MAXIMUM_QOS, 2))):
            return self._violated(link, 0x9B)
        if packet.retain and announces.get(Property.RETAIN_AVAILABLE) == 0:
            return self._violated(link, 0x9A)
        if packet.qos:
            link.packet_ids.add(packet.packet_id)
        if len(link.packet_ids) > int(str(announces.get(Property.RECEIVE_MAXIMUM, 65_535))):
            return self._violated(link, 0x93)
        self.published.append(packet.topic)
        return True

    def _violated(self, link: _Link, reason: int) -> bool:
        self.violations.append(reason)
        self._end(link, reason)
        return False

    def _end(self, link: _Link, reason: int) -> None:
        if reason >= 0:
            reference = self.manners.reference
            properties: dict[int, Value] = {Property.SERVER_REFERENCE: reference} if reference else {}
            link.down.write(frame(Kind.DISCONNECT, bytes((reason,)) + encode_properties(properties)))
        link.over = True

    def _answer(self, link: _Link, kind: Kind, body: bytes, packet: bytes) -> bytes:
        """What the client gets in place of a packet of the real broker."""
        manners = self.manners
        if link.over or (manners.deaf and link.subscribed):
            return b""
        if kind is Kind.CONNACK:
            properties = {**decode_properties(body, 2)[0], **manners.announces}
            return frame(Kind.CONNACK, body[:2] + encode_properties(properties))
        if kind is Kind.PUBACK:
            if manners.keeps_pubacks:
                return b""
            link.packet_ids.discard(int.from_bytes(body[:2]))
        if kind is Kind.SUBACK:
            link.subscribed = True
            if manners.ends is not None:
                link.down.write(packet)
                self._end(link, manners.ends)
                return b""
            if manners.retained_command is not None:
                topic, payload = manners.retained_command
                return packet + frame(Kind.PUBLISH, encode_text(topic) + encode_properties({}) + payload, flags=1)
        return packet


__all__ = ["MANNERS", "BadBroker", "Manners"]
