"""Records what other senders command: a person with a bare MQTT client, or a direct command line.

Rule: only a command that was received here makes an upload, never a device's report of one. A command that names no
other owner makes an upload of this control plane, and what a second person must approve ends at once. Any other one is
observed: no duty follows, no command is published.
"""

import secrets
from typing import Final

from msgspec.structs import replace

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act, Outcome
from control_plane.domain.uploads.events import (
    AfterReported,
    CancelledByClient,
    CancelRequested,
    Dispatched,
    ErrorReported,
    Observed,
    PartsRequested,
    Progressed,
    Rejected,
    RemoteEvent,
    Succeeded,
)
from control_plane.domain.uploads.model import OUTCOMES, Origin, State, Upload, UploadKey
from control_plane.services.audit.recording import record
from control_plane.services.errors import BadInput
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy, object_key
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Records
from control_plane.services.trust.commander import Commander
from control_plane.services.uploads.writer import Recorder, UploadWriter
from schemas.messages import CHUNK_SIZE, CloseUpload, Command, DownloadFile, UploadConfig, UploadReport
from schemas.sealing.layout import sealed_name
from schemas.values import DigestName

LONGEST_KEY: Final = 1_024
"""Characters of an object's key ("Naming Amazon S3 objects", S3 user guide); an index could not hold much more."""

_STATES: Final[dict[type[RemoteEvent], State]] = {
    PartsRequested: State.IN_PROGRESS,
    Progressed: State.IN_PROGRESS,
    Succeeded: State.COMPLETING,
    # The owner may start it again, so an error need not be the end; a close is.
    ErrorReported: State.IN_PROGRESS,
    Rejected: State.REJECTED,
    CancelledByClient: State.CANCELLED,
}


