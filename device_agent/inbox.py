"""The events that other threads send to the agent's loop, and the bounded queue that carries them.

Rule: other threads only put; the loop only takes. A full queue drops commands (the broker keeps them, because they are
not acknowledged) and never the event of an effect; there are no more of these than running effects.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from device_agent.after.duties import AfterDone
from device_agent.mqtt.session import AckToken
from device_agent.queries.selections import SelectionMissing, WalkEnded
from device_agent.uploads import Run
from device_agent.workers.part_io import IoEvent, SourceSession
from schemas.messages import Response
from schemas.signing.canonical import Signature

MAX_WAITING: Final = 1_024
MAX_UNLIMITED: Final = 64
"""Waiting events from which on a command of QoS 0, keys or a birth that is verified are dropped: no Receive Maximum
limits how many are sent, each may have 128 KiB, and in a full queue a command that the broker keeps would wait for the
next connection.
"""

MAX_BATCH: Final = 256
"""Events processed together, to be made durable by one fsync."""


class Connected(Struct, frozen=True):
    """The subscriptions are in place: commands arrive."""


class Disconnected(Struct, frozen=True):
    """The connection has ended."""

    text: str


class RetryPlanned(Struct, frozen=True):
    """The connection has ended or failed for the reason in `text`; the next one is tried in `seconds`."""

    text: str
    seconds: float


class CommandArrived(Struct, frozen=True):
    """A message on the command topic; `retained` if the broker had stored it before the subscription.

    `traceparent` is the trace that it belongs to; None for one that is not traced. `signature` is None for one that is
    not signed.
    """

    data: bytes
    token: AckToken
    retained: bool = False
    traceparent: str | None = None
    signature: Signature | None = None


class BirthArrived(Struct, frozen=True):
    """A control plane started. `data` is the message where it has to be verified."""

    data: bytes = b""
    signature: Signature | None = None


class KeysArrived(Struct, frozen=True):
    """The roots of trust and the list of keys, as they are published."""

    data: bytes


class EffectDone(Struct, frozen=True):
    """An effect of one upload has ended; `seconds`, `size` in bytes and `url` are set for a PUT.

    `sent` are the bytes that left, those of a repeated or failed PUT among them.
    """

    run: Run
    session: SourceSession
    event: IoEvent
    kind: str
    size: int = 0
    seconds: float = 0.0
    url: str = ""
    sent: int = 0


class QueryAnswered(Struct, frozen=True):
    """The response to a query about the device."""

    response: Response


class StatusAsked(Struct, frozen=True):
    """A person on this device requests the agent's state; `answer` takes the document, in the loop's thread."""

    answer: Callable[[object], None]


class ConsentDecided(Struct, frozen=True):
    """A person on this device has decided about uploads, in JSON; `answer` takes the result, in the loop's thread."""

    data: bytes
    answer: Callable[[object], None]


class StopRequested(Struct, frozen=True):
    """The agent must end."""


_QueryEvent = QueryAnswered | SelectionMissing | WalkEnded
_Message = CommandArrived | BirthArrived | KeysArrived
_NetworkEvent = Connected | Disconnected | RetryPlanned | _Message
LoopEvent = _NetworkEvent | EffectDone | AfterDone | _QueryEvent | StatusAsked | ConsentDecided | StopRequested


class EventQueue:
    """The queue in front of the loop."""

    def __init__(self) -> None:
        self._events: deque[LoopEvent] = deque()
        self._arrived = threading.Condition()
        self.refused = 0
        """Messages that were dropped."""

    def put(self, event: LoopEvent) -> None:
        """Append an event; a message is dropped when too many events wait."""
        with self._arrived:
            if isinstance(event, _Message) and len(self._events) >= _most_before(event):
                self.refused += 1
                return
            self._events.append(event)
            self._arrived.notify()

    def take(self, timeout: float | None) -> list[LoopEvent]:
        """The events that have arrived, oldest first; waits up to `timeout` seconds (None: no limit) for the first."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._events, timeout)
            return [self._events.popleft() for _ in range(min(len(self._events), MAX_BATCH))]


def _most_before(event: _Message) -> int:
    """The number of waiting events from which on this one is dropped."""
    limited = event.token.qos if isinstance(event, CommandArrived) else not event.data
    return MAX_WAITING if limited else MAX_UNLIMITED
