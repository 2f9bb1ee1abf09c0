"""Completes an upload and proves it.

Rule: the answer to CompleteMultipartUpload proves nothing; only HEAD does. An upload is `completed` when the object has
its token, its file's size, and the strongest proof that the object store allows (protocol.md section 5). An object that
is not shown is looked for again, for minutes: a look costs nothing, an attempt costs the whole file (decision 17).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.events import CompletionFailed, CompletionProven, SetBack
from control_plane.domain.uploads.model import Proof, Upload, UploadReceipt
from control_plane.services.backoff import equal_jitter
from control_plane.services.errors import ObjectStoreDown, ObjectStoreForbids, ObjectStoreRefused, ObjectStoreUnusable
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.object_store import ObjectInfo, ObjectStore, ObjectStoreCapabilities
from control_plane.services.uploads.checksums import composite_checksum, full_object_crc32, multipart_etag, object_etag
from schemas.names import TOKEN_METADATA
from schemas.parts import PartPlan
from schemas.values import DigestName, ErrorCode

_OPAQUE_ETAGS: Final = ("aws:kms", "aws:kms:dsse", "customer")
_ATTEMPT_IS_LOST: Final = frozenset({"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
"""Refusals of Complete after which only a new attempt can succeed, if looking again does not show the object."""

NEW_ATTEMPT_PAUSE: Final = 20.0
"""Seconds before the second attempt, at most, and half of it at least."""

LONGEST_PAUSE: Final = 60.0
"""Seconds between two looks for an object, at most."""

Settled = CompletionProven | CompletionFailed | SetBack


@dataclass(frozen=True, slots=True)
class Completion:
    """Completes uploads that have all their parts stored."""

    object_store: ObjectStore
    probe: ObjectStoreProbe
    clock: Clock
    policy: Policy
    receipts: Callable[[Upload, float], UploadReceipt | None] = lambda _upload, _now: None
    """The receipt that is to be made of an upload which is completed now; None for none."""

    async def settle(self, upload: Upload) -> Settled:
        """Complete the upload and prove it; `ObjectStoreDown` while the result is unknown: then call this again later.

        Forbidden requests count as unknown until the deadline: the parts are stored, and an operator may replace a
        revoked key. After the deadline they fail the upload.
        """
        try:
            return await self._settled(upload)
        except ObjectStoreForbids as error:
            if self.clock.now() < upload.deadline:
                raise ObjectStoreUnusable(str(error)) from error
            return self._failed(upload, ReasonCode.STORE_REFUSED, str(error))

    async def _settled(self, upload: Upload) -> Settled:
        self.probe.require()
        doubt = None if upload.one_put else await self._complete(upload)
        info = await self.object_store.head(upload.s3_key)
        if info is not None and info.metadata.get(TOKEN_METADATA) == upload.object_token:
            return self._proven(upload, info)
        if isinstance(doubt, ObjectStoreDown | ObjectStoreForbids):
            raise doubt
        if info is not None and TOKEN_METADATA not in info.metadata and info.size == upload.file_size:
            return self._without_token(upload, info, certain=doubt is None)
        if isinstance(doubt, ObjectStoreRefused) and doubt.code not in _ATTEMPT_IS_LOST:
            return set_back(upload, self.clock.now(), Reason(ReasonCode.OBJECT_STORE_REFUSED, str(doubt)))
        return self._not_visible(upload, doubt)

    def _not_visible(self, upload: Upload, doubt: ObjectStoreRefused | None) -> SetBack:
        """Nothing of this attempt is shown, though every part was stored. It may become visible later.

        A refused Complete may follow one that succeeded, here or on another replica, and whose answer was lost.
        """
        text = "every part is stored, and the object store does not show the object yet"
        reason = Reason(ReasonCode.OBJECT_NOT_VISIBLE, f"{text}: {doubt}" if doubt else text)
        return set_back(upload, self.clock.now(), reason, ErrorCode.UPLOAD_GONE, again=True, left=upload.object_token)

    def _without_token(self, upload: Upload, info: ObjectInfo, *, certain: bool) -> SetBack:
        """An object of the right size has no token at all: something drops the metadata.

        A new attempt would end the same way. The object is removed only if it is this upload's: the object store has
        just confirmed that it wrote the key, or the digests are those of the parts.
        """
        ours = certain or proof_of(upload, info, self.probe.capabilities) in {Proof.CHECKSUM, Proof.ETAG}
        kept = "" if ours else "; it was not removed, since nothing shows that this upload wrote it"
        by = "PutObject" if upload.one_put else "CreateMultipartUpload"
        text = (
            f"the object has the size of the file and no x-amz-meta-{TOKEN_METADATA}: the object store, or a proxy "
            f"before it, drops the metadata of {by}; change that{kept}"
        )
        reason, left = Reason(ReasonCode.UNMARKED_OBJECT, text), f'"{info.etag}"' if ours else None
        return set_back(upload, self.clock.now(), reason, ReasonCode.UNMARKED_OBJECT, left=left)

    async def _complete(self, upload: Upload) -> ObjectStoreDown | ObjectStoreRefused | None:
        assert upload.s3_upload_id is not None  # noqa: S101 - completing is reached only with an open upload
        plan = upload.plan
        assert plan is not None  # noqa: S101 - completing is reached only with a plan
        etags = {number: part.etag for number, part in upload.parts.items() if part.etag}
        try:
            if len(etags) < plan.total:
                # A 412 left an etag empty, or the database was restored from a copy: the object store has the list.
                listed = await self.object_store.list_parts(upload.s3_key, upload.s3_upload_id)
                if listed is None:
                    return ObjectStoreRefused("ListParts: the multipart upload is gone", code="NoSuchUpload")
                etags = {number: etags.get(number, etag) for number, etag in listed.items()}
                if missing := [number for number in plan.numbers if number not in etags]:
                    text = f"ListParts: {len(missing)} parts are missing, the first of them {missing[0]}"
                    return ObjectStoreRefused(text, code="InvalidPart")
            await self.object_store.complete(upload.s3_key, upload.s3_upload_id, etags)
        except (ObjectStoreDown, ObjectStoreRefused) as error:
            return error
        return None

    def _proven(self, upload: Upload, info: ObjectInfo) -> Settled:
        if info.size != upload.file_size:
            text = f"the object has {info.size} bytes, the file {upload.file_size}"
            return self._failed(upload, ErrorCode.DIGEST_MISMATCH, text, again=True, left=True)
        proof = proof_of(upload, info, self.probe.capabilities)
        if proof is None:
            text = "the object's digest is not that of the parts which the client offered"
            return self._failed(upload, ErrorCode.DIGEST_MISMATCH, text, again=True, left=True)
        if proof is Proof.SIZE and self.policy.require_proof:
            text = "the store gives no proof beyond the size (REQUIRE_PROOF=false accepts that)"
            return self._failed(upload, ReasonCode.NOT_PROVEN, text, left=True)
        now = self.clock.now()
        receipt = self.receipts(upload, now)
        return CompletionProven(now=now, attempt=upload.attempt, proof=proof, receipt=receipt)

    def _failed(
        self, upload: Upload, error: str, text: str, *, again: bool = False, left: bool = False
    ) -> CompletionFailed:
        return CompletionFailed(
            now=self.clock.now(),
            attempt=upload.attempt,
            error=error,
            text=text,
            again=again,
            left=left,
            delay=equal_jitter(0, first=NEW_ATTEMPT_PAUSE, longest=NEW_ATTEMPT_PAUSE),
        )


def proof_of(upload: Upload, info: ObjectInfo, seen: ObjectStoreCapabilities) -> Proof | None:
    """The strongest proof of an object; None when the object store contradicts the client's digests."""
    plan = upload.plan
    assert plan is not None  # noqa: S101 - completing is reached only with a plan
    digests = [upload.parts[number].digest if number in upload.parts else None for number in plan.numbers]
    known = [digest for digest in digests if digest is not None]
    if upload.digest is DigestName.NONE or len(known) < len(digests):
        return Proof.SIZE
    checksum = info.checksums.get(upload.digest)
    if checksum is not None:
        return Proof.CHECKSUM if checksum == _expected_checksum(upload, plan, known, checksum) else None
    if upload.digest is DigestName.MD5 and seen.etag_is_md5 and info.encryption not in _OPAQUE_ETAGS:
        expected = object_etag(known[0]) if upload.one_put else multipart_etag(known)
        return Proof.ETAG if info.etag == expected else None
    enforced = seen.object_digests if upload.one_put else seen.part_digests
    return Proof.ACCEPTED if upload.digest in enforced else Proof.SIZE


def set_back(
    upload: Upload,
    now: float,
    reason: Reason,
    error: str = ReasonCode.STORE_REFUSED,
    *,
    again: bool = False,
    left: str | None = None,
) -> SetBack:
    """The step that `upload` waits for came to nothing; it is due again after a pause that grows."""
    return SetBack(
        now=now,
        attempt=upload.attempt,
        setbacks=upload.setbacks,
        reason=reason,
        error=error,
        delay=equal_jitter(upload.setbacks, longest=LONGEST_PAUSE),
        again=again,
        left=left,
    )


def _expected_checksum(upload: Upload, plan: PartPlan, digests: list[str], shown: str) -> str:
    """The checksum that HEAD must show for these parts; a shown one that ends with `-N` is a checksum of checksums."""
    if upload.one_put:
        return digests[0]
    if "-" in shown or upload.digest is not DigestName.CRC32:
        return composite_checksum(upload.digest, digests)
    return full_object_crc32(zip(digests, (part.size for part in plan), strict=True))
