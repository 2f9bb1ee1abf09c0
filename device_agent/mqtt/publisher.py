"""Every message that the agent publishes: presence, hello, responses, status.

Rule: used by the agent's loop only. Messages that the network does not accept are dropped with the connection, and
derived again from the state after the next one.
"""

import logging
import random
import uuid
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from device_agent.mqtt.presence import BEAT_EVERY, PresenceBuilder
from device_agent.mqtt.status import StatusReporter
from device_agent.transfer.model import Transfer
from device_agent.transfer.responses import hello_pages
from device_agent.uploads import Run
from schemas.codec import encode
from schemas.errors import SchemaError
from schemas.messages import Nothing, Response, ResponsePayload, UploadReport
from schemas.topics import Channel
from schemas.values import PRESENCE_EXPIRY, ErrorCode, ResponseStatus

MAX_WAITING: Final = 8_192
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
HELLO_JITTER: Final = 30.0
BIRTH_EVERY: Final = 60.0
"""Seconds between two hellos for births: anyone who may publish one must not make a fleet publish without an end."""

_UNSENT_PAUSE: Final = 0.2

log = logging.getLogger(__name__)


class Outbound(Struct, frozen=True):
    """One message to publish; `expiry` in seconds, `traceparent` of the trace that it belongs to."""

    channel: Channel
    data: bytes
    expiry: int | None = None
    traceparent: str | None = None


