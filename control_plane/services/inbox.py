"""Hears the fleet: every message that comes in is understood here and handed to whom it concerns.

Rule: nothing that a device sends can stop this. What is not understood is counted and dropped; what is understood is
queued, and acknowledged to the device only by what follows from the commit.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control_plane.domain.uploads.events import Progressed
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.clients.queries import ClientQueries
from control_plane.services.clients.registry import ClientRegistry
from control_plane.services.clients.resync import Resync
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Delivered
from control_plane.services.uploads.observer import History
from control_plane.services.uploads.translate import adopted, event_of, key_of, progress_of
from control_plane.services.uploads.writer import Uploads
from schemas.codec import decode, decode_command, decode_response
from schemas.errors import SchemaError
from schemas.messages import CurrentUpload, Hello, Presence, Response, Status, UploadReport
from schemas.topics import Channel, Topics
from schemas.values import ResponseStatus

PROGRESS_EVERY: Final = 5.0
"""Seconds between two commits of one upload's progress."""

WAIT_EVERY: Final = 60.0
"""Seconds between two commits of the same wait; less when the step timer is short."""

MAX_REMEMBERED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom the inbox hands things to."""

    uploads: Uploads
    presences: ClientRegistry
    inquiries: ClientQueries
    hellos: Resync
    history: History


class Inbox:
    """Understands what the messenger delivers."""

    def __init__(
        self, listeners: Listeners, clock: Clock, log: EventLog, *, policy: Policy, probing: ObjectStoreProbe
    ) -> None:
        self._to = listeners
        self._clock = clock
        self._log = log
        self._policy = policy
        self._probing = probing
        self._topics = Topics(policy.topic_root)
        self._progress: dict[UploadKey, Progressed] = {}
        self._by_channel: dict[Channel, Callable[[str, bytes], None]] = {
            Channel.RESPONSE: self._response,
            Channel.STATUS: self._status,
            Channel.PRESENCE: self._presence,
            Channel.COMMAND: self._command,
        }

    def hear(self, message: Delivered) -> None:
        """Take one message; never raises and never waits."""
        try:
            topic = self._topics.parse(message.topic)
            if message.payload and topic.channel in self._by_channel:
                self._by_channel[topic.channel](topic.client_id, message.payload)
        except SchemaError as error:
            self._log("message.refused", {"topic": message.topic[:200], "error": str(error)[:500]})
        except Exception as error:  # noqa: BLE001 - a fault of ours in one message must not deafen us
            self._log("message.fault", {"topic": message.topic[:200], "error": repr(error)[:500]})

    def _presence(self, client_id: str, payload: bytes) -> None:
        presence = decode(Presence, payload)
        if presence.client_id != client_id:
            message = f"presence of {presence.client_id!r} on the topic of {client_id!r}"
            raise SchemaError(message)
        self._to.presences.hear(presence)

    def _command(self, client_id: str, payload: bytes) -> None:
        """Somebody else commands a client: another owner's upload is noted as history."""
        self._to.history.hear_command(client_id, decode_command(payload))

    def _response(self, client_id: str, payload: bytes) -> None:
        response = decode_response(payload)
        about = response.payload
        if isinstance(about, Hello):
            self._to.hellos.hear(client_id, response.epoch or 0, about)
        elif isinstance(about, UploadReport):
            self._about_upload(client_id, response, about)
        elif not self._to.inquiries.hear(client_id, response):
            self._log("response.unasked", {"client_id": client_id, "action": response.action[:100]})

    def _about_upload(self, client_id: str, response: Response, report: UploadReport) -> None:
        now = self._clock.now()
        key = key_of(client_id, response, report)
        event = event_of(response, report, now=now, one_put=self._probing.capabilities.object_digests)
        if event is None:
            message = f"status {response.status!r} of a response is not known"
            raise SchemaError(message)
        if report.owner not in {None, self._policy.owner}:
            self._to.history.hear_report(key, report, event)
            return
        offered = ResponseStatus.read(response.status) is ResponseStatus.IN_PROGRESS
        new = None
        if offered and report.owner is not None:
            new = adopted(key, report, self._policy, token=secrets.token_hex(16), now=now)
        self._to.uploads.hear(key, event, new=new, may_wait=True)

    def _status(self, client_id: str, payload: bytes) -> None:
        status = decode(Status, payload)
        entries = status.uploads or ((status.current_upload,) if status.current_upload else ())
        for current in entries:
            self._progressed(client_id, current, status.status)

    def _progressed(self, client_id: str, current: CurrentUpload, status: str) -> None:
        """Commit the progress of one upload now and then; the statuses between are only seen by live watchers."""
        key = UploadKey(client_id, current.upload_id)
        event = progress_of(current, status, self._clock.now())
        if not self._tells(self._progress.get(key), event):
            return
        if len(self._progress) >= MAX_REMEMBERED:
            self._progress.clear()
        self._progress[key] = event
        self._to.uploads.hear(key, event)

    def _tells(self, last: Progressed | None, event: Progressed) -> bool:
        """Whether this is worth a commit. A named wait is, even if no byte moves: it stops the step timer."""
        if last is None:
            return True
        since = event.now - last.now
        if event.bytes_sent != last.bytes_sent:
            return since >= PROGRESS_EVERY
        return event.reason is not None and since >= min(WAIT_EVERY, self._policy.step_timeout / 4)
