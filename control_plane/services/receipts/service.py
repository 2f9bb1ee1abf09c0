"""The use cases of receipts: show the receipt of an upload, and verify the object against it.

Rule: nothing that comes from the object store decides whose signature counts, and the database alone does not either:
the control plane's key is one of those that are known from outside of both. A difference is a change in the change log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from control_plane.domain.access import Principal, Scope
from control_plane.domain.audit.model import Act
from control_plane.domain.changes import UploadMismatched
from control_plane.domain.uploads.model import Proof, State, Upload
from control_plane.services.audit.recording import record
from control_plane.services.errors import BadInput, NotOurs, ObjectStoreRefused
from control_plane.services.events.log import ChangeLogger
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import ObjectInfo, ObjectStore
from control_plane.services.receipts.maker import envelope_of, receipt_key
from control_plane.services.receipts.making import require_same, require_signature, statement_bytes
from control_plane.services.uploads.completion import proof_of
from control_plane.services.uploads.service import UploadService
from schemas.errors import SchemaError
from schemas.names import TOKEN_METADATA
from schemas.receipts.envelope import Envelope
from schemas.receipts.statement import subject_of
from schemas.signing.ed25519 import Verifier
from schemas.values import DigestName

if TYPE_CHECKING:
    from control_plane.domain.uploads.model import UploadReceipt


_ARCHIVED: Final = "InvalidObjectState"
"""The code of an object store for an object that has to be restored before it can be read."""


class ReceiptVerdict(StrEnum):
    """What a verification came to."""

    VERIFIED = "verified"
    MISMATCH = "mismatch"
    UNSIGNED = "unsigned"
    """The object agrees with the database, and there is no receipt yet, or none is made."""


class Content(StrEnum):
    """How the content of the object was compared."""

    BYTES = "bytes"
    """The caller has read it."""
    STORE = "store"
    """By the checksum or the ETag that the object store shows."""
    SIZE = "size"
    """The object store shows nothing but the size."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the caller found by reading the object: bytes, and the digest of `Statement.subject`, in hex by its name."""

    size: int
    digest: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verified:
    """The result for one upload. `differs` has a sentence for each difference, and `notes` for what is weaker."""

    upload: Upload
    verdict: ReceiptVerdict
    content: Content
    signed_by_device: bool
    differs: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """A signed receipt, and the public keys (text form) of those who signed it."""

    upload: Upload
    envelope: Envelope
    witness_key: str
    device_key: str | None
    refused: str | None


