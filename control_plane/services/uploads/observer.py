"""Observes the uploads of other owners: of a direct CLI, or of a person with a bare MQTT client.

Rule: history only. No duty follows from an observed upload, and no command about it is published.
"""

import secrets
from typing import Final

from control_plane.domain.uploads.events import (
    CancelledByClient,
    ErrorReported,
    Observed,
    PartsRequested,
    Progressed,
    Rejected,
    RemoteEvent,
    Succeeded,
)
from control_plane.domain.uploads.model import OUTCOMES, Origin, State, Upload, UploadKey
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.uploads.translate import path_of
from control_plane.services.uploads.writer import UploadWriter
from schemas.messages import CHUNK_SIZE, CloseUpload, Command, DownloadFile, UploadReport
from schemas.names import UNKNOWN_OWNER
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
    """Records what commands and responses show of other owners' uploads."""

    def __init__(self, writer: UploadWriter, clock: Clock, policy: Policy) -> None:
        self._writer = writer
        self._clock = clock
        self._policy = policy

    def observe_command(self, client_id: str, command: Command) -> None:
        """Record that an upload was started, or closed by its owner."""
        payload, now = command.payload, self._clock.now()
        if isinstance(payload, CloseUpload) and payload.about:
            state = next((state for state, outcome in OUTCOMES.items() if outcome == payload.outcome), State.FAILED)
            event = Observed(now=now, state=state, attempt=payload.about_attempt)
            self._writer.enqueue(UploadKey(client_id, payload.about), event)
        elif isinstance(payload, DownloadFile) and payload.upload_config and payload.upload_config.upload_id:
            config = payload.upload_config
            owner = config.owner or UNKNOWN_OWNER
            if owner != self._policy.owner:
                key = UploadKey(client_id, payload.upload_config.upload_id)
                report = UploadReport(
                    attempt=payload.about_attempt,
                    owner=owner,
                    file_path=payload.file_path,
                    chunk_size=config.chunk_size,
                    digest=config.digest,
                    options=payload.options,
                    metadata=payload.metadata,
                )
                event = Observed(now=now, state=State.DISPATCHED, attempt=payload.about_attempt)
                self._record(key, report, event, s3_key=config.key)

    def observe_report(self, key: UploadKey, report: UploadReport, event: RemoteEvent) -> None:
        """Record what a client reports about an upload of another owner."""
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
        self._record(key, report, observed, s3_key=None)

    def _record(self, key: UploadKey, report: UploadReport, event: Observed, *, s3_key: str | None) -> None:
        now = self._clock.now()
        new = Upload(
            client_id=key.client_id,
            upload_id=key.upload_id,
            owner=report.owner or UNKNOWN_OWNER,
            origin=Origin.MQTT,
            s3_key=s3_key if s3_key and len(s3_key) <= LONGEST_KEY else f"unknown/{key.client_id}/{key.upload_id}",
            token=secrets.token_hex(16),
            created_at=now,
            updated_at=now,
            deadline=now + self._policy.deadline,
            file_path=path_of(report),
            digest=report.digest or DigestName.NONE,
            chunk_size=report.chunk_size or CHUNK_SIZE,
            options=report.options,
            metadata=report.metadata,
            state=State.DISPATCHED,
            attempt=report.attempt,
        )
        self._writer.enqueue(key, event, new=new)
