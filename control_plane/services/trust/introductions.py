"""First presences of enrolled devices, and presences of other keys than the pinned one.

Rule: a key is pinned durably before anything that it signed has an effect. What the client sends meanwhile waits.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from control_plane.services.errors import ServiceError
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Delivered
from schemas.messages import Presence
from schemas.topics import Channel

MAX_WAITING: Final = 10_000
"""Clients whose introduction waits; each has one at most."""

MAX_HELD: Final = 64
"""Messages of one client that wait for the end of its introduction."""

MAX_HELD_BYTES: Final = 32 * 1024 * 1024
"""Bytes of what is held for all clients together; what is dropped is sent again."""

Introduce = Callable[[Presence], Awaitable[bool]]
"""Pins the key of a presence, or raises the alarm; whether it is the pinned key now (`DeviceService`)."""


@dataclass(slots=True)
class _Waiting:
    presence: Presence
    message: Delivered
    held: list[Delivered] = field(default_factory=list)


class Introductions:
    """Introduces one client after another; `receive` gets each message again once its client's key is pinned."""

    def __init__(self, introduce: Introduce, log: EventLog, receive: Callable[[Delivered], None]) -> None:
        self._introduce = introduce
        self._log = log
        self._receive = receive
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._filled = asyncio.Event()
        self._held_bytes = 0

    def offer(self, presence: Presence, message: Delivered) -> None:
        """Take a presence that its own key signed. Never waits: one that is dropped comes again with the next beat."""
        known = self._waiting.get(presence.client_id)
        if known is not None:
            self.hold(presence.client_id, message)
        elif len(self._waiting) >= MAX_WAITING:
            self._log("presence.shed", {"client_id": presence.client_id})
        else:
            self._waiting[presence.client_id] = _Waiting(presence, message)
            self._filled.set()

    def hold(self, client_id: str, message: Delivered) -> bool:
        """Keep a message of a client that is being introduced; False for any other client."""
        waiting = self._waiting.get(client_id)
        if waiting is None:
            return False
        if len(waiting.held) < MAX_HELD and self._held_bytes + len(message.payload) <= MAX_HELD_BYTES:
            waiting.held.append(message)
            self._held_bytes += len(message.payload)
        return True

    async def run(self) -> None:
        """Introduce clients until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                await self._next()

    async def _next(self) -> None:
        client_id, waiting = next(iter(self._waiting.items()))
        pinned = False
        try:
            pinned = await self._introduce(waiting.presence)
        except ServiceError as error:
            self._log("presence.failed", {"messages": 1, "error": str(error)})
        except Exception as error:  # noqa: BLE001 - a fault in one presence must not end those of others
            facts = {"client_id": client_id, "channel": Channel.PRESENCE, "error": repr(error)[:500]}
            self._log("message.fault", facts)
        finally:
            del self._waiting[client_id]
            self._held_bytes -= sum(len(message.payload) for message in waiting.held)
        if not pinned:
            self._log("message.unverified", {"client_id": client_id, "channel": "presence", "reason": "other_key"})
            return
        for message in (waiting.message, *waiting.held):
            self._receive(message)