class ReceiptService:
    """Shows and verifies receipts.

    `is_witness` tells of a public key (text form) whether the control plane signs, or signed, with it. It must not ask
    the database: who can write there would else be a witness.
    """

    def __init__(
        self,
        *,
        uploads: UploadService,
        database: Database,
        object_store: ObjectStore,
        probe: ObjectStoreProbe,
        clock: Clock,
        log: EventLog,
        policy: Policy,
        is_witness: Callable[[str], bool],
    ) -> None:
        self._uploads = uploads
        self._database = database
        self._object_store = object_store
        self._probe = probe
        self._clock = clock
        self._log = log
        self._policy = policy
        self._is_witness = is_witness

    async def receipt(self, principal: Principal, upload_id: str, client_id: str | None = None) -> ReceiptView:
        """The receipt of a completed upload; `BadInput` while there is none; else errors as for an upload."""
        upload = (await self._uploads.upload(principal, upload_id, client_id)).upload
        receipt, envelope = upload.receipt, envelope_of(upload.receipt)
        if receipt is None or envelope is None or receipt.witness_key is None:
            text = f"upload {upload_id!r} has no receipt: {_why(upload, receipt)}"
            raise BadInput(text)
        return ReceiptView(upload, envelope, receipt.witness_key, receipt.device_key, receipt.refused)

    async def verify(
        self, principal: Principal, upload_id: str, client_id: str | None = None, measured: Measured | None = None
    ) -> Verified:
        """Compare object, receipt and database.

        `BadInput` before the upload is completed, `NotOurs` for another owner's. `ObjectStoreDown` or
        `ObjectStoreRefused` when the object cannot be looked at. A difference is committed as a change; one that only
        `measured` shows is the caller's word, and a change only of a caller who may write uploads.
        """
        upload = (await self._uploads.upload(principal, upload_id, client_id)).upload
        if upload.owner != self._policy.owner:
            text = f"upload {upload_id!r} belongs to {upload.owner}: this control plane did not prove its object"
            raise NotOurs(text)
        if upload.state is not State.COMPLETED:
            text = f"upload {upload_id!r} is {upload.state}: it has no object yet"
            raise BadInput(text)
        info = await self._object_store.head(upload.s3_key)
        content, differs = self._compared(upload, info)
        notes: list[str] = []
        envelope = envelope_of(upload.receipt)
        if envelope is None:
            notes.append(_why(upload, upload.receipt))
        else:
            differs += self._unwitnessed(upload) + _contradictions(upload, envelope)
            differs += await self._copy_differs(upload, notes)
            registered = await self._database.read(lambda records: _registered(records, upload))
            differs += registered.differs
            notes += registered.notes
        shown = differs
        if measured is not None:
            content, told = Content.BYTES, _measured_differs(upload, measured)
            differs += told
            if told and Scope.UPLOADS_WRITE in principal.scopes:
                shown = differs
            elif told and not shown:
                notes.append(
                    f"no event is raised: what was read is the caller's word, which needs {Scope.UPLOADS_WRITE}"
                )
        notes += _weaknesses(upload, content)
        by_device = upload.receipt is not None and upload.receipt.device_key is not None
        fine = ReceiptVerdict.UNSIGNED if envelope is None else ReceiptVerdict.VERIFIED
        verdict = ReceiptVerdict.MISMATCH if differs else fine
        found = Verified(upload, verdict, content, by_device and not differs, differs, tuple(notes))
        await self._committed(principal, found, shown)
        return found

    def _compared(self, upload: Upload, info: ObjectInfo | None) -> tuple[Content, tuple[str, ...]]:
        """How the object was compared with the database, and what differs."""
        if info is None:
            return Content.STORE, (f"there is no object {upload.s3_key!r}",)
        differs: list[str] = []
        if info.size != upload.file_size:
            differs.append(f"the object has {info.size} bytes, and had {upload.file_size} when it was proven")
        token = info.metadata.get(TOKEN_METADATA)
        if token != upload.object_token:
            differs.append("the object does not have the token of this upload: it was written again")
        proof = proof_of(upload, info, self._probe.capabilities)
        if proof is None:
            differs.append("the digest that the object store shows is not that of the file")
        content = Content.STORE if proof in {None, Proof.CHECKSUM, Proof.ETAG} else Content.SIZE
        return content, tuple(differs)

    def _unwitnessed(self, upload: Upload) -> tuple[str, ...]:
        """Who writes to the database can sign what it likes with a key of its own, and name that key in the row."""
        key = None if upload.receipt is None else upload.receipt.witness_key
        if key is None:
            return ("the receipt names no key of the control plane",)
        if self._is_witness(key):
            return ()
        text = f"the receipt is signed with {Verifier.of_text(key).kid}, which is no key of the control plane"
        return (f"{text}; if it was one, add {key} to RECEIPT_KEYS",)

    async def _copy_differs(self, upload: Upload, notes: list[str]) -> tuple[str, ...]:
        """Compare the copy beside the object byte by byte; a store that keeps it offline gives a note."""
        receipt = upload.receipt
        if receipt is None or receipt.done_at is None or receipt.envelope is None or not self._policy.receipts:
            return ()
        expected, key = receipt.envelope.encode(), receipt_key(upload.s3_key)
        try:
            copy = await self._object_store.read(key, len(expected) + 1)
        except ObjectStoreRefused as error:
            if error.code != _ARCHIVED:
                raise
            notes.append("the receipt beside the object is archived, and was not compared")
            return ()
        if copy is None:
            return (f"there is no object {key!r}: the receipt beside the object is gone",)
        return () if copy == expected else (f"the receipt beside the object, {key!r}, is another one",)

    async def _committed(self, principal: Principal, found: Verified, shown: tuple[str, ...]) -> None:
        """The act for the audit, and a difference as a change if it is among the `shown` ones."""
        upload, now = found.upload, self._clock.now()
        change = (
            UploadMismatched(
                at=now,
                client_id=upload.client_id,
                upload_id=upload.upload_id,
                s3_key=upload.s3_key,
                text=shown[0],
            )
            if shown
            else None
        )

        def work(records: Records) -> None:
            target, facts = f"upload:{upload.upload_id}", {"s3_key": upload.s3_key, "verdict": str(found.verdict)}
            record(
                records,
                principal,
                Act.UPLOAD_VERIFY,
                now,
                target=target,
                clients=[upload.client_id],
                detail=facts,
            )
            if change is not None:
                records.changes.append([change])

        await self._database.write(work)
        if change is not None:
            ChangeLogger(self._log).committed((change,))


