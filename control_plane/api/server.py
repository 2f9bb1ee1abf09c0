"""The settings of uvicorn for REST: limits, no access log, and a deadline for the head of a request.

Rule: uvicorn waits for ever for the end of a head, before any ASGI application runs; so the protocol class keeps this
deadline. `gates.WholeBody` keeps the deadline of the body.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.h11_impl import H11Protocol

from control_plane.api.gates import RECEIPT_DEADLINE

MAX_HEAD: Final = 32 * 1024
MAX_CONNECTIONS: Final = 512
_KEEP_ALIVE: Final = 75
"""Seconds for which an idle connection is kept: longer than a proxy in front keeps it. A request that a proxy sends
while this end closes is answered 502. The shipped Caddy keeps 30 s, nginx and load balancers 60 s by default."""

_STOP: Final = 10
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that answers 408 and closes when a head is not complete after `head_deadline` seconds.

    The time counts from the start of the connection, or from the first byte after the previous answer.
    """

    head_deadline: float = RECEIPT_DEADLINE
    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer: a connection without any byte costs as much as one with a slow head."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Stop the timer once a head is complete."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._arm()
        else:
            self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._disarm()
        super().connection_lost(exc)

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


def server_config(app: ASGIApp, host: str, port: int) -> uvicorn.Config:
    """The configuration of `uvicorn.Server`; port 0 takes a free one."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        # Not uvloop, where it is installed (docs/decisions/0019).
        loop="asyncio",
        http=PromptProtocol,
        ws="none",
        lifespan="on",
        # `gates.Observe` logs requests without query strings; uvicorn's other lines pass through the root formatter.
        access_log=False,
        log_config=None,
        server_header=False,
        # Nothing depends on the caller's address, so no proxy is trusted to report it.
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
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
