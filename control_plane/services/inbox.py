"""Decodes every message that arrives, and hands it to the service that it is for.

Rule: no message of a device can stop this. A message over its client's budget, or that cannot be decoded, is counted
and dropped; the others are enqueued, and only a commit leads to an answer.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from control_plane.domain.clients import CONNECTED_FOR
from control_plane.domain.uploads.events import ErrorReported, Progressed
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.budget import IngestBudget
from control_plane.services.clients.queries import ClientQueries
from control_plane.services.clients.registry import ClientRegistry
from control_plane.services.clients.resync import Resync
from control_plane.services.jobs.runner import JobRunner
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Delivered
from control_plane.services.tracing import DeviceSpans
from control_plane.services.trust.introductions import Introduce, Introductions
from control_plane.services.trust.judge import Judge, Reception, Refusal
from control_plane.services.trust.sessions import ClientSessions
from control_plane.services.uploads.observer import UploadObserver
from control_plane.services.uploads.translate import event_of, key_of, progress_of
from control_plane.services.uploads.writer import UploadWriter
from schemas.codec import decode, decode_command, decode_response
from schemas.errors import SchemaError
from schemas.messages import CurrentUpload, Hello, Presence, Response, Status, UploadReport
from schemas.receipts.envelope import Envelope
from schemas.topics import Channel, Topics
from schemas.values import PRESENCE_EXPIRY, Action, ErrorCode

PROGRESS_EVERY: Final = 5.0
"""Seconds between two commits of one upload's progress."""

WAIT_EVERY: Final = 60.0
"""Seconds between two commits of the same wait; less when the step timer is short."""

MAX_REMEMBERED: Final = 100_000
"""Uploads whose last committed progress is remembered, the latest."""


@dataclass(frozen=True, slots=True)
class UploadScope:
    """The one upload that an engine is for. An engine closes unknown uploads, so it must not receive others."""

    key: UploadKey

    def covers(self, key: UploadKey) -> bool:
        """Whether `key` is that upload."""
        return key == self.key


