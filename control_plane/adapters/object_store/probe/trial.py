"""One pass over every way that an upload can take, below one prefix and with one request for encryption.

Rule: a way is tried as a device takes it, from its first request to the HEAD that proves it. Ways do not depend on each
other, so they run in parallel; the longest has four requests.
"""

import hashlib
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Final, TypeVar

from botocore.exceptions import ClientError

from control_plane.adapters.object_store import buckets, multipart
from control_plane.adapters.object_store.clients import Clients
from control_plane.adapters.object_store.errors import GONE_BY_HEAD, code_of, status_of
from control_plane.adapters.object_store.probe.litter import Litter
from control_plane.adapters.object_store.probe.puts import PutResult, Puts
from control_plane.adapters.object_store.signing import Signer
from control_plane.services.ports.object_store import Grantable, ObjectInfo
from schemas.names import TOKEN_METADATA
from schemas.values import DigestName

BODY: Final = b"Written by Backhaul to see what this store enforces; it may be deleted.\n"
OTHER: Final = b"Not the bytes that are sent.\n"
TOKEN: Final = "probe"  # noqa: S105 - a value to recognise, not a secret
DIGESTS: Final = (DigestName.SHA256, DigestName.MD5, DigestName.CRC32)

HARD_NAMES: Final[Mapping[str, str]] = {" ": "a b", "%": "100%20", "+": "a+b", "&": "a'#&?=;,(~)b", "ü": "größe"}
"""A part of a key for each class of characters that some object stores refuse."""

LOOK_FOR: Final = 8.0
"""Seconds for which a new object is looked for: some object stores show it late."""

_PAUSE: Final = 0.2
_FORBIDDEN: Final = 403
_LIFETIME: Final = 900.0

T = TypeVar("T")


class NotVisible(Exception):
    """An object that was stored is not shown."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trial works: the clients, the signer of its URLs, the prefix of its keys, the encryption requested."""

    clients: Clients
    signer: Signer
    puts: Puts
    litter: Litter
    prefix: str
    encryption: str | None


@dataclass(frozen=True, slots=True)
class Way:
    """How far one way came: the answer to its PUT, then the object. `code` is why an earlier call was refused."""

    put: PutResult | None = None
    info: ObjectInfo | None = None
    code: str = ""

    @property
    def taken(self) -> bool:
        """Whether the bytes were stored."""
        return self.put is not None and self.put.taken

    @property
    def works(self) -> bool:
        """Whether the object exists and carries its token."""
        return self.info is not None and self.info.metadata.get(TOKEN_METADATA) == TOKEN

    @property
    def answer(self) -> str:
        """The code or status of what was refused, for a person."""
        return self.code or (self.put.answer if self.put is not None else "")


@dataclass(slots=True)
class Seen:
    """The results of one trial. `parts` has also the way without a digest."""

    prefix: str
    encryption: str | None
    objects: Mapping[DigestName, Way] = field(default_factory=dict)
    parts: Mapping[DigestName, Way] = field(default_factory=dict)
    wrong_objects: Mapping[DigestName, PutResult] = field(default_factory=dict)
    wrong_parts: Mapping[DigestName, Way] = field(default_factory=dict)
    if_none_match: bool = False
    refused_characters: str = ""
    missing_is_forbidden: bool = False

    @property
    def ways(self) -> list[Way]:
        """Every way with the right digest."""
        return [*self.objects.values(), *self.parts.values()]

    @property
    def usable(self) -> list[DigestName]:
        """The digests under which a multipart upload ends in an object with its token."""
        return [digest for digest, way in self.parts.items() if way.works]


def run_trial(place: Place, pool: Executor) -> Seen:
    """Try every way; `NoAnswer` when the URLs' host does not answer, and what boto3 raises for other requests."""
    trial = _Trial(place)

    def each(digests: tuple[DigestName, ...], way: Callable[[DigestName], T]) -> dict[DigestName, Future[T]]:
        return {digest: pool.submit(way, digest) for digest in digests}

    parts = each((*DIGESTS, DigestName.NONE), trial.parts)
    objects, wrong_parts = each(DIGESTS, trial.object), each(DIGESTS, trial.wrong_part)
    once = [pool.submit(trial.once, digest) for digest in (DigestName.MD5, DigestName.SHA256)]
    refused, missing = pool.submit(trial.refused_characters), pool.submit(trial.missing_is_forbidden)
    wrong_objects = each(DIGESTS, trial.wrong_object)
    return Seen(
        place.prefix,
        place.encryption,
        objects=_results(objects),
        parts=_results(parts),
        wrong_objects=_results(wrong_objects),
        wrong_parts=_results(wrong_parts),
        if_none_match=any(one.result() for one in once),
        refused_characters=refused.result(),
        missing_is_forbidden=missing.result(),
    )


def both_ways(place: Place) -> tuple[Way, Way]:
    """One object by PutObject and one by multipart, under the first digest that is taken."""
    trial = _Trial(place)
    digest, way = trial.any_object("encrypted")
    return way, trial.parts(digest, "encrypted-parts")


def digest_of(name: DigestName, content: bytes) -> str | None:
    """The digest of these bytes in base64; None for none."""
    match name:
        case DigestName.MD5:
            raw = hashlib.md5(content, usedforsecurity=False).digest()
        case DigestName.SHA256:
            raw = hashlib.sha256(content).digest()
        case DigestName.CRC32:
            raw = zlib.crc32(content).to_bytes(4)
        case _:
            return None
    return b64encode(raw).decode()


