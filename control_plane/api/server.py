"""The settings of uvicorn for REST: limits, no access log, and deadlines for the head of a request and for an answer.

Rule: uvicorn waits for ever for the end of a head and for a caller that does not read, where no ASGI application can
help; so the protocol class keeps these deadlines. `gates.WholeBody` keeps the deadline of the body.
"""

import asyncio
import fcntl
import signal
import socket
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.h11_impl import H11Protocol

from control_plane.api.auth import is_open
from control_plane.api.events.connection import Connection
from control_plane.api.gates import RECEIPT_DEADLINE
from control_plane.api.problems import Problem, respond
from control_plane.domain.reasons import ProblemCode
from control_plane.services.budget import network_of

MAX_HEAD: Final = 32 * 1024
MAX_CONNECTIONS: Final = 2_048
"""Of these, `services.events.streams.MAX_STREAMS` may be event streams."""

MAX_OF_PEER: Final = 128
"""Connections of one address."""

WRITE_DEADLINE: Final = 20.0
"""Seconds in which a caller must read `SLOWEST_READ` bytes of its answer, or all of it."""

SLOWEST_READ: Final = 16 * 1024
_RESERVE: Final = 32
"""Connections above each limit, for requests of `auth.OPEN`."""

_CROWDED: Final = Problem(503, ProblemCode.CROWDED, retry_after=1)
_KEEP_ALIVE: Final = 75
"""Seconds for which an idle connection is kept: longer than a proxy in front keeps it. A request that a proxy sends
while this end closes is answered 502. The shipped Caddy keeps 30 s, nginx and load balancers 60 s by default."""

_STOP: Final = 10
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class PromptProtocol(H11Protocol):
    """HTTP/1.1 with deadlines, and with limits on connections that leave room for a health check.

    A head that is not complete after `head_deadline` seconds is answered 408; the time counts from the start of the
    connection, or from the first byte after the previous answer. An answer of which the caller reads less than
    `SLOWEST_READ` bytes in `write_deadline` seconds ends the connection.

    Above `most`, of all callers, or `most_of_peer`, of one address, the connection that has waited longest without a
    request is closed. Where all have requests, the new one gets 503, except for the paths of `auth.OPEN`.
    """

    head_deadline: float = RECEIPT_DEADLINE
    write_deadline: float = WRITE_DEADLINE
    most: int = MAX_CONNECTIONS
    most_of_peer: int | None = MAX_OF_PEER
    crowded = False
    peer = ""
    waits_since = 0.0
    _alarm: asyncio.TimerHandle | None = None
    _write_alarm: asyncio.TimerHandle | None = None
    _connection: Connection | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer: a connection without any byte costs as much as one with a slow head."""
        super().connection_made(transport)
        # asyncio does so only for a listening socket that names its protocol. Head and body are two writes, and without
        # it the second one waits for the caller's delayed acknowledgement: 40 ms for each call on a kept connection.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # So each byte that the caller does not read calls `pause_writing`.
        transport.set_write_buffer_limits(high=0)
        self.peer = network_of(self.client[0] if self.client else "")
        self.waits_since = self.loop.time()
        self._application, self.app = self.app, self._unless_crowded
        self._arm()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Stop the timer once a head is complete."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._arm()
        else:
            self._disarm()

    def on_response_complete(self) -> None:
        """Note since when the connection waits."""
        self.waits_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The caller does not read all: start the timer of the answer."""
        super().pause_writing()
        self._expect_reads()

    def resume_writing(self) -> None:
        """All was read."""
        self._stop_expecting()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._disarm()
        self._stop_expecting()
        super().connection_lost(exc)

    @property
    def waits(self) -> bool:
        """Whether neither a request nor an answer is under way."""
        idle = getattr(self.cycle, "response_complete", True)
        return idle and not self.transport.is_closing() and not self.transport.get_write_buffer_size()

    def _arm(self) -> None:
        if self._alarm is None:
            self._alarm = self.loop.call_later(self.head_deadline, self._too_slow)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()

    def _expect_reads(self) -> None:
        self._write_alarm = self.loop.call_later(self.write_deadline, self._require_reads, self._unread())

    def _stop_expecting(self) -> None:
        if self._write_alarm is not None:
            self._write_alarm.cancel()
            self._write_alarm = None

    def _require_reads(self, unread: int) -> None:
        if unread - self._unread() < SLOWEST_READ:
            # `close` would wait until the caller has read the rest.
            self.transport.abort()
        else:
            self._expect_reads()

    def _unread(self) -> int:
        """The bytes that the caller has not received: in this process, and in the kernel's queue (tcp(7), SIOCOUTQ)."""
        queue = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return self.transport.get_write_buffer_size() + int.from_bytes(queue, sys.byteorder)

    def _write(self, data: bytes) -> int:
        self.transport.write(data)
        return self.transport.get_write_buffer_size()

    def _make_room(self) -> None:
        every = [one for one in self.connections if isinstance(one, PromptProtocol)]
        for crowd, most in (
            ([one for one in every if one.peer == self.peer], self.most_of_peer),
            (every, self.most),
        ):
            if most is None or len(crowd) <= most:
                continue
            waiting = [one for one in crowd if one is not self and one.waits]
            if waiting:
                min(waiting, key=lambda one: one.waits_since).transport.abort()
                return
            self.crowded = True
            if len(crowd) > most + _RESERVE:
                self.transport.abort()
                return

    def shutdown(self) -> None:
        """End what would last: the server waits for the answers under way."""
        super().shutdown()
        if self._connection is not None:
            self._connection.stop()

    async def _unless_crowded(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._application
        self._connection = Connection(abort=self.transport.abort, write=self._write)
        self._connection.offered_in(scope)
        if self.crowded and not is_open(scope):
            app = respond(_CROWDED, {"Connection": "close"})
        await app(scope, receive, send)


class ProxiedProtocol(PromptProtocol):
    """Behind a proxy every connection has the proxy's address, so only the limit of all holds."""

    most_of_peer = None


def server_config(app: ASGIApp, host: str, port: int, *, behind_proxy: bool = False) -> uvicorn.Config:
    """The configuration of `uvicorn.Server`; port 0 takes a free one."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        # Not uvloop, where it is installed (docs/decisions/0019).
        loop="asyncio",
        http=ProxiedProtocol if behind_proxy else PromptProtocol,
        ws="none",
        lifespan="on",
        # `gates.Observe` logs requests without query strings; uvicorn's other lines pass through the root formatter.
        access_log=False,
        log_config=None,
        server_header=False,
        # `gates.Observe` reads the header of a proxy, where the settings state that there is one.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_STOP,
        h11_max_incomplete_event_size=MAX_HEAD,
    )


class WatchedServer(uvicorn.Server):
    """A server that ends when the lifespan of its application ends; it checks ten times a second.

    The first SIGINT or SIGTERM stops it in order, the second one ends the process, in any state. A signal that the
    caller ignores (`nohup`, a background job of a shell) stays ignored.

    uvicorn alone would keep answering; a control plane without loops must end, so that a supervisor restarts
    it.
    """

    @property
    def deserted(self) -> bool:
        """Whether the application ended before the server was stopped."""
        lifespan = getattr(self, "lifespan", None)
        return isinstance(lifespan, LifespanOn) and (lifespan.error_occurred or lifespan.shutdown_failed)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals that are not ignored."""
        ignored = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_IGN]
        with super().capture_signals():
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the next signal has the system's own effect."""
        super().handle_exit(sig, frame)
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)

    async def on_tick(self, counter: int) -> bool:
        """Whether the server ends now."""
        return await super().on_tick(counter) or self.deserted