class Inbox:
    """Receives what the messenger delivers. With `scope`, commands and all other uploads are dropped."""

    def __init__(  # noqa: PLR0913 - one keyword for each receiver
        self,
        *,
        clock: Clock,
        log: EventLog,
        policy: Policy,
        budget: IngestBudget,
        probe: ObjectStoreProbe,
        writer: UploadWriter,
        registry: ClientRegistry,
        queries: ClientQueries,
        resync: Resync,
        observer: UploadObserver,
        jobs: JobRunner | None = None,
        scope: UploadScope | None = None,
        spans: DeviceSpans | None = None,
        judge: Judge,
        introduce: Introduce,
        sessions: ClientSessions,
        receipts: Callable[[UploadKey, int, Envelope], None] | None = None,
        on_revoked: Callable[[str], None] = lambda _client_id: None,
    ) -> None:
        self._on_revoked = on_revoked
        self._spans = spans
        self._judge = judge
        self._sessions = sessions
        self.introductions = Introductions(introduce, log, self._receive_introduced)
        self._jobs = jobs
        self._receipts = receipts
        self._clock = clock
        self._log = log
        self._policy = policy
        self._budget = budget
        self._probe = probe
        self._writer = writer
        self._registry = registry
        self._queries = queries
        self._resync = resync
        self._observer = observer
        self._scope = scope
        self._topics = Topics(policy.topic_root)
        self._progress: OrderedDict[UploadKey, Progressed] = OrderedDict()
        self._by_channel: dict[Channel, Callable[[str, Delivered], None]] = {
            Channel.RESPONSE: self._response,
            Channel.STATUS: self._status,
            Channel.PRESENCE: self._presence,
            Channel.COMMAND: self._command,
        }

    def receive(self, message: Delivered) -> None:
        """Take one message; never raises and never waits."""
        self._take(message, introduced=False)

    def _receive_introduced(self, message: Delivered) -> None:
        """Take one message that waited for an introduction: a client that has no pin now is in no registry."""
        self._take(message, introduced=True)

    def _take(self, message: Delivered, *, introduced: bool) -> None:
        try:
            topic = self._topics.parse(message.topic)
        except SchemaError as error:
            self._log("message.refused", {"client_id": "", "channel": "", "error": str(error)[:500]})
            return
        client_id, channel, size = topic.client_id, topic.channel, len(message.payload)
        if not size or channel not in self._by_channel:
            return
        if message.retained and channel is not Channel.PRESENCE:
            # It may be of any age, and would have its effect again at each connect.
            self._log("message.retained", {"client_id": client_id, "channel": channel})
            return
        if not self._budget.take(client_id, channel, size):
            self._log("message.shed", {"client_id": client_id, "channel": channel})
            return
        try:
            if self._is_taken(client_id, channel, message, introduced=introduced):
                self._by_channel[channel](client_id, message)
        except SchemaError as error:
            self._log("message.refused", {"client_id": client_id, "channel": channel, "error": str(error)[:500]})
        except Exception as error:  # noqa: BLE001 - a fault in one message must not end the reception of others
            self._log("message.fault", {"client_id": client_id, "channel": channel, "error": repr(error)[:500]})

    def _is_taken(self, client_id: str, channel: Channel, message: Delivered, *, introduced: bool) -> bool:
        """Whether to decode this message now; one that does not verify is counted."""
        verdict = self._judge.judge(client_id, channel, message)
        if verdict is Reception.NEWCOMER:
            if not introduced and self._waits(client_id, channel, message):
                return False
            verdict = self._judge.without_pin()
        if verdict is Reception.ACCEPTED:
            return True
        if verdict is Reception.INTRODUCTION:
            presence = self._presence_of(client_id, message)
            if self._judge.introduces(presence, message):
                self.introductions.offer(presence, message)
                return False
        elif verdict is Refusal.REVOKED and channel is Channel.PRESENCE:
            self._on_revoked(client_id)
        elif verdict is Refusal.NOT_ENROLLED and self.introductions.hold(client_id, message):
            return False
        reason = Refusal.BAD_SIGNATURE if verdict is Reception.INTRODUCTION else verdict
        self._log("message.unverified", {"client_id": client_id, "channel": channel, "reason": reason})
        return False

    def _waits(self, client_id: str, channel: Channel, message: Delivered) -> bool:
        """Whether this message of a client without a pin waits until the registry was read."""
        if channel is not Channel.PRESENCE:
            return self.introductions.hold(client_id, message)
        presence = self._presence_of(client_id, message)
        if presence.claim is None or not self._judge.introduces(presence, message):
            return False
        self.introductions.offer(presence, message)
        return True

    def _dropped(self, client_id: str) -> Callable[[str], None]:
        return lambda fact: self._log("fact.dropped", {"client_id": client_id, "fact": fact})

    def _presence(self, client_id: str, message: Delivered) -> None:
        presence = self._presence_of(client_id, message)
        if self._judge.has_revoked_key(presence):
            self._log("message.unverified", {"client_id": client_id, "channel": "presence", "reason": Refusal.REVOKED})
            return
        if self._judge.uses_claim(presence):
            self.introductions.offer(presence, message)
            return
        self._registry.receive(presence, age=_age(message))

    def _presence_of(self, client_id: str, message: Delivered) -> Presence:
        presence = decode(Presence, message.payload, self._dropped(client_id))
        if presence.client_id != client_id:
            text = f"presence of {presence.client_id!r} on the topic of {client_id!r}"
            raise SchemaError(text)
        return presence

    def _command(self, client_id: str, message: Delivered) -> None:
        """A command of another sender: its upload is adopted or observed."""
        if self._scope is not None:
            return
        command, by = decode_command(message.payload), self._judge.commander(client_id, message)
        reason = None if by is None else by.refusal(command, self._sessions.heard(client_id), self._clock.now())
        if reason is None:
            self._observer.observe_command(client_id, command, by)
        else:
            self._log("message.unverified", {"client_id": client_id, "channel": Channel.COMMAND, "reason": reason})

    def _response(self, client_id: str, message: Delivered) -> None:
        response = decode_response(message.payload, self._dropped(client_id))
        about = response.payload
        if isinstance(about, Hello):
            # Only a signed agent has to number its pages: another may give its hellos any ids.
            page_of = response.message_id if self._judge.has_key(client_id) else ""
            self._resync.receive(client_id, response.epoch, self._in_scope(client_id, about), page_of=page_of)
        elif isinstance(about, UploadReport):
            self._report(client_id, response, about)
            if self._spans is not None and message.traceparent is not None:
                self._spans.responded(key_of(client_id, response, about), message.traceparent, response)
        elif response.action == Action.SELECT_FILES and self._jobs is not None:
            if response.error == ErrorCode.STALE_EPOCH:
                # No refusal: the request is sent again, and signed for the present session.
                self._log("command.stale", {"client_id": client_id, "action": Action.SELECT_FILES})
                return
            self._jobs.receive(client_id, response)
        elif not self._queries.resolve(client_id, response):
            self._log("response.unasked", {"client_id": client_id, "action": response.action[:100]})

    def _in_scope(self, client_id: str, hello: Hello) -> Hello:
        if self._scope is None:
            return hello
        active = tuple(one for one in hello.active if self._scope.covers(UploadKey(client_id, one.upload_id)))
        return msgspec.structs.replace(hello, active=active)

    def _report(self, client_id: str, response: Response, report: UploadReport) -> None:
        now = self._clock.now()
        key = key_of(client_id, response, report)
        if self._scope is not None and not self._scope.covers(key):
            return
        if report.receipt is not None:
            # Another owner's upload is closed by that owner alone.
            if self._receipts is not None and report.owner in {None, self._policy.owner}:
                self._receipts(key, report.attempt, report.receipt)
            return
        if response.error == ErrorCode.STALE_EPOCH:
            # The command named a session that ended. A hello follows each connect, and the command is sent anew then.
            self._log("command.stale", {"client_id": client_id, "upload_id": key.upload_id})
            return
        event = event_of(response, report, now=now, one_put=self._probe.capabilities.one_put_digests)
        if event is None:
            message = f"status {response.status!r} of a response is not known"
            raise SchemaError(message)
        if report.owner not in {None, self._policy.owner}:
            self._observer.observe_report(key, report, event)
            return
        if isinstance(event, ErrorReported) and event.code is ErrorCode.STORAGE_REFUSED:
            # The device cannot know why; the probe shows whether the credentials still sign what is accepted.
            self._probe.look_again()
        self._writer.enqueue(key, event, may_defer=True)

    def _status(self, client_id: str, message: Delivered) -> None:
        status = decode(Status, message.payload, self._dropped(client_id))
        entries = status.uploads or ((status.current_upload,) if status.current_upload else ())
        for current in entries:
            self._progressed(UploadKey(client_id, current.upload_id), current, status.status)

    def _progressed(self, key: UploadKey, current: CurrentUpload, status: str) -> None:
        """Commit the progress of one upload now and then; most statuses are for live watchers only."""
        if self._scope is not None and not self._scope.covers(key):
            return
        event = progress_of(current, status, self._clock.now())
        if not self._matters(self._progress.get(key), event):
            return
        self._progress.pop(key, None)
        self._progress[key] = event
        if len(self._progress) > MAX_REMEMBERED:
            self._progress.popitem(last=False)
        self._writer.enqueue(key, event)

    def _matters(self, last: Progressed | None, event: Progressed) -> bool:
        """Whether to commit this progress. A reason matters even when no byte moves: it stops the step timer."""
        if last is None:
            return True
        since = event.now - last.now
        if event.bytes_sent != last.bytes_sent:
            return since >= PROGRESS_EVERY
        if event.reason is None:
            return False
        # A wait that begins is repeated by the agent half a minute later, which may be too late.
        return last.reason is None or since >= min(WAIT_EVERY, self._policy.step_timeout / 4)


def _age(message: Delivered) -> float:
    """How long (s) the broker had stored a presence, from what is left of its expiry; too long where that is unknown.

    So a stored presence without an expiry registers a client, and never connects it.
    """
    if not message.retained:
        return 0.0
    left = message.expires_in
    return CONNECTED_FOR if left is None or left > PRESENCE_EXPIRY else PRESENCE_EXPIRY - left
