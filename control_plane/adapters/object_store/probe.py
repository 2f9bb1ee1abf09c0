"""Which checks the object store enforces, tried on probe objects (docs/protocol.md section 8).

Rule: no capability follows from a product's name. A digest counts as enforced if a wrong one was rejected and the
right one accepted, through URLs like those of clients. Every probe object is removed, also after a failure.
"""

import hashlib
import re
import secrets
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from control_plane.adapters.object_store import buckets, multipart
from control_plane.adapters.object_store.clients import Clients
from control_plane.adapters.object_store.errors import PASSING_STATUS, code_of
from control_plane.adapters.object_store.settings import S3Settings
from control_plane.adapters.object_store.signing import Signer
from control_plane.services.errors import ServiceError
from control_plane.services.policy import MAX_SKEW
from control_plane.services.ports.object_store import Grantable, ObjectInfo, ObjectStoreCapabilities
from control_plane.services.uploads.checksums import multipart_etag, object_etag
from schemas.names import TOKEN_METADATA
from schemas.values import DigestName, PresignedPart

TIMEOUT: Final = 30
"""Seconds to connect, and to wait for bytes."""

_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")


@dataclass(frozen=True, slots=True)
class PutResult:
    """The response to one PUT; `etag` is without quotes, `code` is the object store's error code."""

    status: int
    etag: str = ""
    code: str = ""

    @property
    def taken(self) -> bool:
        """Whether the bytes were stored."""
        return 200 <= self.status < 300  # noqa: PLR2004

    @property
    def refused(self) -> bool:
        """Whether the request was rejected as wrong, rather than the object store being busy or broken."""
        wrong = 400 <= self.status < 500  # noqa: PLR2004
        return wrong and self.status not in PASSING_STATUS and self.code != "RequestTimeout"


def put(grant: PresignedPart, body: bytes) -> PutResult:
    """PUT the bytes with the granted headers."""
    headers = {**grant.headers, "Content-Type": "application/octet-stream"}
    request = AWSRequest("PUT", grant.url, headers=headers, data=body).prepare()
    session = URLLib3Session(timeout=TIMEOUT, proxies=get_environ_proxies(grant.url))
    try:
        response = session.send(request)
        code = _CODE.search(response.content)
        etag = response.headers.get("ETag", "").strip('"')
        return PutResult(response.status_code, etag, code[1].decode() if code else "")
    finally:
        session.close()


BODY: Final = b"Written by Backhaul to see what this store enforces; it may be deleted.\n"
OTHER: Final = b"Not the bytes that are sent.\n"
DIGESTS: Final = (DigestName.MD5, DigestName.SHA256, DigestName.CRC32)
_LIFETIME: Final = 300.0


@dataclass
class Findings:
    """The results so far."""

    object_digests: set[DigestName] = field(default_factory=set)
    part_digests: set[DigestName] = field(default_factory=set)
    object_etag: bool = False
    multipart_etag: bool = False
    if_none_match: bool = False
    encryption: str | None = None
    must_ask_to_encrypt: bool = False
    clock_skew: float | None = None
    notes: list[str] = field(default_factory=list)


