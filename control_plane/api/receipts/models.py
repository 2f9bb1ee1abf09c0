"""The shapes of receipts in REST.

Rule: as in `api/models.py`. An envelope is shown as it was signed.
"""

from base64 import b64encode
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from control_plane.api.bodies import Input
from control_plane.api.models import Output
from control_plane.services.receipts.service import Content, Measured, ReceiptVerdict, ReceiptView, Verified
from schemas.parts import MIN_CHUNK_SIZE, PartPlan
from schemas.receipts.envelope import PAYLOAD_TYPE, Envelope
from schemas.receipts.statement import WHOLE_SHA256, Subject, encode_statement, predicate_of
from schemas.signing.canonical import PUBLIC_KEY_SIZE, from_text, key_id
from schemas.values import DigestName, UploadOptions

_UPLOAD: Final = "5f2c0a4e9d1b4c7f8a6e3d2b1c0f9e8d"
_KEY: Final = "uploads/restaurant-1/20251101-100000-sales.csv"
_SHA256: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_KID: Final = "ed25519:Zmh6rfhivXdsj8GLjp-OIA"
_STATEMENT: Final = encode_statement(
    Subject(_KEY, {WHOLE_SHA256: _SHA256}),
    predicate_of(
        UploadOptions(),
        DigestName.SHA256,
        PartPlan(0, MIN_CHUNK_SIZE),
        client_id="restaurant-1",
        upload_id=_UPLOAD,
        attempt=1,
        path="/data/sales.csv",
        proof="checksum",
        completed_at=datetime(2025, 11, 1, 10, tzinfo=UTC),
    ),
)
_ENVELOPE: Final[JsonDict] = {
    "payloadType": PAYLOAD_TYPE,
    "payload": b64encode(_STATEMENT).decode(),
    "signatures": [{"keyid": _KID, "sig": b64encode(bytes(64)).decode()}],
}
_RECEIPT: Final[JsonDict] = {
    "upload_id": _UPLOAD,
    "s3_key": _KEY,
    "envelope": _ENVELOPE,
    "keys": [{"keyid": _KID, "public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "of": "device"}],
    "signed_by_device": True,
    "refused": None,
}
_MEASURED: Final[JsonDict] = {"size": 0, "digest": {"sha256": _SHA256}}
_VERIFIED: Final[JsonDict] = {
    "upload_id": _UPLOAD,
    "client_id": "restaurant-1",
    "s3_key": _KEY,
    "verdict": "verified",
    "content": "store",
    "signed_by_device": True,
    "differs": [],
    "notes": [],
}


class SigningKey(Output):
    """A key that has signed a receipt: `public_key` is base64url of the 32 bytes of Ed25519, `of` is who holds it."""

    keyid: str
    public_key: str
    of: str


class ReceiptDocument(Output):
    """The receipt of an upload: a DSSE envelope, and the keys that this control plane knows for it.

    `refused` is why the device's own receipt was not taken, if it was not.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_RECEIPT]})

    upload_id: str
    s3_key: str
    envelope: dict[str, Any]
    keys: list[SigningKey]
    signed_by_device: bool
    refused: str | None

    @classmethod
    def of(cls, view: ReceiptView) -> Self:
        """The receipt of `view`."""
        holders = ((view.device_key, "device"), (view.witness_key, "control-plane"))
        return cls(
            upload_id=view.upload.upload_id,
            s3_key=view.upload.s3_key,
            envelope=_shown(view.envelope),
            keys=[
                SigningKey(keyid=key_id(from_text(key, PUBLIC_KEY_SIZE)), public_key=key, of=of)
                for key, of in holders
                if key is not None
            ],
            signed_by_device=view.device_key is not None,
            refused=view.refused,
        )


class MeasuredBody(Input):
    """What the caller found by reading the object: its bytes, and its digest in hex under the name of the receipt."""

    model_config = ConfigDict(json_schema_extra={"examples": [_MEASURED]})

    size: Annotated[int, Field(ge=0, le=2**63 - 1)]
    digest: Annotated[dict[str, Annotated[str, Field(max_length=128)]], Field(min_length=1, max_length=1)]

    @property
    def measured(self) -> Measured:
        """As the service takes it."""
        return Measured(self.size, self.digest)


class VerifiedDocument(Output):
    """What a verification came to.

    `content` is how the content was compared. `differs` has a sentence for each difference, `notes` for what was not
    shown.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_VERIFIED]})

    upload_id: str
    client_id: str
    s3_key: str
    verdict: ReceiptVerdict
    content: Content
    signed_by_device: bool
    differs: list[str]
    notes: list[str]

    @classmethod
    def of(cls, found: Verified) -> Self:
        """The result."""
        return cls(
            upload_id=found.upload.upload_id,
            client_id=found.upload.client_id,
            s3_key=found.upload.s3_key,
            verdict=found.verdict,
            content=found.content,
            signed_by_device=found.signed_by_device,
            differs=list(found.differs),
            notes=list(found.notes),
        )


def _shown(envelope: Envelope) -> dict[str, Any]:
    return {
        "payloadType": envelope.payload_type,
        "payload": envelope.payload,
        "signatures": [{"keyid": one.keyid, "sig": one.sig} for one in envelope.signatures],
    }
