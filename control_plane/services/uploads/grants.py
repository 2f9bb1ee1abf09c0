"""Presigned URLs for the parts of an upload.

Rule: URLs are signed when the command that carries them is built, and never stored; no URL is signed before the object
store was probed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from control_plane.domain.gate.gate import within
from control_plane.domain.uploads.machine import PUT_URL_LIFE
from control_plane.domain.uploads.model import Upload
from control_plane.services.errors import ObjectStoreForbids
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy, name_beside
from control_plane.services.ports.object_store import Grantable, ObjectStore
from schemas.codec import GRANT_FILL_SIZE
from schemas.parts import to_ranges
from schemas.sealing.layout import sealed_name
from schemas.values import PresignedPart, WantedPart

_JSON_AROUND_URL: Final = 128
"""Bytes of JSON that one granted part takes beside its URL and its headers."""

_JSON_OF_RANGE: Final = len("[10000,10000],")
_SHORTEST_LIFE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Grant:
    """URLs that are valid for `expires_in` seconds, and the ranges of part numbers that are stored already."""

    urls: tuple[PresignedPart, ...]
    expires_in: float
    completed_parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class UrlSigner:
    """Signs the URLs of an upload; `ObjectStoreDown` before the first good probe, and while the clock is wrong.

    `ObjectStoreForbids` while the credentials are not accepted, or are at their end.
    """

    object_store: ObjectStore
    probe: ObjectStoreProbe
    policy: Policy

    def grant(self, upload: Upload, room: int, most: int | None = None) -> Grant:
        """The requested parts, in order, as many as fit into `room` bytes; the client requests the rest again.

        Of the file at most `most` bytes, or one part if that is larger.
        """
        self.probe.require_signing()
        completed = to_ranges(upload.stored_parts)
        room -= _JSON_OF_RANGE * len(completed)
        lifetime = self._lifetime(upload)
        return Grant(self._signed(upload, within(upload.to_grant, most), lifetime, room), lifetime, completed)

    def pre_grant(self, upload: Upload) -> Grant:
        """The first parts of the upload's plan, as many as fit into one message. The upload must be open."""
        self.probe.require_signing()
        plan = upload.plan
        wanted = () if plan is None else (WantedPart(part.number, part.size) for part in plan)
        lifetime = self._lifetime(upload)
        return Grant(self._signed(upload, wanted, lifetime, GRANT_FILL_SIZE), lifetime)

    def _lifetime(self, upload: Upload) -> float:
        wanted = min(self.policy.url_expiry, PUT_URL_LIFE) if upload.one_put else self.policy.url_expiry
        lifetime = self.object_store.url_lifetime(wanted)
        if lifetime < _SHORTEST_LIFE:
            message = "the object store's credentials are at their end: no URL that they sign would be taken"
            raise ObjectStoreForbids(message)
        return lifetime

    def _signed(
        self, upload: Upload, wanted: Iterable[WantedPart], lifetime: float, room: int
    ) -> tuple[PresignedPart, ...]:
        """URLs for these parts, as many as `room` bytes hold, and one at least."""
        signed: list[PresignedPart] = []
        size = 0
        for one in wanted:
            part = self._sign(upload, one, lifetime)
            size += len(part.url) + sum(len(k) + len(v) for k, v in part.headers.items()) + _JSON_AROUND_URL
            if signed and size > room:
                break
            signed.append(part)
        return tuple(signed)

    def _sign(self, upload: Upload, wanted: WantedPart, lifetime: float) -> PresignedPart:
        part = Grantable(wanted.part_number, wanted.size, wanted.digest, lifetime)
        if upload.one_put:
            once = self.probe.capabilities.if_none_match
            name = name_beside(upload.s3_key, sealed_name(upload.file_path or "", upload.options))
            return self.object_store.presign_object(
                upload.s3_key, upload.object_token, part, upload.digest, once=once, file_name=name
            )
        assert upload.s3_upload_id is not None  # noqa: S101 - a grant is a duty only once the upload is open
        return self.object_store.presign_part(upload.s3_key, upload.s3_upload_id, part, upload.digest)
