"""The commands of this owner to its clients: every one is built here, and published here.

Rule: no other module builds or publishes a `Command`. A command is built from the upload's state when it is published,
and never stored.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import replace

from control_plane.domain.uploads.model import OUTCOMES, TERMINAL, Proof, State, Upload, UploadKey
from control_plane.services.errors import DeviceBarred
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.messenger import Messenger, UserProperties
from control_plane.services.ports.tracing import Tracer
from control_plane.services.tracing import NO_TRACES, DeviceSpans, publish_span
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.services.trust.sessions import ClientSessions
from control_plane.services.uploads.grants import Grant
from schemas.codec import GRANT_FILL_SIZE, encode
from schemas.messages import (
    KEEP,
    CancelUpload,
    CloseUpload,
    Command,
    CommandPayload,
    DownloadFile,
    GrantParts,
    ListFiles,
    ReceiptOrder,
    UploadConfig,
    Wait,
)
from schemas.parts import to_ranges
from schemas.signing.canonical import SIGNED_ROOM, SignedKind
from schemas.topics import Channel, Topics
from schemas.values import Action, Outcome, UploadOptions

_DEFAULT_TOPICS: Final = Topics()
_AROUND_GRANT: Final = 832
"""Bytes of a grant beside its URLs and ranges, with the longest ids."""


def _none_is_barred(_client_id: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class CommandPublisher:
    """Builds commands and publishes them; `key` signs those to clients that have a session.

    `barred` gives the code of the reason for which nothing is sent to a client.
    """

    messenger: Messenger
    clock: Clock
    tracer: Tracer = NO_TRACES
    topics: Topics = _DEFAULT_TOPICS
    spans: DeviceSpans | None = None
    key: ControlPlaneKey | None = None
    sessions: ClientSessions | None = None
    barred: Callable[[str], str | None] = _none_is_barred

    @property
    def room(self) -> int:
        """Bytes of a command that URLs may fill: less than usual when the broker takes only small messages."""
        return min(GRANT_FILL_SIZE, self.messenger.max_message_size - _AROUND_GRANT - SIGNED_ROOM)

    async def publish(self, client_id: str, command: Command) -> None:
        """Publish a command to one client; signed, and in its present session, if the client has one.

        `DeviceBarred` for a device that is revoked, or whose key is in doubt. `MessengerDown` when the broker does not
        acknowledge it, `BrokerRefused` when it is too large for the broker.
        """
        if (code := self.barred(client_id)) is not None:
            raise DeviceBarred(client_id, code)
        session = None if self.key is None or self.sessions is None else await self.sessions.of(client_id)
        data = encode(command if session is None else replace(command, session=session))
        signature: UserProperties = ()
        if self.key is not None and session is not None:
            signature = self.key.sign(SignedKind.COMMAND, self.topics.command(client_id), data)
        with publish_span(self.tracer, self.topics, client_id, len(data)):
            traceparent = self.tracer.current()
            if traceparent is not None and self.spans is not None:
                self.spans.published(traceparent)
            await self.messenger.publish(
                Channel.COMMAND, client_id, data, traceparent=traceparent, properties=signature
            )

    def build_download(self, upload: Upload) -> Command:
        """Start this attempt, or resume it."""
        config = UploadConfig(
            upload_id=upload.upload_id,
            attempt=upload.attempt,
            owner=upload.owner,
            digest=upload.digest,
            chunk_size=upload.chunk_size,
        )
        payload = DownloadFile(
            upload_config=config,
            acknowledges=upload.sequence,
            file_path=upload.file_path,
            options=upload.options,
            metadata=dict(upload.metadata),
            after=upload.after,
        )
        return self._stamped(upload.message_id, Action.DOWNLOAD_FILE, payload)

    def build_grant(self, upload: Upload, grant: Grant, *, rate: int | None = None) -> Command:
        """Answer the client's last request for URLs with `grant`, and acknowledge its last response.

        `rate` (bytes a second) is what the client may not exceed with these URLs.
        """
        config = UploadConfig(
            upload_id=upload.upload_id,
            attempt=upload.attempt,
            presigned_urls=grant.urls,
            expires_in=grant.expires_in,
        )
        payload = GrantParts(
            upload_config=config,
            acknowledges=upload.sequence,
            completed_parts=grant.completed_parts,
            max_bytes_per_second=rate,
        )
        return self._stamped(_grant_id(upload), Action.GRANT_PARTS, payload)

    def build_wait(self, upload: Upload, wait: Wait | None) -> Command:
        """Answer the client's last request for URLs with a wait; without one, with a grant of nothing."""
        payload = GrantParts(
            upload_config=UploadConfig(upload_id=upload.upload_id, attempt=upload.attempt),
            acknowledges=upload.sequence,
            completed_parts=to_ranges(upload.stored_parts),
            wait=wait,
        )
        return self._stamped(_grant_id(upload), Action.GRANT_PARTS, payload)

    def build_cancel(self, upload: Upload) -> Command:
        """Stop this upload."""
        payload = CancelUpload(upload_id=upload.upload_id, attempt=upload.attempt)
        return self._stamped(f"{upload.upload_id[:56]}.cancel", Action.CANCEL_UPLOAD, payload)

    def build_close(self, upload: Upload) -> Command:
        """Release the client from an upload that is over."""
        outcome = OUTCOMES[upload.state] if upload.state in TERMINAL else Outcome.UNKNOWN
        order = receipt_order(upload)
        return self._close(upload.key, upload.attempt, outcome, upload.sequence, upload.proof, order)

    def build_close_unknown(self, key: UploadKey, attempt: int) -> Command:
        """Release the client from an upload that is not in the database."""
        return self._close(key, attempt, Outcome.UNKNOWN, 0)

    def _close(
        self,
        key: UploadKey,
        attempt: int,
        outcome: Outcome,
        acknowledges: int,
        proof: Proof | None = None,
        receipt: ReceiptOrder | None = None,
    ) -> Command:
        payload = CloseUpload(
            upload_id=key.upload_id,
            attempt=attempt,
            acknowledges=acknowledges,
            outcome=outcome,
            proof=proof,
            receipt=receipt,
        )
        return self._stamped(f"{key.upload_id[:56]}.close", Action.CLOSE_UPLOAD, payload)

    def _stamped(self, message_id: str, action: Action, payload: CommandPayload) -> Command:
        issued_at = datetime.fromtimestamp(self.clock.now(), UTC)
        return Command(message_id=message_id, action=action, payload=payload, issued_at=issued_at)


