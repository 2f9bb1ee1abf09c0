"""What reaches the agent's loop from other threads, and the bounded queue it comes through.

Rule: other threads only put; the loop only takes. A full mailbox refuses commands (the broker keeps them, for they are
not acknowledged) and never what a job reports, of which there are no more than jobs.
"""

import threading
from collections import deque
from typing import Final

from msgspec import Struct

from device_agent.mqtt.connection import AckToken
from device_agent.uploads import Run
from device_agent.workers.part_io import IoEvent, SourceSession
from schemas.messages import Response

MAX_WAITING: Final = 1_024
MAX_BATCH: Final = 256
"""Events worked off together, to be made durable by one fsync."""


class Connected(Struct, frozen=True):
    """Commands are heard."""


class Disconnected(Struct, frozen=True):
    """They are not any more."""

    text: str


class CommandArrived(Struct, frozen=True):
    """A message on our command topic."""

    data: bytes
    token: AckToken


class BirthArrived(Struct, frozen=True):
    """A control plane started."""


class EffectDone(Struct, frozen=True):
    """A job of one upload has ended; `seconds`, `size` and `url` are set where it sent a part."""

    run: Run
    session: SourceSession
    event: IoEvent
    kind: str
    size: int = 0
    seconds: float = 0.0
    url: str = ""


class QueryAnswered(Struct, frozen=True):
    """A question about the device has its answer."""

    response: Response


class StopRequested(Struct, frozen=True):
    """Somebody wants the agent to end."""


LoopEvent = Connected | Disconnected | CommandArrived | BirthArrived | EffectDone | QueryAnswered | StopRequested


class EventQueue:
    """The queue in front of the loop."""

    def __init__(self) -> None:
        self._mail: deque[LoopEvent] = deque()
        self._arrived = threading.Condition()
        self.refused = 0

    def put(self, mail: LoopEvent) -> None:
        """Hand something to the loop; a command or a birth is dropped when too much waits."""
        with self._arrived:
            if len(self._mail) >= MAX_WAITING and isinstance(mail, CommandArrived | BirthArrived):
                self.refused += 1
                return
            self._mail.append(mail)
            self._arrived.notify()

    def take(self, timeout: float | None) -> list[LoopEvent]:
        """What has arrived, oldest first; waits up to `timeout` seconds (None: for ever) for the first."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._mail, timeout)
            return [self._mail.popleft() for _ in range(min(len(self._mail), MAX_BATCH))]