class _Trial:
    """The ways; each is blocking, for a thread of the pool."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._calls = place.clients.calls

    def object(self, digest: DigestName) -> Way:
        """PutObject, HEAD."""
        return self._object(f"object-{digest}", digest)

    def any_object(self, name: str) -> tuple[DigestName, Way]:
        """The same under the first digest that is taken, MD5 first."""
        for digest in (DigestName.MD5, DigestName.SHA256, DigestName.CRC32):
            way = self._object(name, digest)
            if way.taken:
                break
        return digest, way

    def wrong_object(self, digest: DigestName) -> PutResult:
        """PutObject with the digest of other bytes."""
        return self._put(f"wrong-object-{digest}", digest, OTHER)

    def parts(self, digest: DigestName, name: str = "") -> Way:
        """CreateMultipartUpload, UploadPart, CompleteMultipartUpload, HEAD."""
        key = f"{self._place.prefix}{name or f'parts-{digest}'}"
        put = None
        try:
            s3_upload_id = self._created(key, digest)
            put = self._part(key, s3_upload_id, digest, BODY)
            if not put.taken:
                return Way(put)
            etags = {1: put.etag} if put.etag else multipart.list_parts(self._calls, key, s3_upload_id) or {}
            version = multipart.complete(self._place.clients.once, key, s3_upload_id, etags)
        except ClientError as error:
            return Way(put, code=code_of(error) or str(status_of(error)))
        self._place.litter.uploads.discard((key, s3_upload_id))
        self._place.litter.objects.add((key, version))
        return Way(put, self._look(key))

    def wrong_part(self, digest: DigestName) -> Way:
        """UploadPart with the digest of other bytes."""
        key = f"{self._place.prefix}wrong-parts-{digest}"
        try:
            return Way(self._part(key, self._created(key, digest), digest, OTHER))
        except ClientError as error:
            return Way(code=code_of(error))

    def once(self, digest: DigestName) -> bool:
        """PutObject twice with `If-None-Match: *`; what an earlier probe left may refuse the first one too."""
        name = f"once-{digest}"
        return [self._put(name, digest, BODY, once=True) for _ in range(2)][1].condition_failed

    def refused_characters(self) -> str:
        """The classes of characters with which a key does not work: first one key with all of them, then each."""
        if self._is_kept("".join(HARD_NAMES.values())):
            return ""
        return "".join(one for one, name in HARD_NAMES.items() if not self._is_kept(name))

    def _is_kept(self, name: str) -> bool:
        """Whether an object of this name is stored, and found again under it."""
        try:
            return self.any_object(name)[1].works
        except (ClientError, NotVisible):
            return False

    def missing_is_forbidden(self) -> bool:
        """Whether HEAD of a missing key is 403, as it is without the permission to list the bucket."""
        try:
            buckets.head(self._calls, f"{self._place.prefix}missing")
        except ClientError as error:
            return status_of(error) == _FORBIDDEN
        return False

    def _object(self, name: str, digest: DigestName) -> Way:
        put = self._put(name, digest, BODY)
        return Way(put, self._look(f"{self._place.prefix}{name}") if put.taken else None)

    def _put(self, name: str, digest: DigestName, content: bytes, *, once: bool = False) -> PutResult:
        place, key = self._place, f"{self._place.prefix}{name}"
        part = Grantable(1, len(BODY), digest_of(digest, content), _LIFETIME)
        metadata = {TOKEN_METADATA: TOKEN}
        grant = place.signer.object(key, metadata, part, digest, once=once, encryption=place.encryption)
        result = place.puts.send(grant, BODY)
        if result.taken or result.condition_failed:
            place.litter.objects.add((key, result.version))
        return result

    def _created(self, key: str, digest: DigestName) -> str:
        encryption, metadata = self._place.encryption, {TOKEN_METADATA: TOKEN}
        s3_upload_id = multipart.create(self._calls, key, metadata=metadata, digest=digest, encryption=encryption)
        self._place.litter.uploads.add((key, s3_upload_id))
        return s3_upload_id

    def _part(self, key: str, s3_upload_id: str, digest: DigestName, content: bytes) -> PutResult:
        part = Grantable(1, len(BODY), digest_of(digest, content), _LIFETIME)
        return self._place.puts.send(self._place.signer.part(key, s3_upload_id, part, digest), BODY)

    def _look(self, key: str) -> ObjectInfo:
        """HEAD until the object is there; `NotVisible`, or what the last HEAD raised."""
        give_up_at, pause = time.monotonic() + LOOK_FOR, _PAUSE
        while True:
            refusal: ClientError | None = None
            try:
                if (info := buckets.head(self._calls, key)) is not None:
                    return info
            except ClientError as error:
                # Without the permission to list, a missing object is 403 too.
                if status_of(error) != _FORBIDDEN and code_of(error) not in GONE_BY_HEAD:
                    raise
                refusal = error
            if time.monotonic() > give_up_at:
                raise refusal or NotVisible(key)
            time.sleep(pause)
            pause *= 2


def _results(futures: Mapping[DigestName, Future[T]]) -> dict[DigestName, T]:
    return {digest: future.result() for digest, future in futures.items()}