class SendQueue:
    """Messages that the network has not accepted yet, by key: a newer one replaces an older one in its position."""

    def __init__(self, publish: Callable[[Outbound], bool], room: Callable[[], int]) -> None:
        self._publish = publish
        self._room = room
        self._waiting: dict[str, Outbound] = {}
        self._bytes = 0
        self.dropped = 0
        """Messages for which there was no room."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: str, message: Outbound) -> None:
        """Queue a message for the next `flush`."""
        old = self._waiting.get(key)
        size = self._bytes + len(message.data) - (len(old.data) if old else 0)
        full = len(self._waiting) >= MAX_WAITING or size > MAX_WAITING_BYTES
        # Without its presence the client would count as offline.
        if full and old is None and message.channel is not Channel.PRESENCE:
            self.dropped += 1
            return
        self._waiting[key] = message
        self._bytes = size

    def flush(self) -> None:
        """Publish in order, until the network accepts no more. What the broker never takes stops none behind it."""
        for key, message in tuple(self._waiting.items()):
            fits = len(message.data) <= self._room()
            if not self._publish(message) and fits:
                return
            self.dropped += not fits
            del self._waiting[key]
            self._bytes -= len(message.data)

    def take(self) -> dict[str, Outbound]:
        """Remove and return everything that waits."""
        waiting, self._waiting, self._bytes = self._waiting, {}, 0
        return waiting


class Publisher:
    """Publishes while `connected`; `publish` passes a message to the network.

    `room` are the bytes of the largest payload that the broker takes; a message is made to fit.
    """

    def __init__(
        self,
        presence: PresenceBuilder,
        status: StatusReporter,
        publish: Callable[[Outbound], bool],
        room: Callable[[], int],
    ) -> None:
        self.connected = False
        self._presence = presence
        self._status = status
        self._publish = publish
        self._room = room
        self._queue = SendQueue(publish, room)
        self._beat_at: float | None = None
        self._hello_at: float | None = None
        self._next_birth = 0.0
        """The earliest moment of the next hello for a birth."""

    @property
    def has_unsent(self) -> bool:
        """Whether a message waits; its content may depend on any record."""
        return len(self._queue) > 0

    def on_connected(self, now: float, install_id: str, transfers: Iterable[Transfer]) -> None:
        """The subscriptions are in place: publish the birth, then hello.

        Responses to commands that arrived earlier, from the broker's session, are published after them.
        """
        self.connected = True
        earlier = self._queue.take()
        self._beat(now)
        self.hello(install_id, transfers)
        for key, message in earlier.items():
            self._queue.put(key, message)

    def on_disconnected(self) -> None:
        """The connection has ended: drop what waits."""
        self.connected = False
        self._beat_at = self._hello_at = None
        self._queue.take()

    def schedule_hello(self, now: float) -> None:
        """A control plane started: publish hello after a random pause, so that a fleet does not do it at once."""
        if self._hello_at is None:
            jitter = HELLO_JITTER * random.random()  # noqa: S311 (spreads load; guards nothing)
            self._hello_at = max(now, self._next_birth) + jitter

    def hello_due(self, now: float) -> bool:
        """Whether the scheduled hello is due."""
        return self._hello_at is not None and now >= self._hello_at

    def hello(self, install_id: str, transfers: Iterable[Transfer]) -> None:
        """Enqueue the list of the uploads that are not closed."""
        if self._hello_at is not None:
            self._next_birth = self._hello_at + BIRTH_EVERY
        self._hello_at = None
        for number, page in enumerate(hello_pages(uuid.uuid4().hex, install_id, transfers, room=self._room())):
            self.enqueue(page, key=f"hello {number}")

    def enqueue(self, response: Response, key: str | None = None, *, traceparent: str | None = None) -> None:
        """Enqueue a response; a newer one under the same `key` replaces one that is not published yet."""
        data = self._encoded(msgspec.structs.replace(response, epoch=self._presence.epoch))
        if data is not None:
            self._queue.put(key or response.message_id, Outbound(Channel.RESPONSE, data, traceparent=traceparent))

    def flush(self, now: float, runs: list[Run], overall_reason: str | None) -> None:
        """Publish what waits, the next beat, and a Status; `overall_reason` replaces the reason of every upload."""
        if not self.connected:
            return
        if self._beat_at is not None and now >= self._beat_at:
            self._beat(now)
        self._queue.flush()
        status = self._status.due(
            runs, now=now, epoch=self._presence.epoch, overall_reason=overall_reason, room=self._room()
        )
        if status is not None:
            self._publish(Outbound(Channel.STATUS, encode(status)))

    def next_at(self, now: float) -> float | None:
        """When `flush` or a scheduled hello is next due."""
        if not self.connected:
            return None
        unsent = now + _UNSENT_PAUSE if len(self._queue) else None
        moments = (unsent, self._beat_at, self._hello_at, self._status.next_at)
        return min((moment for moment in moments if moment is not None), default=None)

    def _beat(self, now: float) -> None:
        self._beat_at = now + BEAT_EVERY
        self._queue.put("presence", Outbound(Channel.PRESENCE, self._presence.online(), PRESENCE_EXPIRY))

    def _encoded(self, response: Response) -> bytes | None:
        """The response, with fewer wanted parts where the broker takes no more, or an error in its place."""
        room = self._room()
        while (data := _encoded_within(response, room)) is None and (fewer := _with_fewer_parts(response)) is not None:
            response = fewer
        if data is not None:
            return data
        log.warning("a response to %s is too large: at most %d bytes are taken", response.message_id, room)
        payload: ResponsePayload = Nothing()
        if isinstance(response.payload, UploadReport):
            payload = UploadReport(upload_id=response.payload.upload_id, attempt=response.payload.attempt)
        text = f"the answer is too large: the broker takes at most {room} bytes"
        failure = {
            "status": ResponseStatus.ERROR,
            "error": ErrorCode.INTERNAL,
            "message": text,
            "payload": payload,
        }
        return _encoded_within(msgspec.structs.replace(response, **failure), room)


def _encoded_within(response: Response, room: int) -> bytes | None:
    try:
        data = encode(response)
    except SchemaError:
        return None
    return data if len(data) <= room else None


def _with_fewer_parts(response: Response) -> Response | None:
    """The request with half of its wanted parts; None when one is left: an owner may grant fewer than requested."""
    report = response.payload
    if not isinstance(report, UploadReport) or len(report.wanted_parts) <= 1:
        return None
    half = report.wanted_parts[: len(report.wanted_parts) // 2]
    return msgspec.structs.replace(response, payload=msgspec.structs.replace(report, wanted_parts=half))
