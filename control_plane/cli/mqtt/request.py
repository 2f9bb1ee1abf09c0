"""The upload that an operator requests on the command line.

Rule: pure; an option that cannot be used is `Misused`.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from control_plane.cli.errors import Misused
from control_plane.cli.parsing import read_after
from control_plane.domain.uploads.model import Origin, Upload, UploadKey
from control_plane.services.policy import Policy, object_key
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from schemas.codec import require_metadata
from schemas.errors import SchemaError
from schemas.messages import KEEP
from schemas.sealing.layout import sealed_name
from schemas.sealing.recipients import sealing_contradiction
from schemas.topics import require_client_id
from schemas.values import UploadOptions


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """One file of one client; `file_path` None is the client's default file, `deadline` is in seconds from now."""

    client_id: str
    upload_id: str
    file_path: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    options: UploadOptions = field(default_factory=UploadOptions)
    deadline: float | None = None
    after: str = KEEP

    @property
    def key(self) -> UploadKey:
        """The upload's identity."""
        return UploadKey(self.client_id, self.upload_id)

    def upload(self, policy: Policy, seen: ObjectStoreCapabilities, file_path: str, now: float) -> Upload:
        """The new upload, queued, for an object store as `seen`. Its object key always contains its id."""
        mark, kept_as = self.upload_id[:8], sealed_name(file_path, self.options)
        return Upload(
            client_id=self.client_id,
            upload_id=self.upload_id,
            owner=policy.owner,
            origin=Origin.MQTT,
            s3_key=object_key(policy.base_path, self.client_id, kept_as, now, mark, refused=seen.refused_characters),
            token=secrets.token_hex(16),
            created_at=now,
            updated_at=now,
            deadline=now + (policy.deadline if self.deadline is None else self.deadline),
            file_path=file_path,
            digest=seen.digest_for(policy.digest),
            chunk_size=policy.chunk_size,
            options=self.options,
            metadata=self.metadata,
            after=self.after,
            touched_at=now,
        )


def read_request(
    client: str,
    path: str | None,
    *,
    metadata: Mapping[str, str],
    options: Mapping[str, object],
    deadline: float | None,
    after: str | None = None,
) -> UploadRequest:
    """The arguments of `mqtt trigger`, checked, with a new upload id; `Misused`."""
    try:
        require_client_id(client)
        require_metadata(metadata)
        chosen = msgspec.convert(options, UploadOptions)
    except (SchemaError, msgspec.ValidationError) as error:
        raise Misused(str(error)) from error
    if unknown := set(options) - set(UploadOptions.__struct_fields__):
        text = f"no such option: {', '.join(sorted(unknown))}"
        raise Misused(text)
    act = read_after(after) or KEEP
    if contradiction := sealing_contradiction(chosen, act):
        raise Misused(contradiction)
    return UploadRequest(client, secrets.token_hex(16), path, metadata, chosen, deadline, act)