class UploadObserver:
    """Takes the commands of others, and the responses to other owners."""

    def __init__(self, writer: UploadWriter, clock: Clock, policy: Policy, probe: ObjectStoreProbe) -> None:
        self._writer = writer
        self._clock = clock
        self._policy = policy
        self._probe = probe

    def observe_command(self, client_id: str, command: Command, by: Commander | None = None) -> None:
        """Adopt or observe the upload that a command starts; record that its owner closed an observed one.

        `by` is who signed it, for a client that obeys signed commands.
        """
        payload, now = command.payload, self._clock.now()
        owners = None if by is None else by.owners_for(payload)
        if isinstance(payload, CloseUpload) and payload.about:
            state = next((state for state, outcome in OUTCOMES.items() if outcome == payload.outcome), State.FAILED)
            event = Observed(now=now, state=state, attempt=payload.about_attempt, owners=owners)
            self._writer.enqueue(UploadKey(client_id, payload.about), event)
        elif isinstance(payload, DownloadFile):
            key = UploadKey(client_id, payload.about or command.message_id)
            if payload.owner != self._policy.owner:
                started = Observed(now=now, state=State.DISPATCHED, attempt=payload.about_attempt, owners=owners)
                self._writer.enqueue_command(key, started, lambda _: self._observed(key, payload, now, by))
            elif not payload.pregranted:
                published = self._published(payload, now)
                self._writer.enqueue_command(
                    key,
                    published,
                    lambda records: self._adopted(key, payload, now, records, by),
                    None if by is None else _recorder(by, published),
                )

    def _published(self, command: DownloadFile, now: float) -> Dispatched | CancelRequested:
        """What a command for this owner does to its upload; one that a second person must approve is cancelled."""
        four_eyes = self._policy.four_eyes
        # Only the device knows which file it means without a path.
        secret = four_eyes.names(command.file_path) if command.file_path else bool(four_eyes.paths)
        # A command of another sender is taken as it is: no label of its client is looked up for it.
        if not secret and four_eyes.selector is None:
            return Dispatched(now=now, attempt=command.about_attempt)
        text = f"a second person must approve the upload of {command.file_path or 'a file without a path'}"
        return CancelRequested(now=now, text=f"{text}: request it with a job")

    def observe_report(self, key: UploadKey, report: UploadReport, event: RemoteEvent) -> None:
        """Record what a client reports about an observed upload; a report of any other one is not recorded."""
        if isinstance(event, AfterReported):
            self._writer.enqueue(key, event)
            return
        failure = event if isinstance(event, ErrorReported | Rejected) else None
        observed = Observed(
            now=event.now,
            state=_STATES[type(event)],
            attempt=event.attempt,
            file_size=report.file_size,
            etags=event.etags,
            error=None if failure is None else failure.code,
            text=None if failure is None else failure.text,
        )
        self._writer.enqueue(key, observed)

    def _observed(self, key: UploadKey, command: DownloadFile, now: float, by: Commander | None) -> Upload:
        if command.file_path:
            # Without one the device knows which file is meant, and nothing is commanded from here.
            _require_path(by, command.file_path)
        config = command.upload_config or UploadConfig()
        usable = config.key is not None and len(config.key) <= LONGEST_KEY
        return self._commanded(
            key,
            command,
            now,
            path=command.file_path,
            s3_key=config.key if config.key and usable else f"unknown/{key.client_id}/{key.upload_id}",
            token=secrets.token_hex(16),
            digest=config.digest or DigestName.NONE,
            state=State.DISPATCHED,
        )

    def _adopted(
        self, key: UploadKey, command: DownloadFile, now: float, records: Records, by: Commander | None
    ) -> Upload:
        """An upload of this owner. Without a path the agent's default file is meant."""
        client = records.clients.get(key.client_id)
        path = command.file_path or (None if client is None else client.default_file)
        _require_path(by, path)
        token = secrets.token_hex(16)
        # The insert cannot choose another key when this one is taken, so part of the token makes it unique.
        mark = f"{key.upload_id[:8]}-{token[:4]}"
        refused = self._probe.capabilities.refused_characters
        config = command.upload_config or UploadConfig()
        kept_as = sealed_name(path or "", command.options)
        adopted = self._commanded(
            key,
            command,
            now,
            path=path,
            s3_key=object_key(self._policy.base_path, key.client_id, kept_as, now, mark, refused=refused),
            token=token,
            digest=config.digest or DigestName.MD5,
            state=State.QUEUED,
        )
        # The client has the command: a cancel must reach it.
        return replace(adopted, client_busy=True)

    def _commanded(
        self,
        key: UploadKey,
        command: DownloadFile,
        now: float,
        *,
        path: str | None,
        s3_key: str,
        token: str,
        digest: DigestName,
        state: State,
    ) -> Upload:
        config = command.upload_config or UploadConfig()
        return Upload(
            client_id=key.client_id,
            upload_id=key.upload_id,
            owner=command.owner,
            origin=Origin.MQTT,
            s3_key=s3_key,
            token=token,
            created_at=now,
            updated_at=now,
            deadline=now + self._policy.deadline,
            file_path=path,
            digest=digest,
            chunk_size=config.chunk_size or CHUNK_SIZE,
            options=command.options,
            metadata=command.metadata,
            after=command.after,
            state=state,
            attempt=command.about_attempt,
            touched_at=now,
        )


def _recorder(by: Commander, published: Dispatched | CancelRequested) -> Recorder:
    """Records that the upload was taken on, or ended at once, for the key that signed its command."""

    def work(records: Records, upload: Upload) -> None:
        record(
            records,
            Principal(by.entry.principal, frozenset()),
            Act.UPLOAD_ADOPT,
            published.now,
            target=f"upload:{upload.upload_id}",
            clients=[upload.client_id],
            detail={"kid": by.kid, "file_path": upload.file_path or ""},
            outcome=Outcome.DENIED if isinstance(published, CancelRequested) else Outcome.DONE,
        )

    return work


def _require_path(by: Commander | None, path: str | None) -> None:
    """`BadInput` for a file that the key which signed its command is not for: the client does not send it either."""
    if by is not None and not by.may_read(path):
        text = f"a command that {by.entry.principal} has signed: the key is not for this path"
        raise BadInput(text)
