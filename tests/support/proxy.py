"""A TCP proxy on loopback that goes wrong on command: for the legs between an agent and its broker, and its store.

Rule: it knows nothing of what it carries. What it does wrong it does to whole connections and to bytes, as networks do.

    with Proxy(broker.address.port) as proxy:
        proxy.cut()
"""

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from broker.server import free_port
from tests.support.loop_thread import LoopThread

LOOPBACK: Final = "127.0.0.1"
BLOCK: Final = 64 * 1024


class Proxy:
    """Forwards connections to a port of loopback; its own port stays the same while it refuses and accepts again."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.carried = 0
        """Bytes that went up to the target, over all connections."""
        self._target = target
        self._links: set[_Link] = set()
        self._rate: float | None = None
        self._reset_at: list[int] = []
        self._stall_at: int | None = None
        self._loop = LoopThread("proxy")
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._loop.start()
        self._flowing.set()
        self.accept()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call(self._close())
        self._loop.stop()

    @property
    def host_port(self) -> str:
        """Where it listens."""
        return f"{LOOPBACK}:{self.port}"

    def cut(self) -> int:
        """Reset every connection; how many there were. New ones are welcome."""
        return self._loop.call(self._cut())

    def refuse(self) -> None:
        """Reset every connection and take no new one until `accept`."""
        self._loop.call(self._refuse())

    def accept(self) -> None:
        """Take connections; does nothing when it does."""
        self._loop.call(self._accept())

    def stall(self) -> None:
        """Carry nothing, without an error, until `flow`: a cable that was pulled out."""
        self._loop.soon(self._flowing.clear)

    def stall_after(self, size: int) -> None:
        """Stall as soon as that many more bytes have come up; what comes after them waits for `flow`."""
        self._stall_at = self.carried + size

    @property
    def stalled(self) -> bool:
        """Whether it carries nothing at the moment."""
        return not self._flowing.is_set()

    def flow(self) -> None:
        """Carry what waits, and everything after it."""
        self._stall_at = None
        self._loop.soon(self._flowing.set)

    def throttle(self, bytes_per_second: float | None) -> None:
        """Carry so many bytes per second, each way of each connection; None for no limit."""
        self._rate = bytes_per_second

    def reset_after(self, *sizes: int) -> None:
        """Reset, once for each of `sizes`, a connection that has carried so many bytes up."""
        self._reset_at += sizes

    # In the loop.

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._joined, LOOPBACK, self.port, limit=BLOCK)

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self._cut()

    async def _close(self) -> None:
        self._flowing.set()
        carrying = [link.task for link in self._links]
        await self._refuse()
        await asyncio.gather(*carrying)

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link([writer], asyncio.current_task())
        self._links.add(link)
        try:
            above, upward = await asyncio.open_connection(LOOPBACK, self._target, limit=BLOCK)
            link.ends.append(upward)
            if link.over:
                link.reset()
            await asyncio.gather(self._carry(reader, upward, link, up=True), self._carry(above, writer, link, up=False))
        except OSError:
            link.reset()
        finally:
            await link.close()
            self._links.discard(link)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: "_Link", *, up: bool
    ) -> None:
        """One direction, until it ends; then close the other end."""
        while block := await source.read(self._block()):
            if up and self._stall_at is not None and self.carried + len(block) > self._stall_at:
                self._stall_at = None
                self._flowing.clear()
            await self._flowing.wait()
            if up:
                self.carried += len(block)
                link.carried += len(block)
                if self._is_to_be_reset(link):
                    link.reset()
                    return
            sink.write(block)
            await sink.drain()
            if self._rate is not None:
                await asyncio.sleep(len(block) / self._rate)
        await self._flowing.wait()
        with suppress(OSError):
            sink.write_eof()

    def _block(self) -> int:
        """Slow connections are served in small pieces, so that they are slow and not fitful."""
        return BLOCK if self._rate is None else max(1, min(BLOCK, int(self._rate / 20)))

    def _is_to_be_reset(self, link: "_Link") -> bool:
        for size in self._reset_at:
            if link.carried >= size:
                self._reset_at.remove(size)
                return True
        return False


class _Link:
    """One connection and its continuation; links are compared by identity."""

    def __init__(self, ends: list[asyncio.StreamWriter], task: "asyncio.Task[None] | None") -> None:
        assert task is not None
        self.task = task
        self.ends = ends
        self.carried = 0
        self.over = False

    def reset(self) -> None:
        """Abort both ends; SO_LINGER of zero makes close(2) send RST (socket(7))."""
        self.over = True
        for end in self.ends:
            connection = end.get_extra_info("socket")
            # The transport may have been closed by the other side meanwhile.
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()

    async def close(self) -> None:
        """Give the descriptors back."""
        for end in self.ends:
            end.close()
            with suppress(OSError):
                await end.wait_closed()