class Probe:
    """One run over one bucket; blocking, for a thread of the adapter."""

    def __init__(self, settings: S3Settings, clients: Clients, notes: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._clients = clients
        self._calls = clients.calls
        self._signer = Signer(clients.signer, settings.bucket, clients.credentials)
        self._prefix = f"{settings.probe_prefix}{secrets.token_hex(8)}/"
        self._keys: set[str] = set()
        self._uploads: list[tuple[str, str]] = []
        self._found = Findings(notes=list(notes))

    @property
    def must_ask_to_encrypt(self) -> bool:
        """Whether the object store encrypts only on request.

        A bucket that encrypts by default gets no request: AES256 would override a default of KMS.
        """
        return self._found.must_ask_to_encrypt

    def run(self) -> ObjectStoreCapabilities:
        """The whole probe, about thirty small requests; boto3's exceptions when the object store cannot be used."""
        try:
            self._see_plain_object()
            self._see_encryption()
            self._choose_endpoint()
            for digest in DIGESTS:
                self._see_object_digest(digest)
                self._see_part_digest(digest)
            self._see_if_none_match()
        finally:
            self._remove_everything()
        return self._capabilities()

    def _see_plain_object(self) -> None:
        """The first call: boto3's exception shows an object store that cannot be used. Also the ETag and the clock."""
        key, sent_at = self._key("plain"), time.time()
        metadata = {TOKEN_METADATA: "probe"}
        response = self._calls.client.put_object(Bucket=self._calls.name, Key=key, Body=BODY, Metadata=metadata)
        date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
        self._found.clock_skew = _skew(date, (sent_at + time.time()) / 2)
        info = self._head(key)
        self._found.encryption = info.encryption
        self._found.object_etag = info.etag == object_etag(_digest(DigestName.MD5, BODY))
        if info.metadata.get(TOKEN_METADATA) != "probe":
            self._note("The object store loses metadata: objects of completed uploads cannot be recognised.")

    def _see_encryption(self) -> None:
        if self._found.encryption is not None:
            return
        key = self._key("encrypted")
        with self._optional("Encryption at rest could not be requested"):
            self._calls.client.put_object(Bucket=self._calls.name, Key=key, Body=BODY, ServerSideEncryption="AES256")
            self._found.encryption = self._head(key).encryption
        self._found.must_ask_to_encrypt = self._found.encryption is not None
        if self._found.encryption is None:
            self._note("The object store does not encrypt at rest.")

    def _choose_endpoint(self) -> None:
        """Use the endpoint of the clients for URLs, if it can be reached from here."""
        if self._settings.public_endpoint is None or self._settings.public_endpoint == self._settings.endpoint:
            return
        with suppress(BotoCoreError):
            if put(self._object_grant(self._key("reach"), None, DigestName.NONE), BODY).taken:
                return
        self._signer = Signer(self._calls.client, self._calls.name, self._clients.credentials)
        self._note(
            f"S3_PUBLIC_ENDPOINT {self._settings.public_endpoint} cannot be used from here; the object store was"
            " probed through AWS_ENDPOINT."
        )

    def _see_object_digest(self, digest: DigestName) -> None:
        def attempt(content: bytes) -> PutResult:
            return put(self._object_grant(self._key(f"object-{digest}"), _digest(digest, content), digest), BODY)

        if self._enforced(f"PutObject with {digest}", attempt):
            self._found.object_digests.add(digest)

    def _see_part_digest(self, digest: DigestName) -> None:
        what, key = f"UploadPart with {digest}", self._key(f"parts-{digest}")
        with self._optional(f"{what} could not be tried"):
            s3_upload_id = multipart.create(self._calls, key, token="probe", digest=digest)  # noqa: S106
            self._uploads.append((key, s3_upload_id))

            def attempt(content: bytes) -> PutResult:
                part = Grantable(1, len(BODY), _digest(digest, content), _LIFETIME)
                return put(self._signer.part(key, s3_upload_id, part, digest), BODY)

            if self._enforced(what, attempt):
                self._found.part_digests.add(digest)
            if digest is DigestName.MD5:
                self._see_multipart_etag(key, s3_upload_id)

    def _see_multipart_etag(self, key: str, s3_upload_id: str) -> None:
        """The part is stored, whether or not the digest is enforced."""
        md5 = _digest(DigestName.MD5, BODY)
        etags = multipart.list_parts(self._calls, key, s3_upload_id) or {}
        multipart.complete(self._clients.once, key, s3_upload_id, etags)
        self._found.multipart_etag = self._head(key).etag == multipart_etag([md5])

    def _see_if_none_match(self) -> None:
        key = self._key("once")
        grant = self._object_grant(key, None, DigestName.NONE, once=True)
        first, second = put(grant, BODY), put(grant, BODY)
        self._found.if_none_match = first.taken and second.refused
        if not self._found.if_none_match:
            self._note("If-None-Match is not enforced: an object could be overwritten through its own URL.")

    def _enforced(self, what: str, attempt: Callable[[bytes], PutResult]) -> bool:
        """Whether a wrong digest is rejected and the right one accepted."""
        wrong, right = attempt(OTHER), attempt(BODY)
        if not right.taken:
            self._note(f"{what} is refused even when it is right ({right.code or right.status}).")
        elif not wrong.refused:
            self._note(f"{what}: a wrong digest is not noticed.")
        return right.taken and wrong.refused

    def _capabilities(self) -> ObjectStoreCapabilities:
        found = self._found
        skew = found.clock_skew
        if skew is not None and abs(skew) > MAX_SKEW:
            self._note(
                f"The object store's clock is {skew:+.0f} s from this machine's: its URLs expire too early or late."
            )
        # Under KMS or a customer's key an ETag is never an MD5 (Object, S3 API reference), even if it looks like one.
        readable = found.encryption in {None, "AES256"}
        return ObjectStoreCapabilities(
            part_digests=frozenset(found.part_digests),
            object_digests=frozenset(found.object_digests),
            etag_is_md5=readable and found.object_etag and found.multipart_etag,
            if_none_match=found.if_none_match,
            encrypts=found.encryption is not None,
            clock_skew=skew,
            notes=tuple(found.notes),
        )

    def _remove_everything(self) -> None:
        with suppress(ServiceError, BotoCoreError, ClientError):
            for key, s3_upload_id in self._uploads:
                multipart.abort(self._calls, key, s3_upload_id)
            for key in sorted(self._keys):
                buckets.delete(self._calls, key)
            return
        self._note(f"Objects of the probe may be left below {self._prefix}.")

    @contextmanager
    def _optional(self, note: str) -> Iterator[None]:
        """A rejection of this is a finding, not a failure."""
        try:
            yield
        except ClientError as error:
            self._note(f"{note} ({code_of(error)}).")

    def _object_grant(self, key: str, value: str | None, digest: DigestName, *, once: bool = False) -> PresignedPart:
        part = Grantable(1, len(BODY), value, _LIFETIME)
        return self._signer.object(key, "probe", part, digest, once=once, encrypt=False)

    def _head(self, key: str) -> ObjectInfo:
        return buckets.head(self._calls, key) or ObjectInfo(0, "")

    def _key(self, name: str) -> str:
        key = f"{self._prefix}{name}"
        self._keys.add(key)
        return key

    def _note(self, text: str) -> None:
        self._found.notes.append(text)


def _digest(name: DigestName, content: bytes) -> str:
    match name:
        case DigestName.MD5:
            raw = hashlib.md5(content, usedforsecurity=False).digest()
        case DigestName.SHA256:
            raw = hashlib.sha256(content).digest()
        case _:
            raw = zlib.crc32(content).to_bytes(4)
    return b64encode(raw).decode()


def _skew(date: str | None, now: float) -> float | None:
    """The object store's clock minus this machine's (s); `Date` has whole seconds, so half a second is added."""
    if date is None:
        return None
    with suppress(ValueError):
        return round(parsedate_to_datetime(date).timestamp() + 0.5 - now, 1)
    return None
