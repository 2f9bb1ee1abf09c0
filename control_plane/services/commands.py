"""The commands that an owner says to its clients, built from the upload's state at the moment they are said.

Rule: nothing is stored of what is built here, and URLs are signed as late as possible.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from control_plane.domain.uploads.machine import PUT_URL_LIFE
from control_plane.domain.uploads.model import OUTCOMES, TERMINAL, Upload, UploadKey
from control_plane.services.errors import ObjectStoreDown
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.messenger import Messenger
from control_plane.services.ports.object_store import Grantable, ObjectStore
from schemas.codec import GRANT_FILL_SIZE, encode
from schemas.messages import CancelUpload, CloseUpload, Command, CommandPayload, DownloadFile, GrantParts, UploadConfig
from schemas.parts import to_ranges
from schemas.topics import Channel
from schemas.values import Action, Outcome, PresignedPart, WantedPart

_JSON_AROUND_URL = 128
"""Bytes that one granted part takes beside its URL and headers."""

_JSON_OF_RANGE = len("[10000,10000],")
_SHORTEST_LIFE = 1.0


@dataclass(frozen=True, slots=True)
class CommandPublisher:
    """Says one thing to one client; `MessengerDown` when the broker did not take it."""

    messenger: Messenger
    objects: ObjectStore
    probing: ObjectStoreProbe
    clock: Clock
    policy: Policy

    async def download(self, upload: Upload) -> None:
        """Begin, or go on with, this attempt."""
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
        )
        await self._say(upload.client_id, upload.message_id, Action.DOWNLOAD_FILE, payload)

    async def grant(self, upload: Upload) -> None:
        """Answer the client's last question: URLs for what it wants, as many as fit, and an ack of what it told."""
        self.probing.require()
        lifetime = self._lifetime(upload)
        completed = to_ranges(upload.stored_parts)
        config = UploadConfig(
            upload_id=upload.upload_id,
            attempt=upload.attempt,
            presigned_urls=self._signed(upload, lifetime, GRANT_FILL_SIZE - _JSON_OF_RANGE * len(completed)),
            expires_in=lifetime,
        )
        payload = GrantParts(upload_config=config, acknowledges=upload.sequence, completed_parts=completed)
        message_id = f"{upload.upload_id[:38]}.{upload.attempt}.{upload.sequence}"
        await self._say(upload.client_id, message_id, Action.GRANT_PARTS, payload)

    async def cancel(self, upload: Upload) -> None:
        """Tell the client to stop."""
        payload = CancelUpload(upload_id=upload.upload_id, attempt=upload.attempt)
        await self._say(upload.client_id, f"{upload.upload_id[:56]}.cancel", Action.CANCEL_UPLOAD, payload)

    async def close(self, upload: Upload) -> None:
        """Release the client from an upload that is over."""
        outcome = OUTCOMES[upload.state] if upload.state in TERMINAL else Outcome.UNKNOWN
        await self._close(upload.key, upload.attempt, outcome, upload.sequence)

    async def close_unknown(self, key: UploadKey, attempt: int) -> None:
        """Release the client from an upload that nobody here knows."""
        await self._close(key, attempt, Outcome.UNKNOWN, 0)

    async def _close(self, key: UploadKey, attempt: int, outcome: Outcome, acknowledges: int) -> None:
        payload = CloseUpload(upload_id=key.upload_id, attempt=attempt, acknowledges=acknowledges, outcome=outcome)
        await self._say(key.client_id, f"{key.upload_id[:56]}.close", Action.CLOSE_UPLOAD, payload)

    async def _say(self, client_id: str, message_id: str, action: Action, payload: CommandPayload) -> None:
        issued_at = datetime.fromtimestamp(self.clock.now(), UTC)
        command = Command(message_id=message_id, action=action, payload=payload, issued_at=issued_at)
        await self.messenger.publish(Channel.COMMAND, client_id, encode(command))

    def _lifetime(self, upload: Upload) -> float:
        wanted = min(self.policy.url_expiry, PUT_URL_LIFE) if upload.one_put else self.policy.url_expiry
        lifetime = self.objects.url_lifetime(wanted)
        if lifetime < _SHORTEST_LIFE:
            message = "the object store's credentials are at their end: no URL that they sign would be taken"
            raise ObjectStoreDown(message)
        return lifetime

    def _signed(self, upload: Upload, lifetime: float, room: int) -> tuple[PresignedPart, ...]:
        """URLs for the wanted parts in order, as many as `room` bytes hold; the client asks again for the rest."""
        signed: list[PresignedPart] = []
        size = 0
        for wanted in upload.to_grant:
            part = self._sign(upload, wanted, lifetime)
            size += len(part.url) + sum(len(k) + len(v) for k, v in part.headers.items()) + _JSON_AROUND_URL
            if signed and size > room:
                break
            signed.append(part)
        return tuple(signed)

    def _sign(self, upload: Upload, wanted: WantedPart, lifetime: float) -> PresignedPart:
        part = Grantable(wanted.part_number, wanted.size, wanted.digest, lifetime)
        if upload.one_put:
            once = self.probing.capabilities.if_none_match
            return self.objects.presign_object(upload.s3_key, upload.object_token, part, upload.digest, once=once)
        assert upload.s3_upload_id is not None  # noqa: S101 - a grant is a duty only once the upload is open
        return self.objects.presign_part(upload.s3_key, upload.s3_upload_id, part, upload.digest)