def _contradictions(upload: Upload, envelope: Envelope) -> tuple[str, ...]:
    """What of the receipt in the database does not hold: a signature, or a member of the statement."""
    receipt, found = upload.receipt, []
    keys = {} if receipt is None else {"the control plane": receipt.witness_key, "the device": receipt.device_key}
    for whose, key in keys.items():
        try:
            if key is not None:
                require_signature(envelope, Verifier.of_text(key), whose)
        except SchemaError as error:
            found.append(str(error))
    try:
        statement = envelope.statement
        require_same(statement, statement_bytes(upload, statement))
    except SchemaError as error:
        found.append(str(error))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Registered:
    """What the registry of devices has about the key with which a device signed."""

    differs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _registered(records: Records, upload: Upload) -> _Registered:
    """Every key that ever counted is pinned still, or among the revoked ones: a replaced key is one of these too."""
    text = None if upload.receipt is None else upload.receipt.device_key
    if text is None:
        return _Registered()
    key = Verifier.of_text(text)
    if key.public_key in records.devices.revoked_keys():
        note = f"the device's key {key.kid} was replaced or revoked since; it was pinned when the receipt was signed"
        return _Registered(notes=(note,))
    device = records.devices.get(upload.client_id)
    if device is None or device.public_key != key.public_key:
        return _Registered(differs=(f"the registry of devices has never had the key {key.kid} of {upload.client_id}",))
    return _Registered()


def _measured_differs(upload: Upload, measured: Measured) -> tuple[str, ...]:
    plan = upload.plan
    if plan is None:
        return ()
    if measured.size != upload.file_size:
        return (f"{measured.size} bytes were read, and the file has {upload.file_size}",)
    digests = [upload.parts[number].digest if number in upload.parts else None for number in plan.numbers]
    expected = subject_of(upload.s3_key, upload.digest, plan, digests).digest
    return () if dict(measured.digest) == expected else ("the bytes that were read are not those of the file",)


def _weaknesses(upload: Upload, content: Content) -> list[str]:
    """In plain words, what this verification does not show."""
    found: list[str] = []
    if content is Content.SIZE:
        found.append("the object store shows no digest of the object: only its size was compared; --bytes reads it")
    if upload.digest in {DigestName.MD5, DigestName.CRC32}:
        found.append(f"the digest of this upload is {upload.digest}: it detects accidents, and not a forger")
    if upload.digest is DigestName.NONE:
        found.append("this upload has no digest: its receipt is about the size alone")
    receipt = upload.receipt
    if receipt is not None and receipt.envelope is not None and receipt.device_key is None:
        why = f": {receipt.refused}" if receipt.refused else ""
        found.append(f"not signed by the device{why}; the control plane alone vouches for it")
    return found


def _why(upload: Upload, receipt: "UploadReceipt | None") -> str:
    """Why there is no receipt."""
    if upload.state is not State.COMPLETED:
        return f"it is {upload.state}"
    if receipt is None:
        return "none was made when it was completed"
    return "it is not made yet: the device is waited for" if receipt.wanted else "it is not made yet"
