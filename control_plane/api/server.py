"""How uvicorn serves REST: bounded, quiet about itself, and with a deadline for a request's head.

Rule: uvicorn waits for ever for the end of a request's head, and no ASGI application hears of it; so the deadline is
kept where bytes arrive. The body's deadline is `limits.WholeBody`'s.
"""

import asyncio
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.h11_impl import H11Protocol

from control_plane.api.limits import RECEIPT_DEADLINE

MAX_HEAD: Final = 32 * 1024
MAX_CONNECTIONS: Final = 512
_KEEP_ALIVE: Final = 15
_STOP: Final = 10
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that gives a caller `head_deadline` seconds to finish a request's head, then answers 408 and closes.

    The time counts from the connection's begin, or from the first byte after the answer before.
    """

    head_deadline: float = RECEIPT_DEADLINE
    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a connection that says nothing costs as much as one that says it slowly."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Stop the clock once a head is whole."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._arm()
        else:
            self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
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
    """What `uvicorn.Server` needs; `port` 0 takes a free one."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=PromptProtocol,
        ws="none",
        lifespan="on",
        # Our own lines say what was asked, without query strings; uvicorn's others go through our formatter.
        access_log=False,
        log_config=None,
        server_header=False,
        # Nothing here depends on the caller's address, so nobody is trusted to tell it.
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_STOP,
        h11_max_incomplete_event_size=MAX_HEAD,
    )


class WatchedServer(uvicorn.Server):
    """A server that ends when the lifespan of its application ends; it checks ten times a second.

    uvicorn alone keeps answering then; a control plane whose loops have stopped must end, so that a supervisor starts
    another.
    """

    @property
    def deserted(self) -> bool:
        """Whether the application ended without being asked to."""
        lifespan = getattr(self, "lifespan", None)
        return isinstance(lifespan, LifespanOn) and (lifespan.error_occurred or lifespan.shutdown_failed)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now."""
        return await super().on_tick(counter) or self.deserted
