"""The tap: the agent connects to it, and it passes every packet on to the broker and back.

Rule: it changes no packet. It may keep acknowledgements back, cut a connection, and refuse new ones for a while.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Final

from control_plane.cli.conformance.bench import wire
from control_plane.cli.conformance.bench.transcript import (
    Acknowledged,
    Connected,
    DeliveredToAgent,
    Left,
    Sent,
    Subscribed,
    Transcript,
)
from control_plane.cli.simulate.packets import PacketReader, PacketType, frame
from schemas.broker_url import BrokerUrl

_CHUNK: Final = 65_536


class Tap:
    """Listens for the agent. `keeps_acknowledgements` drops its PUBACKs; `refuses` closes new connections at once."""

    def __init__(self, broker: BrokerUrl, transcript: Transcript) -> None:
        self.port = 0
        self.keeps_acknowledgements = False
        self.refuses = False
        self._broker = broker
        self._transcript = transcript
        self._count = 0
        self._open: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one."""
        self._server = await asyncio.start_server(self._accept, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection, and wait for the ends."""
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    def cut(self) -> None:
        """Close the agent's connections as a network does that fails: neither side gets a DISCONNECT."""
        for writers in list(self._open.values()):
            for writer in writers:
                writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio reports the cancellation of a task that it made for a connection as an error.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.close()
            return
        broker = self._broker
        secure = ssl.create_default_context() if broker.secure else None
        try:
            up_reader, up_writer = await asyncio.open_connection(broker.host, broker.port, ssl=secure)
        except OSError:
            writer.close()
            return
        self._count += 1
        number = self._count
        self._open[number] = (writer, up_writer)
        reasons: list[int] = []
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._up(number, reader, up_writer, reasons))
                down = group.create_task(self._down(number, up_reader, writer))
                await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
                for one in (writer, up_writer):
                    one.close()
        except* (OSError, ValueError, IndexError):
            pass
        finally:
            self._open.pop(number, None)
            for one in (writer, up_writer):
                one.transport.abort()
            self._transcript.add(Left(self._now(), number, reasons[0] if reasons else None))

    async def _up(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reasons: list[int]
    ) -> None:
        packets = PacketReader()
        while data := await _read(reader):
            for first, body in packets.feed(data):
                self._note_sent(number, first, body, reasons)
                if not (first >> 4 == PacketType.PUBACK and self.keeps_acknowledgements):
                    writer.write(frame(first, body))
            await writer.drain()

    async def _down(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packets = PacketReader()
        while data := await _read(reader):
            for first, body in packets.feed(data):
                if first >> 4 == PacketType.PUBLISH:
                    self._transcript.add(DeliveredToAgent(self._now(), number, wire.read_publish(first, body)))
                writer.write(frame(first, body))
            await writer.drain()

    def _note_sent(self, number: int, first: int, body: bytes, reasons: list[int]) -> None:
        now = self._now()
        match first >> 4:
            case PacketType.CONNECT:
                self._transcript.add(Connected(now, number, wire.read_connect(body)))
            case PacketType.SUBSCRIBE:
                self._transcript.add(Subscribed(now, number, wire.read_subscribe(body)))
            case PacketType.PUBLISH:
                self._transcript.add(Sent(now, number, wire.read_publish(first, body)))
            case PacketType.PUBACK:
                packet_id, reason = int.from_bytes(body[:2]), wire.read_reason(body, 2)
                self._transcript.add(Acknowledged(now, number, packet_id, reason))
            case PacketType.DISCONNECT:
                reasons.append(wire.read_reason(body))
            case _:
                pass

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """What came in; empty at the end of the stream, however it ended."""
    with suppress(OSError):
        return await reader.read(_CHUNK)
    return b""