def receipt_order(upload: Upload) -> ReceiptOrder | None:
    """What the device gets about the object that it is to sign for; None where it is not to sign."""
    wanted = upload.receipt is not None and upload.receipt.wanted
    if not wanted or upload.state is not State.COMPLETED or upload.completed_at is None:
        return None
    return ReceiptOrder(upload.s3_key, datetime.fromtimestamp(upload.completed_at, UTC), upload.job_id)


def _grant_id(upload: Upload) -> str:
    return f"{upload.upload_id[:38]}.{upload.attempt}.{upload.sequence}"


def build_list_files(request: ListFiles) -> Command:
    """List the client's files; its response has the same `message_id`."""
    return Command(message_id=secrets.token_hex(16), action=Action.LIST_FILES, payload=request)


def build_granted_download(upload: Upload, grant: Grant, bucket: str) -> Command:
    """Start an upload, with its first URLs in the command; a person publishes it."""
    config = UploadConfig(
        upload_id=upload.upload_id,
        attempt=upload.attempt,
        owner=upload.owner,
        digest=upload.digest,
        chunk_size=upload.chunk_size,
        bucket=bucket,
        key=upload.s3_key,
        presigned_urls=grant.urls,
    )
    payload = DownloadFile(
        upload_config=config, file_path=upload.file_path, options=upload.options, metadata=dict(upload.metadata)
    )
    return Command(message_id=upload.message_id, action=Action.DOWNLOAD_FILE, payload=payload)


def build_bare_download(
    upload_id: str,
    file_path: str | None,
    options: UploadOptions,
    metadata: Mapping[str, Any],
    after: str = KEEP,
) -> Command:
    """Start an upload without an owner: the control plane that receives the client's offer becomes its owner."""
    payload = DownloadFile(file_path=file_path, options=options, metadata=dict(metadata), after=after)
    return Command(message_id=upload_id, action=Action.DOWNLOAD_FILE, payload=payload)


def build_bare_cancel(upload_id: str) -> Command:
    """Stop an upload, of any owner and at any attempt."""
    payload = CancelUpload(upload_id=upload_id)
    return Command(message_id=secrets.token_hex(16), action=Action.CANCEL_UPLOAD, payload=payload)
